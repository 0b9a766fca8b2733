"""The stages of a run, a short file each; they meet through files, none imports another.

Imports: errors, objective, stats, files, suite, data, backends, scorers, measuring, students,
training, planning, reporting.
"""
