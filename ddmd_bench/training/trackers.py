"""Trackers (TensorBoard, W&B) through Accelerate, where a suite asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[Mapping[str, float], int], None]  # values, iteration


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, project: str, run: str, settings: Mapping[str, Any]
) -> Iterator[Log]:
    """A function that logs a row of diagnostics to each named tracker, or to nobody.

    What a tracker writes to disk goes into the folder: TensorBoard's into `folder / project`.
    """
    if not names:
        yield lambda values, iteration: None
        return
    import torch
    from accelerate import Accelerator

    cpu = not torch.cuda.is_available()
    accelerator = Accelerator(cpu=cpu, log_with=list(names), project_dir=folder)
    # Trackers take scalars and text.
    config = {k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()}
    folder.mkdir(parents=True, exist_ok=True)
    of_wandb = {"name": run, "dir": str(folder)}
    accelerator.init_trackers(project, config=config, init_kwargs={"wandb": of_wandb})

    def log(values: Mapping[str, float], iteration: int) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        accelerator.log(finite, step=iteration)

    try:
        yield log
    finally:
        # Not `end_training`, which ends the group of processes too: other trainings follow.
        for tracker in accelerator.trackers:
            tracker.finish()
