"""The commands: words, progress and exit codes.

python -m ddmd_bench run suites/shapes.yaml      # everything; what is complete is kept
python -m ddmd_bench plan shapes                 # what it would do
python -m ddmd_bench check shapes                # 0 ok, 1 drift, 2 incomparable or an error
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ddmd_bench.commands import stats
from ddmd_bench.commands.display import shown
from ddmd_bench.commands.fetching import fetch_metrics, fetch_suite
from ddmd_bench.commands.options import (
    Dtype,
    Overrides,
    Reports,
    Runs,
    SuiteName,
    Workers,
    console,
    raise_problems,
    split_names,
    stop_cleanly,
)
from ddmd_bench.commands.planning import print_plan
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_json, write_whole
from ddmd_bench.planning.disk import disk_problems, disk_todo
from ddmd_bench.planning.downloads import require_here
from ddmd_bench.planning.memory import gpu_problems
from ddmd_bench.planning.outlook import Outlook
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.run import Outcome, run_tasks
from ddmd_bench.scorers import scorer_weights
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import Suite

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compare few-step text-to-image students and write a report that can be rerun.",
    pretty_exceptions_enable=False,
)
app.add_typer(stats.app, name="stats")

ALL_STAGES = ("doctor", "encode", "reference", "train", "generate", "score")


def _make_plan(suite: str, overrides: list[str] | None, runs: Path, reports: Path) -> Plan:
    return make_plan(load_suite(suite, overrides or []), runs, reports)


def _run_stages(plan: Plan, stages: tuple[str, ...], workers: int) -> Outcome:
    require_here(plan.remotes, scorer_weights(plan.suite.all_metrics))
    outlook = Outlook.of(plan.suite, plan)
    problems = disk_problems({plan.runs: sum(disk_todo(outlook, stages).values())})
    if "train" in stages:
        problems += gpu_problems(plan.suite, outlook.backend)
    raise_problems(problems)
    with shown(console) as on_event:
        return run_tasks(plan, stages, on_event, workers)


def _write_report(plan: Plan) -> None:
    from ddmd_bench.stages.report import report

    console.print("writing the report")
    report(plan)
    console.print(f"report: {plan.report_folder / 'index.html'}")


@app.command()
@stop_cleanly
def run(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    workers: Workers = 0,
) -> None:
    """Train, generate, score and report; what is complete is not done again."""
    plan = _make_plan(suite, set_, runs, reports)
    count, problems = _run_stages(plan, ALL_STAGES, workers)
    complete = sum(task.complete() for task in plan.tasks.values()) - count
    console.print(f"{plan.suite.name}: {count} tasks done, {complete} were complete")
    if plan.report_complete():
        console.print(f"report: {plan.report_folder / 'index.html'} (unchanged)")
    else:
        _write_report(plan)
    raise_problems(problems)


@app.command()
@stop_cleanly
def plan(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Check a suite and print what a run would do."""
    print_plan(load_suite(suite, set_ or []), runs, reports)


