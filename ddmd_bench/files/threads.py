"""How many threads a process computes with: all of its libraries, not torch alone.

numpy and scipy carry an OpenBLAS each, torch an OpenMP, tokenizers a pool of their own. Left alone
each takes as many threads as the machine has cores, which spin against those of other processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# What the libraries read when they load; a process hands it on to those that it starts.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(num: int) -> None:
    """Let every library of this process, and of those it starts, compute with so many threads."""
    import torch
    from threadpoolctl import threadpool_limits

    os.environ |= dict.fromkeys(VARIABLES, str(num))
    threadpool_limits(num)
    torch.set_num_threads(num)


@contextmanager
def threads_of_children(num: int) -> Iterator[None]:
    """Processes that start meanwhile load their libraries with so many threads."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ |= dict.fromkeys(VARIABLES, str(num))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def one_thread() -> Iterator[None]:
    """Small matrices gain nothing from more threads, and lose much beside other processes."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
