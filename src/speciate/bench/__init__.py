"""Measures. The demo loads a running server as its users would, through the official OpenAI client, and says which
promises it kept; `tiers` compares policies on a real engine and in the simulator; `calibrate` measures step times.
"""
