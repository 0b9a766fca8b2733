"""Statistics of a comparison: numpy and scipy alone, float64, every draw from a seed."""
