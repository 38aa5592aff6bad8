"""Trains the pocket text model and its delivery-note adapter; see README.md for its cost and result."""
