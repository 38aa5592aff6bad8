"""How long, how much memory, energy, money: estimates from what was measured. Decides nothing."""
