"""Speciate: one inference endpoint, a specialised stack for every kind of work."""

from importlib.metadata import version

__version__ = version("speciate")
