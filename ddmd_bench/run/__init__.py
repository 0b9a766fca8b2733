"""Order and processes: each task as soon as what it needs is done, students side by side.

Imports: errors, files, measuring, planning.
"""
