"""One student's update, and its course from the first to the last.

Imports: errors, objective, stats, suite, files, data, backends, scorers, measuring, students.
"""
