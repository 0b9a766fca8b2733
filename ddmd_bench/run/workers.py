"""Processes that do tasks, each on its GPU and its share of the cores.

On a CPU they are forked from one server that has loaded the libraries once, with no thread of its
own, which takes a fraction of what loading them takes. Beside a GPU each starts afresh: CUDA does
not survive a fork, and a library may touch it while it loads (bitsandbytes does). A process does
one task, or several of a stage that keeps its networks. Its end is its outcome: whatever happens to
it concerns no other. What it prints is kept while it lives, for the last lines of one that dies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError, files_told, said_by
from ddmd_bench.files import stopping
from ddmd_bench.files.device import visible_gpus
from ddmd_bench.files.memory import FewerAtOnce, return_memory
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.quiet import keep_quiet
from ddmd_bench.files.threads import limit_threads, num_cores, threads_of_children
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.superseded import remember_asked
from ddmd_bench.planning.task import Task, TaskName
from ddmd_bench.run.last_words import Written, write_to

# Nearly all that workers load, whatever the suite; what a library costs is loading it at all.
PRELOADED = (
    "ddmd_bench.files.quiet",
    "ddmd_bench.stages.generate",
    "ddmd_bench.stages.score",
    "ddmd_bench.stages.train",
    "diffusers.models.unets.unet_2d_condition",
)
PROGRESS_EVERY_S = 0.1
# What a user can set for a stage whose process the system ended, as it does on a CPU.
LESS_MEMORY = {
    "train": ["a smaller train.batch_size"],
    "generate": ["a smaller model.images_at_once"],
}
# The only networks that serve another student are those that judge.
KEEPING = ("score",)
TRACEBACK = "traceback.txt"  # in a task's folder: where an error came from that nobody foresaw


class Slot(NamedTuple):
    """The place of one worker."""

    threads: int
    gpu: str | None  # as CUDA_VISIBLE_DEVICES names it


def slots(num: int = 0) -> list[Slot]:
    """So many places, or one for each GPU, else for each core.

    On a CPU each has one thread: small networks gain little from more, students run side by side
    instead, and results do not depend on the number of cores.
    """
    gpus, cores = visible_gpus(), num_cores()
    if not gpus:
        return [Slot(1, None)] * (num or cores)
    num = num or len(gpus)
    return [Slot(max(1, cores // num), gpus[k % len(gpus)]) for k in range(num)]


class Progress(NamedTuple):
    """Units of a task that are done."""

    done: int
    total: int


class Said(NamedTuple):
    """Something that a task does otherwise than it was asked to, in words."""

    text: str


class Ended(NamedTuple):
    """A task has ended, well where there is no problem."""

    problem: str | None
    traceback: str = ""  # the file that says where an error came from, if one does

    def __str__(self) -> str:
        return self.problem or "done"


Message = Progress | Said | Ended


class Worker:
    """One place, and the process in it."""

    def __init__(self, plan: Plan, slot: Slot) -> None:
        self.plan, self.slot = plan, slot
        self.task: Task | None = None
        self.stage: str | None = None  # what the process has done before
        self._process: Any = None
        self._connection: Connection | None = None
        self._written: Any = None  # what the process writes

    def begin(self, task: Task) -> None:
        """Do a task, in the process that is there if its stage keeps networks for it."""
        process = self._process
        kept = self.stage == task.stage and self.stage in KEEPING
        if process is not None and not (kept and process.is_alive()):
            self.end()
        if self._process is None:
            self._start()
        self.task, self.stage = task, task.stage
        assert self._connection is not None
        self._written.begin()
        with suppress(OSError):  # it has died just now, which `messages` will find
            self._connection.send(task.name)

    def _start(self) -> None:
        context = _context(self.slot)
        self._connection, theirs = context.Pipe()
        self._written = Written()
        arguments = self.plan, self.slot, dict(os.environ), self._written.name, theirs
        # Not daemonic: a stage may start processes of its own.
        self._process = context.Process(target=_serve, args=arguments)
        with threads_of_children(self.slot.threads):  # while its libraries load
            self._process.start()
        theirs.close()

    def waitable(self) -> list[Any]:
        """What becomes ready when the worker has something to say."""
        return [] if self.task is None else [self._connection, self._process.sentinel]

    def messages(self) -> Iterator[Message]:
        """What it has said since; its own end among it."""
        assert self._connection is not None
        try:
            while self.task is not None and self._connection.poll():
                message = self._connection.recv()
                if isinstance(message, Ended):
                    self.task = None
                yield message
        except (EOFError, OSError):
            yield self._dead()
            return
        if self.task is not None and not self._process.is_alive():
            yield self._dead()

    def _dead(self) -> Ended:
        self._process.join()
        problem = f"its process {_end(self._process.exitcode)}. Run again: what is complete is kept"
        if self._process.exitcode == -signal.SIGKILL:
            less = ["fewer --workers", *LESS_MEMORY.get(self.stage or "", ())]
            problem += f", and {' or '.join(less)} take less memory"
        if lines := self._written.last_lines():
            problem += f". The last that it wrote: {' | '.join(lines)}"
        self._written.close()
        self.task = self._process = None
        return Ended(problem)

    def stop(self) -> None:
        """Ask the process to stop what it is doing."""
        if self._process is not None and self.task is not None:
            self._process.terminate()

    def end(self) -> None:
        """Let the process go."""
        if self._process is None:
            return
        assert self._connection is not None
        self._connection.close()
        self._process.join()
        self._written.close()
        self.task = self.stage = self._process = None


def _end(code: int | None) -> str:
    """How a process ended, in words."""
    if code == stopping.EXIT_CODE:
        code = -signal.SIGTERM
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        return "was ended by SIGKILL, probably for want of memory"
    names = {one.value: one.name for one in signal.Signals}  # not those of real time
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def wait_for(workers: Sequence[Worker], seconds: float) -> None:
    """Until one of them has something to say."""
    wait([one for worker in workers for one in worker.waitable()], seconds)


def _context(slot: Slot) -> Any:
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    if slot.gpu is not None or not forks:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


def _serve(
    plan: Plan, slot: Slot, environment: dict[str, str], output: str, connection: Connection
) -> None:
    """A worker's life: tasks by their names, until nobody asks any more."""
    write_to(output)
    _set_up(slot, environment)
    try:
        while True:
            name: TaskName = connection.recv()
            tell = partial(_tell, connection)
            tell(done(plan.tasks[name], plan, tell))
    except EOFError:
        return
    except stopping.Stopped:
        raise SystemExit(stopping.EXIT_CODE) from None


