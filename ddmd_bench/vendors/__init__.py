"""The authors' own packages, in an environment of their own, asked about the same files as ours.

Imports: errors, files, scorers, measuring, planning.
"""
