"""Numbers that others printed, each with the protocol behind it.

Imports: errors, files, suite.
"""
