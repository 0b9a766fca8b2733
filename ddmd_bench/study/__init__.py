"""People as judges: a blind page that anybody can host, and the tally of what they answered.

`design` says who sees what; `making` writes a study's folder, `answers` reads what came back and
`tally` makes numbers of it. Imports: errors, stats, files, suite,
data, scorers, reporting.
"""
