"""From a run's files to its pages.

Imports: errors, objective, stats, files, suite, literature, data, scorers, measuring, planning.
"""
