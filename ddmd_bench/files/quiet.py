"""Keep libraries from printing what is no user's business; importing it does so.

bitsandbytes, which diffusers loads where it is installed, warns of a kernel that it cannot fetch.
"""

from __future__ import annotations

import logging
import os


def keep_quiet() -> None:
    """In this process, and in those that inherit its environment."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # A run has progress of its own to show; transformers asks the Hub's client.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


keep_quiet()
