"""The durable path: jobs of many lines that survive any crash, published exactly once. Knows no dialect and no HTTP."""
