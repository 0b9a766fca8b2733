"""The suite file: its schema and settings with their defaults, found, overridden and checked.

Imports: errors, objective, files.
"""
