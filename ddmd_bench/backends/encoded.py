"""What backends share whose prompts are encoded once, before anything else runs.

They read embeddings from the store that the encode stage makes (`ddmd_bench.students.prepared`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from ddmd_bench.backends import Encoders
from ddmd_bench.backends.pipelines import PromptEncoder, load_image_encoder
from ddmd_bench.backends.repository import Parts
from ddmd_bench.errors import BenchError
from ddmd_bench.hub import remote_identity
from ddmd_bench.objective.terms import Cond


def encoders_of(
    parts: Parts,
    load_prompt_encoder: Callable[[Parts, str], PromptEncoder],
    collate: Callable[[Sequence[Mapping[str, Tensor]]], Cond],
    rules: Mapping[str, str],
) -> Encoders:
    """The encoders of a model: a family's own for prompts, and the VAE's.

    rules: what determines an embedding beside the encoders.
    """
    return Encoders(
        identity=lambda: {
            "text": remote_identity(parts.text),
            "dtype": parts.model.dtype,
            **rules,
        },
        load_prompt_encoder=partial(load_prompt_encoder, parts),
        collate=collate,
        load_image_encoder=partial(load_image_encoder, parts),
    )


def encode_prompts(prompts: Sequence[str]) -> NoReturn:
    """In place of a text encoder that runs beside the networks."""
    raise BenchError("prompts are encoded by the encode stage, which has not run. Run it first")


def draw_prompt(generator: torch.Generator) -> NoReturn:
    """In place of training prompts that a suite does not name."""
    raise BenchError("no training prompts: name them under train_data.prompts")


def refuse_empty(prompt: str) -> None:
    """'' is the unconditional prompt, and no prompt of a suite."""
    if not prompt.strip():
        raise BenchError("prompts: an empty prompt; '' stands for no prompt. Leave it out")
