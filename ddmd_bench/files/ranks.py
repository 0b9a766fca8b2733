"""The processes of one command: which of them this is, and what they do together.

A launcher (torchrun, accelerate launch, srun) starts one for each GPU; each has a number, its rank.
Started without one there is a single rank, and nothing here communicates or costs anything.

ranks.join()
with ranks.together(): ...            # what one raises inside, all raise
mine = ranks.share(numbers)           # a stretch of them, none twice
for value in ranks.gathered(mine): ...  # every rank's, in order

Whatever is called here that communicates is called by all ranks, in the same order.
"""

from __future__ import annotations

import atexit
import copy
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.files.device import gpu_memory, is_out_of_memory
from ddmd_bench.files.launchers import as_torch_reads, launched_by
from ddmd_bench.files.stopping import Stopped

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Value = TypeVar("Value")
# While one works alone, evaluating or making a report, the others wait; one that has died is told
# by its closed connection, or by its launcher.
TIMEOUT = timedelta(days=7)
BUCKET_BYTES = 2**26  # of gradients that are summed at once: a copy of so much, not of all


class Parted(Stopped):
    """Another rank is gone: nothing can be done together any more."""


class _Here:
    number, num = 0, 1
    shared: Exception | None = None  # the last error that all ranks raised


def join() -> None:
    """Meet the other processes that a launcher started; alone there is nothing to do.

    Raises BenchError where two of them would share a GPU.
    """
    if launched_by(os.environ) is None or _Here.num > 1:
        return
    as_torch_reads()
    import torch
    from accelerate import PartialState

    cuda = torch.cuda.is_available()
    # On a GPU what is told goes over the CPU, so that telling waits for no kernel.
    kinds = {"backend": "cpu:gloo,cuda:nccl"} if cuda else {"cpu": True}
    with _met():
        state = PartialState(timeout=TIMEOUT, **cast(Any, kinds))
    _Here.number, _Here.num = state.process_index, state.num_processes
    atexit.register(part)
    gpu = str(torch.cuda.get_device_properties(state.device).uuid) if cuda else None
    require_own_gpus(gathered((socket.gethostname(), gpu)))


def require_own_gpus(places: Sequence[tuple[str, str | None]]) -> None:
    """Raise BenchError where two ranks have one GPU; places: each one's host, and GPU if any."""
    for rank, place in enumerate(places):
        other = places.index(place)
        if place[1] is not None and other < rank:
            own = sum(gpu is not None for host, gpu in {*places} if host == place[0])
            _Here.shared = BenchError(
                f"ranks {other} and {rank} on {place[0]} have the same GPU. Of those that its "
                f"processes may use there are {own}: start as many processes as GPUs"
            )
            raise _Here.shared


def part() -> None:
    """Leave the others, where this process had joined any."""
    if _Here.num > 1:
        from accelerate import PartialState

        with suppress(RuntimeError):
            PartialState().destroy_process_group()
        PartialState._reset_state()
        _Here.number, _Here.num = 0, 1


def number() -> int:
    """Which rank this is, from 0."""
    return _Here.number


def num() -> int:
    """How many there are, 1 without a launcher."""
    return _Here.num


class Group(NamedTuple):
    """All of them."""

    num: int = 1
    per_machine: int = 1  # where each machine has as many, else all
    gpu_memory: int | None = None  # bytes of the smallest of their GPUs, None on a CPU


def group() -> Group:
    """What the ranks are together; all of them call it."""
    found = gathered((socket.gethostname(), gpu_memory()))
    hosts = [host for host, _ in found]
    counts = {hosts.count(host) for host in hosts}
    memory = [size for _, size in found if size is not None]
    per_machine = counts.pop() if len(counts) == 1 else num()
    return Group(num(), per_machine, min(memory, default=None))


