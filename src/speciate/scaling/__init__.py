"""Where and when to hold how much capacity: pure decisions over time and data. Knows no clock, no cloud and no store."""