@app.command()
@stop_cleanly
def fetch(
    suite: Annotated[str | None, typer.Argument(help="As for run.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Instead of a suite: weights for hps_v21,fid ...")
    ] = None,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Download and verify all that a suite needs, or the scorers of metrics, to go on offline."""
    if (suite is None) == (metrics is None):
        raise BenchError("fetch: give a suite, or --metrics")
    if suite is not None:
        fetch_suite(load_suite(suite, set_ or []), runs)
    else:
        fetch_metrics(split_names(metrics or []))


def _run_stage(
    name: str,
    needs: tuple[str, ...],
    suite: str,
    overrides: list[str] | None,
    runs: Path,
    reports: Path,
    workers: int,
) -> None:
    made = _make_plan(suite, overrides, runs, reports)
    for before in needs:
        if missing := [str(t) for t in made.of_stage(before) if not t.complete()]:
            raise BenchError(
                f"{name} needs what is not there yet: {', '.join(missing)}. "
                f"Run `python -m ddmd_bench {before} {suite}` first, or `run` for everything"
            )
    count, problems = _run_stages(made, (name,), workers)
    console.print(f"{name}: {count} tasks done")
    raise_problems(problems)


def _stage_command(name: str, needs: tuple[str, ...], text: str) -> None:
    def command(
        suite: SuiteName,
        set_: Overrides = None,
        runs: Runs = Path("runs"),
        reports: Reports = Path("reports"),
        workers: Workers = 0,
    ) -> None:
        _run_stage(name, needs, suite, set_, runs, reports, workers)

    app.command(name, help=text)(stop_cleanly(command))


_stage_command("reference", (), "Draw and measure the real images.")
_stage_command("encode", (), "Encode the prompts, where the backend has text encoders.")
_stage_command("train", ("encode",), "Train the students.")
_stage_command("generate", ("encode", "train"), "Draw the images of every student.")


@app.command()
@stop_cleanly
def score(
    target: Annotated[str, typer.Argument(help="A folder of images, or a suite.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Of a folder: a table of file_name and prompt, or a line an image."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Of a folder: hps_v21,image_reward")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Of a folder: statistics that FID and others compare with.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Of a folder: default scores/<folder>.")
    ] = None,
    dtype: Dtype = "float32",
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    workers: Workers = 0,
) -> None:
    """Measure a folder of images from any generator, or the images of a suite's run."""
    if metrics or Path(target).is_dir():
        from ddmd_bench.commands.scoring import score_images

        score_images(Path(target), prompts, metrics or [], reference, output, dtype)
    else:
        _run_stage("score", ("reference", "generate"), target, set_, runs, reports, workers)


@app.command()
@stop_cleanly
def doctor(
    scorers: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    dtype: Dtype = "float32",
) -> None:
    """Check that scorers measure anything: exit 1 where one does not."""
    from ddmd_bench.commands.scoring import examine_scorers

    examine_scorers(scorers or [], dtype)


@app.command()
@stop_cleanly
def report(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Write the report of a finished run."""
    _write_report(_make_plan(suite, set_, runs, reports))


@app.command()
@stop_cleanly
def check(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    expected: Annotated[Path | None, typer.Option(help="Default: the suite's own file.")] = None,
) -> None:
    """Hold a finished run against the expected values: exit 0 ok, 1 drift, 2 incomparable."""
    from ddmd_bench.stages.check import EXIT_CODES, check_run, find_expected

    made = _make_plan(suite, set_, runs, reports)
    outcome = check_run(made, expected or find_expected(made.suite.name))
    for line in outcome.lines:
        console.print(line, markup=False, highlight=False)
    console.print(f"{made.suite.name}: {outcome.status}")
    raise typer.Exit(EXIT_CODES[outcome.status])


@app.command()
@stop_cleanly
def export(
    suite: SuiteName,
    student: Annotated[str, typer.Argument(help="A student that the suite trained.")],
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    seed: Annotated[int, typer.Option(help="The training's seed.")] = 0,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write a trained student as a diffusers checkpoint, or its LoRA, with a model card."""
    from ddmd_bench.students.export import export as write

    made = _make_plan(suite, set_, runs, Path("reports"))
    console.print(f"exported: {write(made, student, seed, output)}")


@app.command()
@stop_cleanly
def compare(
    first: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds it.")],
    second: Annotated[Path, typer.Argument(help="The report to compare it with.")],
    pair: Annotated[
        list[str] | None,
        typer.Option(help="student=other: of the first and the second. Default: equal names."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the table to this file too.")] = None,
) -> None:
    """Hold students of one report against students of another, seed by seed."""
    from ddmd_bench.reporting.between import between, between_markdown

    records = _read_report(first), _read_report(second)
    pairs = [_parse_pair(text) for text in pair or []]
    pairs = pairs or [(n, n) for n in records[0]["table"] if n in records[1]["table"]]
    if not pairs:
        raise BenchError("the reports share no student's name: say --pair student=other")
    text = between_markdown(*records, between(*records, pairs))
    console.print(text, markup=False, highlight=False)
    if output is not None:
        write_whole(output, text)


def _read_report(path: Path) -> dict[str, Any]:
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise BenchError(f"{file}: no such report. Give a report.json, or the folder that holds it")
    record: dict[str, Any] = read_json(file)
    return record


def _parse_pair(text: str) -> tuple[str, str]:
    student, separator, other = text.partition("=")
    if not (student and separator and other):
        raise BenchError(f"--pair {text}: expected student=other")
    return student, other


@app.command()
@stop_cleanly
def expect(
    suite: SuiteName,
    seeds: Annotated[str, typer.Option(help="Seeds to run, at least three: 0,1,2")] = "0,1,2",
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    workers: Workers = 0,
    output: Annotated[Path, typer.Option(help="Folder for <suite>.expected.json.")] = Path(
        "reference_stats"
    ),
) -> None:
    """Run a suite with several seeds and write the values that `check` expects."""
    from ddmd_bench.stages.check import write_expected
    from ddmd_bench.stages.report import report as make_report

    records = []
    for seed in _parse_seeds(seeds):
        made = _make_plan(suite, [*(set_ or []), f"seeds=[{seed}]"], runs, runs / f"reports-{seed}")
        raise_problems(_run_stages(made, ALL_STAGES, workers).problems)
        records.append(make_report(made))
    console.print(f"expected: {write_expected(records, output)}")


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = sorted({int(seed) for seed in text.split(",")})
    except ValueError:
        raise BenchError(f"--seeds {text}: expected whole numbers, e.g. 0,1,2") from None
    if len(seeds) < 3:
        raise BenchError(f"--seeds {text}: a spread needs at least three different seeds")
    return seeds


@app.command()
def schema() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    print(json.dumps(Suite.model_json_schema(), indent=1))
