"""The paper as pure functions: methods, the forward process, terms, sampling, diagnostics.

Imports: nothing of the package.
"""
