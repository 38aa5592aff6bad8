"""What runs a model: one file an engine. Siblings never import each other; shared pieces are sampling and grammar."""
