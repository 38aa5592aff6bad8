"""Where and when to hold which capacity: pure decisions over time and data. Knows no clock, no cloud, no store."""
