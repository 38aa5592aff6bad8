"""Speciate: one inference endpoint, every promise kept on shared hardware. Start at docs/concepts/trace.md."""

__version__ = "0.1.0"
