"""A training under way: what its folder keeps, how it resumes, and where it is evaluated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from ddmd_bench.errors import BenchError
from ddmd_bench.files.arrays import write_parquet
from ddmd_bench.files.memory import return_memory
from ddmd_bench.files.provenance import peak_memory_gib, provenance
from ddmd_bench.files.records import FAILED, mark_done, write_json
from ddmd_bench.students.networks import load_student
from ddmd_bench.students.seeded import WEIGHTS
from ddmd_bench.training.evaluation import Evaluator, best_row, evaluations_table, history_rows
from ddmd_bench.training.update import NotFinite, Training

CHECKPOINT, BEST = "checkpoint.pt", "best.safetensors"


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
        path = self.folder / CHECKPOINT
        if path.is_file():
            saved = torch.load(path, weights_only=True, map_location=self.training.device)
            self.training.load_state(saved["state"])
            self.rows, self.history = saved["rows"], saved["history"]
            self.saved_at = len(self.rows)

    def save(self) -> None:
        """Write a checkpoint, whole, of weights that are all finite."""
        with self._recorded(len(self.rows)):
            self.training.require_finite_weights()
        path = self.folder / CHECKPOINT
        temporary = path.with_suffix(".tmp")
        value = {"state": self.training.state(), "rows": self.rows, "history": self.history}
        torch.save(value, temporary)
        temporary.replace(path)
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
        write_json(self.folder / FAILED, {**facts, "term": error.term})
        return BenchError(
            f"training stopped {reason}. Last finite checkpoint: {last}. "
            "Lower train.learning_rate or train.guidance_scale, or set train.max_grad_norm"
        )

    def evaluate(self) -> dict[str, float]:
        """Evaluate where the suite asks for it now, and keep the best weights so far."""
        iteration = len(self.rows)
        if self.evaluator is None or iteration not in self.evaluator.settings.at:
            return {}
        training = self.training
        state = training.result().state()
        # Loaded as for its images: the one in training computes in another precision, unfused.
        values = self.evaluator(
            load_student(training.backend, training.settings, state, training.device)
        )
        return_memory()
        self.history += history_rows(iteration, values)
        best = self.best()
        if best is not None and best["iteration"] == iteration:
            save_weights(self.training, self.folder / BEST)
        return {f"evaluation/{name}": value.value for name, value in values.items()}

    def best(self) -> dict[str, Any] | None:
        """The evaluation whose weights were kept."""
        metric = self.evaluator.settings.keep_best if self.evaluator else None
        return best_row(self.history, metric) if metric is not None else None

    def finish(self) -> None:
        """Write weights, tables and the record of the cost; the checkpoint has served."""
        self.save()
        training, folder, settings = self.training, self.folder, self.training.settings
        save_weights(training, folder / WEIGHTS)
        frame = pd.DataFrame(self.rows).astype({"iteration": int})
        write_parquet(folder / "diagnostics.parquet", frame)
        if self.history:
            write_parquet(folder / "evaluations.parquet", evaluations_table(self.history))
        cost = training.cost()
        record = {
            "key": self.key,
            "num_iterations": len(self.rows),
            "samples": len(self.rows) * settings.batch_size * settings.gradient_accumulation,
            "forwards": cost["forward"],
            "backwards": cost["backward"],
            "seconds": float(frame["seconds"].sum()),
            "peak_memory_gib": peak_memory_gib(),
            "best": self.best(),
            "provenance": provenance(settings.precision),
        }
        mark_done(folder, record)
        (folder / CHECKPOINT).unlink(missing_ok=True)


def save_weights(training: Training, path: Path) -> None:
    """The student's weights in safetensors, written whole."""
    state = {k: v.contiguous().cpu() for k, v in training.result().state().items()}
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    temporary.replace(path)
