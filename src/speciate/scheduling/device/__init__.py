"""Several schedulers on one device: whose step runs next, and which models may live there together."""
