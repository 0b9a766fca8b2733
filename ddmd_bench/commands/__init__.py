"""Words, progress and exit codes: nothing below prints.

Imports: errors, suite, files, hub, scorers, measuring, students, planning, reporting, stages, run.
"""
