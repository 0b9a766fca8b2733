"""What lies on disk: lines, keys, whole writes, provenance, decoded images, embeddings; the device.

Imports: errors.
"""
