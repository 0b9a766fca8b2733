"""Compare few-step text-to-image students: train, generate, score, report, check."""

__version__ = "0.1.0"
