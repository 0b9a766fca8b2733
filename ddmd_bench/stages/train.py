"""Train one student of a plan; an interrupted training goes on from its last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from ddmd_bench.backends import Backend
from ddmd_bench.errors import BenchError
from ddmd_bench.files.device import default_device
from ddmd_bench.files.provenance import peak_memory_gib, provenance, reset_peak_memory
from ddmd_bench.files.records import FAILED, mark_done, write_json
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.training.evaluation import (
    Evaluator,
    evaluations_table,
    history_rows,
    newest_is_best,
)
from ddmd_bench.training.trackers import tracked
from ddmd_bench.training.update import NotFinite, Training

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

CHECKPOINT, BEST = "checkpoint.pt", "best.safetensors"


class Course:
    """A training under way: what its folder will tell, and what a checkpoint holds."""

    def __init__(self, plan: Plan, task: Task, training: Training, backend: Backend) -> None:
        self.task, self.training = task, training
        self.settings, self.evaluation = training.settings, plan.suite.evaluation
        self.rows: list[dict[str, float]] = []
        self.history: list[dict[str, Any]] = []
        self.saved_at = 0
        if self.evaluation is not None:
            self.evaluator = Evaluator(
                student=task.label,
                backend=backend,
                settings=self.evaluation,
                prompts=plan.prompts,
                suite=plan.suite,
                seed=training.seed,
                t_list=self.settings.t_list,
                device=training.device,
            )

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one."""
        path = self.task.folder / CHECKPOINT
        if path.is_file():
            saved = torch.load(path, weights_only=True, map_location=self.training.device)
            self.training.load_state(saved["state"])
            self.rows, self.history = saved["rows"], saved["history"]
            self.saved_at = len(self.rows)

    def save(self) -> None:
        """Write a checkpoint, whole, of weights that are all finite."""
        with self._recorded(len(self.rows)):
            self.training.require_finite_weights()
        path = self.task.folder / CHECKPOINT
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
        checkpoint = self.task.folder / CHECKPOINT
        last = f"of iteration {self.saved_at} in {checkpoint}" if self.saved_at else "none yet"
        reason = f"at iteration {iteration} of {self.settings.num_iterations}: {error}"
        facts = {"key": self.task.key, "message": reason, "iteration": iteration}
        write_json(self.task.folder / FAILED, {**facts, "term": error.term})
        return BenchError(
            f"{self.task.label}: training stopped {reason}. Last finite checkpoint: {last}. "
            "Lower train.learning_rate or train.guidance_scale, or set train.max_grad_norm"
        )

    def evaluate(self) -> dict[str, float]:
        """Evaluate where the suite asks for it now, and keep the best weights so far."""
        iteration = len(self.rows)
        if self.evaluation is None or iteration not in self.evaluation.at:
            return {}
        network = self.training.result()
        network.select()
        values = self.evaluator(network.module)
        self.history += history_rows(iteration, values)
        best = self.evaluation.keep_best
        if best is not None and newest_is_best(self.history, best):
            save_weights(self.training, self.task.folder / BEST)
        return {f"evaluation/{name}": value.value for name, value in values.items()}

    def best(self) -> dict[str, Any] | None:
        """The evaluation whose weights were kept."""
        metric = self.evaluation.keep_best if self.evaluation else None
        of_metric = [row for row in self.history if row["metric"] == metric]
        kept = None
        for k, row in enumerate(of_metric):
            if newest_is_best(of_metric[: k + 1], row["metric"]):
                kept = row
        return kept


def train(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Train a student into its folder: weights, a row of diagnostics per iteration, the cost."""
    suite = plan.suite
    settings = suite.train_settings(task.student)
    method = METHODS[suite.students[task.student].method or ""]
    backend = plan.prepared().opened(task.student)
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / FAILED).unlink(missing_ok=True)
    reset_peak_memory()
    training = Training(backend, method, settings, task.seed, default_device())
    course = Course(plan, task, training, backend)
    course.resume()
    config = {"method": suite.students[task.student].method, **settings.model_dump()}
    folder = task.folder / "tracking"
    with tracked(suite.trackers, folder, suite.name, task.label, config) as log:
        if not course.rows and not course.history:
            log(course.evaluate(), 0)
        for iteration in range(len(course.rows) + 1, settings.num_iterations + 1):
            row = course.advance()
            log({**row, **course.evaluate()}, iteration)
            progress(iteration, settings.num_iterations)
            if iteration % settings.checkpoint_every == 0 and iteration < settings.num_iterations:
                course.save()
    _finish(course)


def save_weights(training: Training, path: Path) -> None:
    """The student's weights in safetensors, written whole."""
    state = {k: v.contiguous().cpu() for k, v in training.result().state().items()}
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    temporary.replace(path)


def _finish(course: Course) -> None:
    import pandas as pd

    course.save()
    training, folder, settings = course.training, course.task.folder, course.settings
    save_weights(training, folder / "student.safetensors")
    frame = pd.DataFrame(course.rows).astype({"iteration": int})
    frame.to_parquet(folder / "diagnostics.parquet", index=False)
    if course.history:
        evaluations_table(course.history).to_parquet(folder / "evaluations.parquet", index=False)
    cost = training.cost()
    record = {
        "key": course.task.key,
        "num_iterations": len(course.rows),
        "samples": len(course.rows) * settings.batch_size * settings.gradient_accumulation,
        "forwards": cost["forward"],
        "backwards": cost["backward"],
        "seconds": float(frame["seconds"].sum()),
        "peak_memory_gib": peak_memory_gib(),
        "best": course.best(),
        "provenance": provenance(),
    }
    mark_done(folder, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)
