"""A training under way: what its folder keeps, how it resumes, and where it is evaluated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ddmd_bench.errors import BenchError, Unreadable, said_by
from ddmd_bench.files import ranks
from ddmd_bench.files.provenance import peak_memory_gib, provenance
from ddmd_bench.files.records import FAILED, mark_done, remove_cut, write_json, write_whole
from ddmd_bench.files.saving import save_checkpoint, save_tensors
from ddmd_bench.files.tables import write_parquet
from ddmd_bench.files.tensors import read_torch
from ddmd_bench.students.networks import load_student
from ddmd_bench.students.seeded import BEST, WEIGHTS
from ddmd_bench.students.sharding import is_part
from ddmd_bench.training.evaluation import (
    Evaluator,
    best_row,
    evaluations_table,
    history_rows,
    leave_room,
)
from ddmd_bench.training.finite import NotFinite, require_finite_weights
from ddmd_bench.training.update import Training

CHECKPOINT = "checkpoint.pt"
REMEDY = "Put a whole one of this training in its place, or delete it to begin anew"
DIAGNOSTICS, EVALUATIONS = "diagnostics.parquet", "evaluations.parquet"
PICTURES = "pictures"  # ITERATION.webp of each evaluation
# What a state raises that was made by something else. No RuntimeError: a GPU's own
# failure is one, for which nobody should delete anything.
UNFIT = (KeyError, TypeError, ValueError, AttributeError, BenchError)


@dataclass
class Course:
    """A training under way: what its folder will tell, and what a checkpoint holds."""

    folder: Path
    key: str
    training: Training
    evaluator: Evaluator | None  # of students evaluated on the way
    rows: list[dict[str, float]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    saved_at: int = 0

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one."""
        if ranks.is_first():
            remove_cut(self.folder)
        path = self.folder / CHECKPOINT
        if path.is_file():
            with _told_if_unfit(path):
                saved = read_torch(path, mapped=True, whole=True, remedy=REMEDY)
                if (key := saved.get("key", self.key)) != self.key:
                    raise BenchError(f"it is of a training with key {key}, this one has {self.key}")
                self.training.load_state(saved["state"])
                self.rows, self.history = saved["rows"], saved["history"]
            self.saved_at = len(self.rows)

    def require_one_state(self) -> None:
        """Raise BenchError if a rank has gone on from another checkpoint, or with other weights."""
        if ranks.num() > 1:
            ranks.require_equal("the iteration of their checkpoint", len(self.rows))
            kept_whole = {
                role: [value for value in network.state().values() if not is_part(value)]
                for role, network in self.training.networks.items()
            }
            sums = {
                role: repr(float(sum(value.double().sum() for value in values)))
                for role, values in kept_whole.items()
            }
            ranks.require_equal(f"their weights after iteration {len(self.rows)}", sums)

    def save(self) -> None:
        """Write a checkpoint, whole, of weights that are all finite.

        All ranks call it and the first writes, from the live tensors, one of them on the CPU at a
        time; where ranks keep parts, all that it writes is on its CPU first.
        """
        with self._recorded(len(self.rows)), ranks.together():
            require_finite_weights(self.training.networks)
        held = {"state": self.training.state(), "rows": self.rows, "history": self.history}
        with ranks.together():
            if ranks.is_first():
                save_checkpoint(self.folder / CHECKPOINT, {"key": self.key, **held})
        self.saved_at = len(self.rows)

    def advance(self) -> dict[str, float]:
        """One update."""
        iteration, start = len(self.rows) + 1, time.perf_counter()
        with self._recorded(iteration):
            row = self.training.update(iteration)
        self.rows.append({**row, "seconds": time.perf_counter() - start})
        return self.rows[-1]

    @contextmanager
    def _recorded(self, iteration: int) -> Iterator[None]:
        """What is not finite ends the training with a record of where and why."""
        try:
            yield
        except NotFinite as error:
            raise self._failed(iteration, error) from error

    def _failed(self, iteration: int, error: NotFinite) -> BenchError:
        checkpoint = self.folder / CHECKPOINT
        last = f"of iteration {self.saved_at} in {checkpoint}" if self.saved_at else "none yet"
        total = self.training.settings.num_iterations
        reason = f"at iteration {iteration} of {total}: {error}"
        facts = {"key": self.key, "message": reason, "iteration": iteration}
        if ranks.is_first():
            write_json(self.folder / FAILED, {**facts, "term": error.term})
        return BenchError(
            f"training stopped {reason}. Last finite checkpoint: {last}. "
            "Lower train.learning_rate or train.guidance_scale, or set train.max_grad_norm"
        )

    def evaluate(self) -> dict[str, float]:
        """Evaluate where the suite asks for it now, and keep the best weights so far.

        All ranks call it; the first one evaluates and has the values.
        """
        if self.evaluator is None or len(self.rows) not in self.evaluator.settings.at:
            return {}
        state = self.training.result_state()
        with ranks.together():
            return self._evaluated(self.evaluator, state) if ranks.is_first() else {}

    def _evaluated(self, evaluator: Evaluator, state: dict[str, Tensor]) -> dict[str, float]:
        iteration, training = len(self.rows), self.training
        try:
            # Loaded as for its images: the one in training computes in another precision, unfused.
            images = evaluator.drawn(
                load_student(training.backend, training.settings, state, training.device)
            )
            values = evaluator.values_of(images)
        finally:
            leave_room(training.device)
        write_whole(self.folder / PICTURES / f"{iteration:07}.webp", evaluator.pictures_of(images))
        self.history += history_rows(iteration, values)
        best = self.best()
        if best is not None and best["iteration"] == iteration:
            save_weights(state, self.folder / BEST)
        return {f"evaluation/{name}": value.value for name, value in values.items()}

    def best(self) -> dict[str, Any] | None:
        """The evaluation whose weights were kept."""
        metric = self.evaluator.settings.keep_best if self.evaluator else None
        return best_row(self.history, metric) if metric is not None else None

    def finish(self) -> None:
        """Write weights, tables and the record of the cost; the checkpoint has served.

        The first rank does, when all have come to the end with the same weights.
        """
        self.require_one_state()
        peaks = ranks.gathered(peak_memory_gib())
        self.save()
        state = self.training.result_state()
        with ranks.together():
            if ranks.is_first():
                self._write(state, max(peaks))

    def _write(self, state: dict[str, Tensor], peak_memory: float) -> None:
        training, folder, settings = self.training, self.folder, self.training.settings
        save_weights(state, folder / WEIGHTS)
        frame = pd.DataFrame(self.rows).astype({"iteration": int})
        write_parquet(folder / DIAGNOSTICS, frame)
        if self.history:
            write_parquet(folder / EVALUATIONS, evaluations_table(self.history))
        cost = training.cost()
        record = {
            "key": self.key,
            "num_iterations": len(self.rows),
            "samples": len(self.rows) * settings.batch_size,
            "samples_at_once": training.at_once.size,  # fewer than asked for where memory ran out
            "forwards": cost["forward"],
            "backwards": cost["backward"],
            "seconds": float(frame["seconds"].sum()),
            "peak_memory_gib": peak_memory,  # of the rank that took most
            "ranks": ranks.num(),
            "sharding": settings.sharding,
            "best": self.best(),
            "provenance": provenance(settings.precision),
        }
        names = [n for n in (WEIGHTS, BEST, DIAGNOSTICS, EVALUATIONS) if (folder / n).is_file()]
        pictures = sorted(f"{PICTURES}/{path.name}" for path in folder.glob(f"{PICTURES}/*.webp"))
        mark_done(folder, record, [*names, *pictures])
        with suppress(OSError):  # it costs room, nothing else
            (folder / CHECKPOINT).unlink()


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """A student's weights in safetensors, written whole."""
    save_tensors(path, {k: v.contiguous().cpu() for k, v in state.items()})


@contextmanager
def _told_if_unfit(checkpoint: Path) -> Iterator[None]:
    """Say what to do with a checkpoint that cannot be read, or fits no such training."""
    try:
        yield
    except Unreadable:
        raise
    except UNFIT as error:
        told = f"{checkpoint}: no training can go on from it: {said_by(error)}. {REMEDY}"
        raise BenchError(told) from error