def is_first() -> bool:
    """Whether this is the rank that writes, evaluates and speaks."""
    return _Here.number == 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's stretch of the items: in order of the ranks they make up all."""
    first, end = (len(items) * k // _Here.num for k in (_Here.number, _Here.number + 1))
    return items[first:end]


def dealt(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's items, dealt one by one."""
    return items[_Here.number :: _Here.num]


def gathered(value: Value) -> list[Value]:
    """Every rank's value, in their order.

    Raises BenchError where another has met an error instead: it has come to the end of `together`,
    or of the task.
    """
    return [sent.value for sent in _heard(_Sent(value))]


def _heard(own: _Sent) -> list[_Sent]:
    """What every rank sent, of ranks that are all at the same place."""
    values = _exchanged(own)
    for rank, sent in enumerate(values):
        if sent.at_end:
            raise BenchError(f"rank {rank} has left this task: {sent.value}")
        if sent.raised is not None and not own.together:
            _Here.shared = sent.raised
            raise sent.raised
    return values


def at_end(value: Value) -> list[Value]:
    """Every rank's value once all have come to the end of a task, each in its own way."""
    while True:
        values = _exchanged(_Sent(value, at_end=True))
        if all(sent.at_end for sent in values):
            return [sent.value for sent in values]


class _Sent(NamedTuple):
    value: Any
    at_end: bool = False
    together: bool = False  # at the end of a `together`
    raised: Exception | None = None  # inside it


def _exchanged(sent: _Sent) -> list[_Sent]:
    if _Here.num == 1:
        return [sent]
    import torch.distributed as dist

    values: list[Any] = [None] * _Here.num
    with _met():
        dist.all_gather_object(values, sent)
    return values


def told(value: Value) -> Value:
    """The first rank's value; what the others pass does not matter."""
    return cast("Value", gathered(value if is_first() else None)[0])


def by_first(work: Callable[[], Value]) -> Value:
    """What the first rank's work gives, or the error it raises; the others wait for it."""
    given: Value | None = None
    with together():
        if is_first():
            given = work()
    return cast("Value", told(given))


def anyone(value: bool) -> bool:
    """Whether it holds on any rank."""
    return any(gathered(value))


@contextmanager
def together() -> Iterator[None]:
    """What one rank raises inside, all raise at its end: none goes on to wait for another."""
    if _Here.num == 1:
        yield
        return
    raised: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the others wait
        raised = error
    if raised is not None and raised is _Here.shared:
        raise raised  # which all have heard of inside
    met = _heard(_Sent(_this_rank(), together=True, raised=_portable(raised)))
    errors = [sent.raised for sent in met if sent.raised is not None]
    if errors:
        first, rank = next((s.raised, s.value) for s in met if s.raised is not None)
        if raised is not None and len({said_by(error) for error in errors}) == 1:
            first = raised  # the same on all that have one
        elif type(first) is BenchError:
            first = BenchError(f"{rank}: {first}")
        _Here.shared = first
        raise first


def said_by_first(error: Exception) -> bool:
    """Whether the first rank raises this error too, and this is another one."""
    return error is _Here.shared and not is_first()


def require_equal(what: str, value: object) -> None:
    """Raise BenchError on all ranks if one of them has another value than the first."""
    values = gathered((value, socket.gethostname()))
    for rank, (other, host) in enumerate(values):
        if other != values[0][0]:
            _Here.shared = BenchError(
                f"the processes differ in {what}: rank {rank} on {host} has {_short(other)}, rank "
                f"0 on {values[0][1]} has {_short(values[0][0])}. Start all of them with the same "
                "suite, options, packages and files"
            )
            raise _Here.shared


@contextmanager
def in_step() -> Iterator[None]:
    """Inside the ranks pass through networks together: what one raises alone ends all.

    The others wait in the middle of a pass, and would not hear of it. Raises Parted.
    """
    try:
        yield
    except Exception as error:
        if error is _Here.shared:
            raise
        atexit.unregister(part)  # which would wait for the others
        told = f"{_this_rank()} ended in the middle of a pass, and the others with it"
        raise Parted(f"{told}: {said_by(error)}") from error


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over the ranks, the same bits on each of them."""
    if _Here.num == 1:
        return
    import torch

    # What is kept in parts was summed in the backward pass.
    trained = [p for p in parameters if p.requires_grad and type(p.data) is torch.Tensor]
    # A parameter that no sample of this rank reached still takes part in the sum.
    here = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
    with _met():
        torch.distributed.all_reduce(here, torch.distributed.ReduceOp.MAX)
        reached = [p for p, anywhere in zip(trained, here.tolist(), strict=True) if anywhere]
        for parameter in reached:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([cast("torch.Tensor", p.grad) for p in reached]):
            _sum(bucket)


def _sum(tensors: Sequence[torch.Tensor]) -> None:
    import torch

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    sums = flat.split([tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, sums, strict=True):
        tensor.copy_(total.view_as(tensor))


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The tensors in turn, as many at once as fit into a bucket; one dtype and device in each."""
    bucket, size = list[Any](), 0
    for tensor in tensors:
        alike = not bucket or (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or size + tensor.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def _portable(error: Exception | None) -> Exception | None:
    """An error as another process can raise it."""
    try:
        copy.copy(error)  # made anew of what it says of itself, as by whoever unpickles it
        pickle.dumps(error)
    except Exception:  # noqa: BLE001 - a library's error may refuse in any way
        assert error is not None
        return BenchError(said_by(error))
    return error


def _this_rank() -> str:
    return f"rank {os.environ.get('RANK', _Here.number)} on {socket.gethostname()}"


@contextmanager
def _met() -> Iterator[None]:
    """A collective call that fails tells of a process that is no longer there."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        atexit.unregister(part)  # which would wait for the one that is gone
        raise Parted(
            f"{_this_rank()} lost another process of this command, which ended or cannot be "
            f"reached ({said_by(error)})"
        ) from error


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
