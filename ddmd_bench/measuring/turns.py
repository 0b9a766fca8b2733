"""Scorers that do not fit into memory side by side take turns, each over all the images.

for one_pass in turns(["hps_v21", "hps_v3"], "cuda"):
    for answers in one_pass.over(chunks): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ddmd_bench.errors import BenchError
from ddmd_bench.files.device import is_out_of_memory
from ddmd_bench.files.memory import return_memory
from ddmd_bench.measuring.one_pass import OnePass, too_large
from ddmd_bench.scorers import loaded


def turns(
    names: Sequence[str],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    encoded_prompts: Callable[[str], Path] | None = None,
) -> Iterator[OnePass]:
    """Passes that together have every scorer, in order: one where all fit into memory.

    A scorer that a pass had to set aside is alone in one of its own, after the others.
    """
    left, alone = tuple(names), list[str]()
    while left or alone:
        turn = _side_by_side(left or tuple(alone[:1]), device, dtype)
        one_pass = OnePass(turn, device, dtype, encoded_prompts)
        yield one_pass
        if left:
            left, alone = left[len(turn) :], alone + one_pass.set_aside
        else:
            del alone[0]
        if left or alone:
            one_pass.let_go()
            let_go()


def let_go() -> None:
    """Every scorer out of memory, but for those that someone still holds."""
    loaded.cache_clear()
    return_memory()


def _side_by_side(names: tuple[str, ...], device: str, dtype: torch.dtype) -> tuple[str, ...]:
    """The first scorers, as many as fit, loaded; one at least."""
    for number, name in enumerate(names):
        if _fits(name, device, dtype):
            continue
        if loaded.cache_info().currsize > number:  # others, of an earlier pass, are in the way
            let_go()
            return _side_by_side(names, device, dtype)
        if number == 0:
            raise BenchError(too_large(name, device, dtype))
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
    return_memory()
    return False
