"""The words: frozen structs and protocols that every other package speaks.

Knows nothing of HTTP, OpenAI, JSON bodies, Ray or any model runtime.
"""
