"""Train one student of a plan; an interrupted training goes on from its last checkpoint.

All ranks update; the first alone evaluates, logs and writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.files import ranks
from ddmd_bench.files.device import default_device, memory_shown
from ddmd_bench.files.memory import refusing_out_of_memory
from ddmd_bench.files.provenance import reset_peak_memory
from ddmd_bench.files.records import FAILED
from ddmd_bench.files.stopping import Stopped, stops_when_it_may
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning.sharding import settings_on_ranks
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.course import CHECKPOINT, Course
from ddmd_bench.training.evaluation import Evaluator, leave_room
from ddmd_bench.training.trackers import tracked
from ddmd_bench.training.update import Training

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

Progress = Callable[[int, int], None]


def train(plan: Plan, task: Task, progress: Progress) -> None:
    """Train a student into its folder: weights, a row of diagnostics per iteration, the cost."""
    settings = settings_on_ranks(plan.suite, task.student, ranks.group())
    with refusing_out_of_memory(partial(_too_large, settings, task.folder / CHECKPOINT)):
        _train(plan, task, settings, progress)


def _train(plan: Plan, task: Task, settings: TrainSettings, progress: Progress) -> None:
    suite = plan.suite
    method = METHODS[suite.students[task.student].method or ""]
    leave_room(default_device())  # this process may have scored others
    reset_peak_memory()
    with ranks.together():
        if ranks.is_first():
            task.folder.mkdir(parents=True, exist_ok=True)
            (task.folder / FAILED).unlink(missing_ok=True)
        backend = plan.prepared().opened(task.student)
        training = Training(backend, method, settings, task.seed, default_device())
        course = Course(task.folder, task.key, training, _evaluator(plan, task, training))
        course.resume()
    course.require_one_state()
    config = {"method": suite.students[task.student].method, **settings.model_dump()}
    folder = task.folder / "tracking"
    trackers = suite.trackers if ranks.is_first() else []
    tracking = tracked(trackers, folder, suite.name, task.label, config)
    with ExitStack() as stack:
        stop_asked = stack.enter_context(stops_when_it_may())
        with ranks.together():
            log = stack.enter_context(tracking)
        if not course.rows and not course.history:
            values = course.evaluate()
            with ranks.together():
                if ranks.is_first():
                    log(values, 0)
        for iteration in range(len(course.rows) + 1, settings.num_iterations + 1):
            row = {**course.advance(), **course.evaluate()}
            with ranks.together():
                if ranks.is_first():
                    log(row, iteration)
                    progress(iteration, settings.num_iterations)
            stops = ranks.anyone(stop_asked())
            if iteration == settings.num_iterations:
                break
            if stops or iteration % settings.checkpoint_every == 0:
                course.require_one_state()
                course.save()
            if stops:
                raise Stopped
    course.finish()
    if ranks.anyone(stop_asked()):  # too late for a checkpoint; no other task begins
        raise Stopped


def _too_large(settings: TrainSettings, checkpoint: Path) -> str:
    """What a training can do with less memory, of what it does not do already."""
    ways = {
        "train.gradient_checkpointing: true": not settings.gradient_checkpointing,
        "train.precision: bfloat16": settings.precision == "float32",
        "train.optimizer: adamw_8bit": settings.optimizer == "adamw",
        "train.lora_rank (64)": settings.lora_rank is None,
    }
    less = ", ".join([way for way, open_ in ways.items() if open_] or ["a smaller model"])
    kept = f"its checkpoint is kept: {checkpoint}" if checkpoint.is_file() else "no checkpoint yet"
    return (
        f"training does not fit into the memory of {memory_shown()} ({kept}). End what else fills "
        f"it and run again to go on, take fewer --workers, or set {less}"
    )


def _evaluator(plan: Plan, task: Task, training: Training) -> Evaluator | None:
    """What evaluates the student on the way, where the suite asks for it."""
    if plan.suite.evaluation is None:
        return None
    return Evaluator(
        student=task.label,
        backend=training.backend,
        settings=plan.suite.evaluation,
        prompts=plan.prompts,
        suite=plan.suite,
        seed=training.seed,
        t_list=training.settings.t_list,
        device=training.device,
    )
