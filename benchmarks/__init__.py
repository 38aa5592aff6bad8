"""Scripts that measure us and the named peers in one run: `python -m benchmarks.NAME --json PATH [--quick]`."""
