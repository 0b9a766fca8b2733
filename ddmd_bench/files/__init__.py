"""What lies on disk: keys, whole writes, provenance, decoded images, embeddings; the device.

Imports: errors.
"""
