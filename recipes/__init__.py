"""Recipes that train the project's own models; each needs torch, and none is imported by the package."""
