"""Measurements of speed, memory and size, which no test repeats: `python -m benchmarks --help`."""
