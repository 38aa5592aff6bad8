"""How others schedule mixed work, as stages of the same scheduler: same blocks, same books, other decisions."""
