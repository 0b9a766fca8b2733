"""Order and skipping: every unfinished task of a plan, students side by side in worker processes.

On a CPU each worker runs on one thread: small networks gain little from more, students run side by
side instead, and results do not depend on the number of cores.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing.connection import wait as wait_for
from queue import Empty
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import NO_SEED, Task


class Event(NamedTuple):
    """A task has done so many of its units (iterations, images)."""

    task: str
    done: int
    total: int


OnEvent = Callable[[Event], None]

StudentSeed = tuple[str, int]  # student and seed: what fails or goes on as one
SHARED: StudentSeed = ("", NO_SEED)
# Stages whose tasks follow each other for a student and seed, in rounds: scoring waits for the
# reference, everything for the prompts' embeddings.
ROUNDS: tuple[tuple[str, ...], ...] = (
    ("doctor", "encode"),
    ("reference",),
    ("train", "generate"),
    ("score",),
)


def default_workers() -> int:
    """One on a GPU, else one for each core this process may use."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


ALL_STAGES = tuple(stage for round_ in ROUNDS for stage in round_)


class Outcome(NamedTuple):
    """Tasks finished now, and what went wrong with others."""

    num_done: int
    problems: list[str]


def run_tasks(plan: Plan, stages: Iterable[str], on_event: OnEvent, workers: int = 0) -> Outcome:
    """Finish the tasks of the stages. A student that fails with one seed stops nothing else."""
    rounds = _rounds(plan, set(stages))
    if not rounds:
        return Outcome(0, [])
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    problems: list[str] = []
    failed: set[StudentSeed] = set()
    count = 0
    pool = ProcessPoolExecutor(
        workers or default_workers(), context, initializer=_start_worker, initargs=(queue,)
    )
    try:
        for chains in rounds:
            if SHARED in failed:  # what every student waits for
                break
            going = [chain for chain in chains if _student_seed(chain) not in failed]
            futures = {pool.submit(_work, plan, chain): chain for chain in going}
            _follow(futures, queue, on_event)
            for future, chain in futures.items():
                if found := _problem(future, chain):
                    problems.append(found)
                    failed.add(_student_seed(chain))
            count += sum(task.complete() for chain in going for task in chain)
    except BaseException:
        # Also for Ctrl-C: a worker would otherwise finish its task, minutes later.
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return Outcome(count, problems)


def _student_seed(chain: list[Task]) -> StudentSeed:
    return chain[0].student, chain[0].seed


def _rounds(plan: Plan, stages: set[str]) -> list[list[list[Task]]]:
    """Chains of unfinished tasks, those of one round independent of each other."""
    rounds = [found for r in ROUNDS if (found := _chains(plan, stages & set(r), r))]
    return _merge_independent(rounds)


def _chains(plan: Plan, stages: set[str], order: Sequence[str]) -> list[list[Task]]:
    """Unfinished tasks by student and seed, each chain in order, the costly students first."""
    chains: dict[StudentSeed, list[Task]] = {}
    for stage in order:
        for task in plan.of_stage(stage) if stage in stages else []:
            if not task.complete():
                chains.setdefault((task.student, task.seed), []).append(task)
    # Longest first keeps the cores busy to the end.
    return sorted(chains.values(), key=lambda chain: (-len(chain), str(chain[0])))


def _merge_independent(rounds: list[list[list[Task]]]) -> list[list[list[Task]]]:
    """The reference needs no student: it runs beside training."""
    stages = [{task.stage for chain in chains for task in chain} for chains in rounds]
    for k, here in enumerate(stages[:-1]):
        if here == {"reference"} and "score" not in stages[k + 1]:
            return [*rounds[:k], rounds[k + 1] + rounds[k], *rounds[k + 2 :]]
    return rounds


def _follow(futures: dict[Future[None], list[Task]], queue: Any, on_event: OnEvent) -> None:
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.2)
        while True:
            try:
                on_event(queue.get_nowait())
            except Empty:
                break


def _problem(future: Future[None], chain: list[Task]) -> str | None:
    names = ", ".join(map(str, chain))
    error = future.exception()
    if isinstance(error, BenchError):
        return str(error)
    if isinstance(error, BrokenProcessPool):
        hint = "Run again: what is complete is kept. Fewer --workers need less memory"
        return f"{names}: a worker process died, probably for want of memory. {hint}"
    if error is not None:
        raise error
    return None


_queue: Any = None


def _start_worker(queue: Any) -> None:
    """Set up a worker: one thread on a CPU, and an end when the parent ends, however it ends."""
    global _queue
    _queue = queue
    # A run has progress of its own to show; transformers asks the Hub's client.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the workers
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(plan: Plan, chain: list[Task]) -> None:
    for task in chain:
        # A stage is the function of its own name in the module of its own name.
        stage = getattr(import_module(f"ddmd_bench.stages.{task.stage}"), task.stage)

        def progress(done: int, total: int, name: str = str(task)) -> None:
            _queue.put(Event(name, done, total))

        stage(plan, task, progress)
