"""Image models in diffusers folders, stepped by us: every pass of every picture is a share of some step."""
