"""From images to numbers: scorers in one pass, their answers kept, metrics over them.

Imports: errors, stats, suite, files, hub, data, scorers.
"""
