"""What runs next on one device: pure decisions over time and data. Knows no clock, no model and no network."""
