"""How the weights that the package carries were made.

Imports: objective, backends, scorers.
"""
