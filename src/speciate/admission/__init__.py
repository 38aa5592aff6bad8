"""May it enter now? Pure decisions over a request's demand and a replica's load."""
