"""Words, progress and exit codes: nothing below prints.

Imports: errors, objective, files, suite, hub, data, scorers, measuring, students, planning,
vendors, reporting, study, stages, run.
"""
