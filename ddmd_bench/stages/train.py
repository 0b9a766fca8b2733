"""Train one student of a plan; an interrupted training goes on from its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ddmd_bench.files.device import default_device
from ddmd_bench.files.provenance import reset_peak_memory
from ddmd_bench.files.records import FAILED
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.training.course import Course
from ddmd_bench.training.evaluation import Evaluator
from ddmd_bench.training.trackers import tracked
from ddmd_bench.training.update import Training

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


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
    evaluator = _evaluator(plan, task, training)
    course = Course(task.folder, task.key, task.label, training, evaluator)
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
    course.finish()


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
