"""From a run's files to its report: read, compare, judge, draw, write pages. Torch-free."""
