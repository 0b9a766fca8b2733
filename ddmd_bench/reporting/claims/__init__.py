"""Claims: what a suite expects, and whether the run's numbers say so.

Each rule is a function with its own docstring; the page shows that docstring's first paragraph.
A student that is missing, or a difference without an interval, makes a claim undecided. A claim
rests on its own interval: it is one of a few that were stated before the run.
"""
