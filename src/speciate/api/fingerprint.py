"""Which software answered: OpenAI's `system_fingerprint`."""

from importlib.metadata import version

FINGERPRINT = "speciate-" + version("speciate")
