"""Scorers that do not fit into memory side by side take turns, each over all the images.

for one_pass in turns(["hps_v21", "hps_v3"], "cuda"):
    for answers in one_pass.over(chunks): ...
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ddmd_bench.errors import BenchError
from ddmd_bench.files.device import is_out_of_memory, memory_shown
from ddmd_bench.measuring.one_pass import OnePass
from ddmd_bench.scorers import SCORERS, loaded


def turns(
    names: Sequence[str],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    encoded_prompts: Callable[[str], Path] | None = None,
) -> Iterator[OnePass]:
    """Passes that together have every scorer, in order: one where all fit into memory."""
    left = tuple(names)
    while left:
        turn = _side_by_side(left, device, dtype)
        one_pass = OnePass(turn, device, dtype, encoded_prompts)
        yield one_pass
        left = left[len(turn) :]
        if left:
            one_pass.let_go()
            let_go()


def let_go() -> None:
    """Every scorer out of memory, but for those that someone still holds."""
    loaded.cache_clear()
    _return_memory()


def _side_by_side(names: tuple[str, ...], device: str, dtype: torch.dtype) -> tuple[str, ...]:
    """The first scorers, as many as fit, loaded; one at least."""
    for number, name in enumerate(names):
        if _fits(name, device, dtype):
            continue
        if loaded.cache_info().currsize > number:  # others, of an earlier pass, are in the way
            let_go()
            return _side_by_side(names, device, dtype)
        if number == 0:
            raise BenchError(_too_large(name, device, dtype))
        return names[:number]
    return names


def _fits(name: str, device: str, dtype: torch.dtype) -> bool:
    try:
        loaded(name, device, dtype)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Outside the handler: the error keeps what was loaded of it alive.
    _return_memory()
    return False


def _return_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _too_large(name: str, device: str, dtype: torch.dtype) -> str:
    asked = str(dtype).removeprefix("torch.")
    halved = "set scoring.dtype (--dtype) to bfloat16, " if dtype == torch.float32 else ""
    columns = ", ".join((*SCORERS[name].columns, *SCORERS[name].prompt_columns))
    left_out = f"its metrics ({columns})" if columns else "the metrics that need it"
    return (
        f"scorer {name} alone, in {asked}, does not fit into the memory of "
        f"{memory_shown(device)}. End what else fills it, {halved}take a larger one, or leave "
        f"out {left_out}"
    )
