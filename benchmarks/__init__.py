"""Measurements of speed and memory, which no test repeats: each file says how it is run."""
