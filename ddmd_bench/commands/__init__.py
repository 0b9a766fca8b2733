"""Words, progress and exit codes: nothing below prints.

Imports: errors, files, suite, hub, data, scorers, measuring, students, planning, reporting, study,
stages, run.
"""
