"""One student's update, and its course from the first to the last.

Imports: errors, objective, stats, files, suite, data, backends, scorers, measuring, students.
"""
