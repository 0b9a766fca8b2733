"""The Hugging Face Hub: what its cache holds, what is missing, and fetching it.

`remote` names files, `layout` chooses them in a model's folders, `shards` reads their indices,
`cache` finds them without network, `hashes` knows their sha256, `online` asks the Hub, `transfer`
downloads, `sentences` says what went wrong. huggingface_hub loads inside functions only.

Imports: errors, files.
"""

from __future__ import annotations

from ddmd_bench.hub.cache import file_here, folder_of, remote_identity, variant_of
from ddmd_bench.hub.layout import Layout
from ddmd_bench.hub.online import Look, Size, look
from ddmd_bench.hub.remote import Remote, is_local
from ddmd_bench.hub.transfer import OnBytes, download

__all__ = [
    "Layout",
    "Look",
    "OnBytes",
    "Remote",
    "Size",
    "download",
    "file_here",
    "folder_of",
    "is_local",
    "look",
    "remote_identity",
    "variant_of",
]
