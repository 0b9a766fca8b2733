"""Every unfinished task of a plan, by all ranks of one command.

Most tasks are done by all ranks; of the others each rank does one.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from ddmd_bench.files import ranks
from ddmd_bench.files.device import default_device
from ddmd_bench.files.memory import return_memory
from ddmd_bench.files.threads import limit_threads, num_cores
from ddmd_bench.planning.outlook import relative_effort
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.sharding import settings_on_ranks, sharding_problems
from ddmd_bench.planning.task import Task
from ddmd_bench.run.events import Event, Note, OnEvent
from ddmd_bench.run.schedule import Schedule
from ddmd_bench.run.tasks import Outcome, forget_failure, kept_failure
from ddmd_bench.run.workers import Ended, Message, Progress, Said, done

# Stages whose one task all ranks do together.
SHARED = ("reference", "encode", "train", "generate", "score")
PACKAGES = ("ddmd_bench", "torch", "diffusers")


def sharing_problems(plan: Plan, stages: Iterable[str]) -> list[str]:
    """Why these ranks cannot do the plan's unfinished tasks together, a sentence each.

    Raises BenchError where they were not started alike.
    """
    ranks.require_equal("their packages", {name: version(name) for name in PACKAGES})
    ranks.require_equal("their kind of device", default_device())
    ranks.require_equal("the keys of the suite's tasks", [t.key for t in plan.tasks.values()])
    todo = {task.student for task in plan.of_stage("train") if not task.complete()}
    group = ranks.group()
    problems = list[str]()
    for student in sorted(todo) if "train" in {*stages} else []:
        settings = settings_on_ranks(plan.suite, student, group)
        if (batch := settings.batch_size) < ranks.num():
            problems.append(
                f"train.batch_size of {student} is {batch}: fewer samples than the {ranks.num()} "
                f"processes that share them. Start at most {batch}"
            )
        else:
            found = sharding_problems(settings, settings.sharding, ranks.num())
            problems += [f"students.{student}: {problem}" for problem in found]
    return problems


def run_together(plan: Plan, stages: Iterable[str], on_event: OnEvent) -> Outcome:
    """Finish the tasks of the stages. What fails stops only what needs it.

    All ranks call it, and have the same outcome.
    """
    cores = num_cores() // ranks.group().per_machine
    # Results on a CPU do not depend on its cores.
    limit_threads(1 if default_device() == "cpu" else max(1, cores))
    wanted = {*stages}
    todo = [t for t in plan.tasks.values() if t.stage in wanted and not t.complete()]
    names = ranks.told([task.name for task in todo])  # another machine may see a file later
    schedule = Schedule((plan.tasks[name] for name in names), relative_effort(plan.suite))
    num_done, problems = 0, list[str]()
    while schedule.unfinished:
        tasks = _round(schedule)
        for task, ended in zip(tasks, _ended(tasks, plan, on_event), strict=True):
            if ended.problem is None:
                schedule.finish(task)
                num_done += 1
                continue
            schedule.fail(task)
            if ranks.is_first():
                problems.append(kept_failure(task, ended))
                on_event(Note(str(task), f"failed: {ended.problem}"))
        on_event(schedule.standing(1))
    return Outcome(num_done, ranks.told(problems))


def _round(schedule: Schedule) -> list[Task]:
    """What begins now: one task that all ranks share, or at most one for each of them."""
    tasks = list[Task]()
    while len(tasks) < ranks.num() and (task := schedule.next(None)) is not None:
        shared = task.stage in SHARED
        if shared and tasks:
            break
        schedule.begin(task)
        tasks.append(task)
        if shared:
            break
    return tasks


def _ended(tasks: list[Task], plan: Plan, on_event: OnEvent) -> list[Ended]:
    """How each of the tasks has ended, told to all ranks."""
    shared = tasks[0].stage in SHARED
    mine = tasks[0] if shared else dict(enumerate(tasks)).get(ranks.number())
    of_ranks = ranks.at_end(_done(mine, plan, on_event) if mine is not None else None)
    if shared:
        failed = [one for one in of_ranks if one is not None and one.problem is not None]
        # Where one rank met an error, the others quote it.
        return [min(failed, key=lambda one: len(str(one)), default=Ended(None))]
    for task, ended in zip(tasks[1:], of_ranks[1:], strict=False):
        if ended is not None and ended.problem is None:
            on_event(Event(str(task), 1, 1))  # which its own rank has not shown
    return [one for one in of_ranks if one is not None]


def _done(task: Task, plan: Plan, on_event: OnEvent) -> Ended:
    def tell(message: Message) -> None:
        match message:
            case Progress():
                on_event(Event(str(task), *message))
            case Said():
                on_event(Note(str(task), message.text))

    leads = ranks.is_first() or task.stage not in SHARED
    if leads:
        forget_failure(task)
    ended = done(task, plan, tell, leads=leads)
    return_memory()  # the process goes on: what the task kept serves no other
    return ended
