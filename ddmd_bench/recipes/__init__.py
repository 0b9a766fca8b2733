"""How the weights that the package carries were made.

Imports: objective, files, backends, scorers.
"""
