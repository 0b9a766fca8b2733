"""Train one student of a plan; an interrupted training goes on from its last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddmd_bench.backends import BACKENDS
from ddmd_bench.errors import BenchError
from ddmd_bench.methods import METHODS
from ddmd_bench.provenance import peak_memory_gib, provenance
from ddmd_bench.records import mark_done
from ddmd_bench.training import Training

if TYPE_CHECKING:
    from ddmd_bench.plan import Plan, Task

CHECKPOINT = "checkpoint.pt"


def train(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Train a student into its folder: weights, a row of diagnostics per iteration, the cost."""
    suite, student = plan.suite, task.student
    settings = suite.train_settings(student)
    method = METHODS[suite.students[student].method or ""]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = Training(BACKENDS[suite.backend](), method, settings, task.seed, device)
    task.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = task.folder / CHECKPOINT
    rows: list[dict[str, float]] = []
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        training.load_state(saved["state"])
        rows = saved["rows"]

    for iteration in range(len(rows) + 1, settings.num_iterations + 1):
        start = time.perf_counter()
        row = training.update(iteration)
        bad = [name for name in ("loss_student", "x0_std") if not math.isfinite(row[name])]
        if bad:
            raise BenchError(
                f"{task.label}: {bad[0]} is not finite at iteration {iteration} of "
                f"{settings.num_iterations}. Lower train.learning_rate or train.guidance_scale"
            )
        rows.append({**row, "seconds": time.perf_counter() - start})
        progress(iteration, settings.num_iterations)
        if iteration % settings.checkpoint_every == 0 and iteration < settings.num_iterations:
            _save_checkpoint(checkpoint, {"state": training.state(), "rows": rows})
    _finish(task.folder, task.key, training, rows)


def _save_checkpoint(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    temporary.replace(path)


def _finish(folder: Path, key: str, training: Training, rows: list[dict[str, float]]) -> None:
    import pandas as pd
    from safetensors.torch import save_file

    state = {k: v.contiguous().cpu() for k, v in training.result().state_dict().items()}
    save_file(state, folder / "student.safetensors")
    frame = pd.DataFrame(rows).astype({"iteration": int})
    frame.to_parquet(folder / "diagnostics.parquet", index=False)
    record = {
        "key": key,
        "num_iterations": len(rows),
        "seconds": float(frame["seconds"].sum()),
        "forwards": training.num_samples(),
        "peak_memory_gib": peak_memory_gib(),
        "provenance": provenance(),
    }
    mark_done(folder, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)
