"""What a scheduling decision costs, and what it is worth."""
