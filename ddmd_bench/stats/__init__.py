"""Pure statistics in float64: means with intervals, paired differences, distances of features.

Imports: errors.
"""
