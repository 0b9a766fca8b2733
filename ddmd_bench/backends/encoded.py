"""What backends share whose prompts are encoded once, before anything else runs.

They read embeddings from the store that the encode stage makes (`ddmd_bench.students.prepared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch

from ddmd_bench.errors import BenchError


def encode_prompts(prompts: Sequence[str]) -> NoReturn:
    """In place of a text encoder that runs beside the networks."""
    raise BenchError("prompts are encoded by the encode stage, which has not run. Run it first")


def draw_prompts(num: int, generator: torch.Generator) -> NoReturn:
    """In place of training prompts that a suite does not name."""
    raise BenchError("no training prompts: name them under train_data.prompts")


def refuse_empty(prompt: str) -> None:
    """'' is the unconditional prompt, and no prompt of a suite."""
    if not prompt.strip():
        raise BenchError("prompts: an empty prompt; '' stands for no prompt. Leave it out")
