"""What must happen, its keys, what is wrong and what it costs, before any work: `PARTS`.

Imports: errors, objective, stats, files, suite, literature, hub, data, backends, scorers,
measuring, students.
"""
