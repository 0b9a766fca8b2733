"""From images to numbers: scorers in one pass, their answers kept, metrics over them.

Imports: errors, stats, files, suite, hub, data, scorers.
"""
