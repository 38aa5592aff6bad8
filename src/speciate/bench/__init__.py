"""Load a running server as its users would, and say which promises it kept. A client: knows nothing of the server's
insides, speaks to it through the official OpenAI client alone.
"""