def _tell(connection: Connection, message: Message) -> None:
    """Where nobody listens any more, what is under way still ends as it should."""
    with suppress(OSError):
        connection.send(message)


def done(task: Task, plan: Plan, tell: Callable[[Message], None], *, leads: bool = True) -> Ended:
    """Do a task in this process; what went wrong, in words, whatever was thrown and by whom.

    leads: whether no other process leads, of those that do it together.
    """
    said = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done >= total or now - said >= PROGRESS_EVERY_S:
            said = now
            tell(Progress(done, total))

    try:
        # A stage is the function of its own name in the module of its own name.
        stage = getattr(import_module(f"ddmd_bench.stages.{task.stage}"), task.stage)
        with files_told(), numerics(), _fewer_told(tell):
            if leads:
                remember_asked(task)  # first: nothing can fail once the task is done
            stage(plan, task, progress)
        return Ended(None)
    except BenchError as error:
        ended = Ended(said_by(error))
    except stopping.Stopped:
        raise
    # Not Exception alone: a library may exit, and one in Rust panics with a BaseException.
    except BaseException as error:  # noqa: BLE001 - one student's failure is no other's
        ended = Ended(said_by(error), _kept_traceback(task))
    # Here the error is gone, whose frames hold the student's networks: the next has their room.
    return_memory()
    return ended


@contextmanager
def _fewer_told(tell: Callable[[Message], None]) -> Iterator[None]:
    """Where memory ran out and work goes on with less at once, the run says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", FewerAtOnce)
        otherwise = warnings.showwarning

        def show(message: Any, category: Any, *where: Any, **options: Any) -> None:
            if issubclass(category, FewerAtOnce):
                tell(Said(str(message)))
            else:
                otherwise(message, category, *where, **options)

        warnings.showwarning = show
        yield


def _kept_traceback(task: Task) -> str:
    """The file in the task's folder with the traceback of the error that is being handled."""
    file = task.folder / TRACEBACK
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(traceback.format_exc(), "utf-8", "backslashreplace")
    except OSError:  # the disk may be what failed
        return ""
    return str(file)


def _set_up(slot: Slot, environment: dict[str, str]) -> None:
    """One GPU, so many threads, and an end when the parent ends, however it ends."""
    # The server has the environment of its own start.
    os.environ.clear()
    os.environ |= environment
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    keep_quiet()
    stopping.obey()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the workers
    limit_threads(slot.threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
