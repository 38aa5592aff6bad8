"""What the server says about itself: metrics in Prometheus' format, with vLLM's names where the meaning is the same."""
