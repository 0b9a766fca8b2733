"""Examine the scorers before anything costly is done with them; and, where asked, a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ddmd_bench.backends import Backend
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.files.device import default_device
from ddmd_bench.files.memory import return_memory
from ddmd_bench.files.records import mark_done, seed_of
from ddmd_bench.measuring.doctor import Finding, require_healthy
from ddmd_bench.measuring.turns import let_go
from ddmd_bench.objective.guidance import prompt_share
from ddmd_bench.objective.sampler import rows_of
from ddmd_bench.planning.guidance import LEAST_SHARE, amplified, note_share, told
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.prompts import find_suite_prompts
from ddmd_bench.scorers import outside_scorers

if TYPE_CHECKING:
    from ddmd_bench.objective.terms import Cond
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

PROMPTS = 4
LEVELS = (1.0, 0.75, 0.5, 0.25)


def doctor(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write what was found; raises where a scorer cannot be believed."""
    scorers = outside_scorers(plan.suite.all_metrics)
    findings = []
    for k, name in enumerate(scorers, 1):
        findings += require_healthy(
            [name], default_device(), getattr(torch, plan.suite.scoring.dtype)
        )
        let_go()  # training may need the memory next
        progress(k, len(scorers))
    record = {"key": task.key, "n": len(scorers), "findings": [f._asdict() for f in findings]}
    mark_done(task.folder, record)


def examine_teacher(asked: Asked) -> Finding:
    """Whether the prompt decides what the teacher predicts, measured on the suite's first prompts.

    It is kept for every suite with these weights: `plan` warns of a teacher that gives CA nothing.
    """
    if not amplified(asked.suite):
        return Finding("teacher", "guidance", None, "no student is trained with CA")
    found = find_suite_prompts(asked)
    if not found.prompts:
        raise BenchError("\n".join(found.problems))
    share = _prompt_share(asked.backend, found.prompts[:PROMPTS], default_device())
    if not math.isfinite(share):
        return Finding("teacher", "guidance", False, "its predictions are not finite, or all 0")
    note_share(asked.backend, share)
    return Finding("teacher", "guidance", share >= LEAST_SHARE, told(share))


def _prompt_share(backend: Backend, prompts: Sequence[Prompt], device: str) -> float:
    num = len(prompts)
    texts = [*(prompt.text for prompt in prompts), *[""] * num]
    encoded = {key: value.to(device) for key, value in _encoded(backend, texts, device).items()}
    return_memory()
    teacher = backend.load_teacher().to(device, getattr(torch, backend.dtype))
    generator = torch.Generator().manual_seed(seed_of("guidance"))
    shape = (num, *backend.latent_shape)
    noises = [torch.randn(shape, generator=generator).to(device) for _ in LEVELS]
    cond, uncond = rows_of(encoded, slice(num)), rows_of(encoded, slice(num, None))
    return prompt_share(teacher, LEVELS, cond, uncond, noises, backend.level)


def _encoded(backend: Backend, texts: Sequence[str], device: str) -> Cond:
    """In one batch, by text encoders that are gone afterwards."""
    if backend.encoders is None:
        return backend.encode_prompts(texts)
    return backend.encoders.collate(backend.encoders.load_prompt_encoder(device)(texts))
