"""Where a student's network and images come from, and how a trained one leaves.

Imports: errors, objective, files, suite, hub, data, backends.
"""
