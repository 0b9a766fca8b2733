"""From a run's files to its pages.

Imports: errors, objective, stats, suite, literature, files, scorers, measuring, planning.
"""
