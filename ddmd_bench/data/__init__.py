"""Prompts, captions and images: read from lists, tables and folders; noise of each image.

Imports: errors, files, suite, hub.
"""
