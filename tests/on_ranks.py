"""Processes that have met as a launcher's would, each of which calls a function of a test."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ddmd_bench.files import ranks
from ddmd_bench.files.threads import limit_threads
from ddmd_bench.run.workers import PRELOADED

Made = TypeVar("Made")
TIMEOUT_S = 300


class Ended(Exception):
    """How the processes ended, where one of them did not return."""

    def __init__(self, codes: list[int | None]) -> None:
        super().__init__(f"exit codes {codes}")
        self.codes = codes


def on_ranks(num: int, function: Callable[..., Made], *arguments: Any) -> list[Made]:
    """What the function returned on each rank, in their order; Ended where one did not."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    port, answers = _free_port(), context.SimpleQueue()
    processes: list[Any] = [
        context.Process(target=_call, args=(rank, num, port, answers, function, arguments))
        for rank in range(num)
    ]
    for process in processes:
        process.start()
    found: dict[int, Made] = {}
    while len(found) < num and (not answers.empty() or any(p.is_alive() for p in processes)):
        if answers.empty():
            time.sleep(0.02)
            continue
        rank, made = answers.get()
        found[rank] = pickle.loads(made)
    for process in processes:
        process.join(TIMEOUT_S)
        if process.is_alive():
            process.kill()
    if len(found) < num:
        raise Ended([process.exitcode for process in processes])
    return [found[rank] for rank in range(num)]


def environment(rank: int, num: int, port: int) -> dict[str, str]:
    """What torchrun sets for a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


def _call(rank: int, num: int, port: int, answers: Any, function: Any, arguments: Any) -> None:
    limit_threads(1)
    os.environ |= environment(rank, num, port)
    ranks.join()
    # Whole: a tensor would else be handed over in memory that ends with this process.
    answers.put((rank, pickle.dumps(function(*arguments))))
    ranks.part()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port
