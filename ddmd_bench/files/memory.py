"""As many items at once as memory holds: where it runs out, half as many, each item still once.

at_once = AtOnce(8, "images")
for images, drawn in at_once.batches(images, draw): ...
"""

from __future__ import annotations

import ctypes
import gc
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ddmd_bench.errors import BenchError
from ddmd_bench.files.device import is_out_of_memory

Item = TypeVar("Item")
Made = TypeVar("Made")
# glibc's names and numbers (malloc.h); the threshold is the largest that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, MAPPED_BYTES = 2**28, 2**25


class FewerAtOnce(UserWarning):
    """Memory ran out, and work goes on with fewer items at once."""


@dataclass
class AtOnce:
    """How many items are worked on at once; where memory ran out, fewer from then on."""

    size: int
    what: str  # items, as the warning calls them

    def batches(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Made]
    ) -> Iterator[tuple[Sequence[Item], Made]]:
        """Each batch and what `work` made of it, in order: no item twice, none left out.

        Where memory runs out with one item, the error is raised; any other error always is.
        """
        first = 0
        while first < len(items):
            batch = items[first : first + self.size]
            made = _unless_out_of_memory(partial(work, batch), alone=len(batch) == 1)
            if made is None:
                self._halve(len(batch))
                continue
            first += len(batch)
            yield batch, made[0]

    def of_all(
        self,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], Made],
        start: Callable[[], None],
    ) -> list[Made]:
        """What `work` made of each batch, where the batches add to one result that `start` clears.

        Where memory runs out in any of them, all begin anew: nothing is added twice.
        """

        def of_each() -> list[Made]:
            size = self.size
            return [work(items[k : k + size]) for k in range(0, len(items), size)]

        while True:
            start()
            tried = min(self.size, len(items))
            made = _unless_out_of_memory(of_each, alone=tried == 1)
            if made is not None:
                return made[0]
            self._halve(tried)

    def _halve(self, tried: int) -> None:
        return_memory()  # here the error is gone, which kept what filled it alive
        self.size = (tried + 1) // 2
        told = f"memory ran out with {tried} {self.what} at once; {self.size} at once from here on"
        warnings.warn(told, FewerAtOnce, stacklevel=3)


def _unless_out_of_memory(work: Callable[[], Made], *, alone: bool) -> tuple[Made] | None:
    try:
        return (work(),)
    except Exception as error:
        if alone or not is_out_of_memory(error):
            raise
        return None


@contextmanager
def refusing_out_of_memory(sentence: Callable[[], str]) -> Iterator[None]:
    """Say what to do where memory runs out inside; no smaller batch is tried for that error."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise BenchError(sentence()) from None


def return_memory() -> None:
    """What nothing holds any more back to the device, cycles too."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def keep_freed_memory() -> None:
    """Let the next layer have what the one before it freed, where malloc is glibc's.

    Left alone malloc maps the tensors of each layer anew and hands them back after it; the kernel
    then clears every page again. Up to `KEPT_BYTES` that nothing holds stay with the process.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
