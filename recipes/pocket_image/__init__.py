"""The recipe of the pocket image model, its styles, its few-step form and the judge of its pictures."""
