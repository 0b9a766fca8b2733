"""score and doctor: images measured, of a folder or of a suite's run, and scorers examined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import (
    Overrides,
    Redo,
    Reports,
    Runs,
    Workers,
    console,
    raise_problems,
    refuse_given,
    split_names,
)
from ddmd_bench.commands.running import run_stage
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.device import default_device
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.places import own_place, require_folder
from ddmd_bench.run.events import Event

if TYPE_CHECKING:
    import torch

    from ddmd_bench.measuring.doctor import Finding
    from ddmd_bench.planning.part import Asked

FLOAT32 = "float32"
DTYPES = (FLOAT32, "bfloat16")
# The options of `score` that say nothing of a suite, and nothing of a folder.
OF_A_FOLDER = {
    "--prompts": "set them in the suite, --set prompts.NAME.source=FILE",
    "--order": "a suite draws each image for its prompt; leave it out",
    "--metrics": "set them in the suite, --set metrics=[fid,hps_v21]",
    "--reference": "set it in the suite, --set reference.statistics=NAME",
    "--output": "values go to the suite's run, --runs FOLDER",
    "--dtype": "set it in the suite, --set scoring.dtype=bfloat16",
}
OF_A_SUITE = {
    "--set": "no suite is read; --metrics, --reference and --dtype say what is done",
    "--runs": "values go to --output",
    "--reports": "no report is written; values go to --output",
    "--workers": "one process scores a folder; leave it out",
    "--redo": "what another version of the code scored is scored anew; leave it out",
}


def torch_dtype(name: str) -> torch.dtype:
    """One of `DTYPES`."""
    import torch

    if name not in DTYPES:
        raise BenchError(unknown("dtype", name, DTYPES))
    found: torch.dtype = getattr(torch, name)
    return found


def score(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(help="A folder of images, or a suite.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Of a folder: a table of file_name and prompt, or a line an image."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Of a text file's lines: by natural or plain order of the file names."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Of a folder: hps_v21,image_reward")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Of a folder: statistics that FID and others compare with.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Of a folder: default scores/<its path>.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of a folder: what the scorers compute in, float32 or bfloat16.")
    ] = FLOAT32,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = None,
    workers: Workers = 0,
    redo: Redo = False,
) -> None:
    """Measure a folder of images from any generator, or the images of a suite's run."""
    from ddmd_bench.suite.files import SUFFIXES

    path = Path(target)
    if path.is_dir():
        refuse_given(ctx, f"{path} is a folder of images, not a suite", OF_A_SUITE)
        _score_images(path, prompts, order, metrics or [], reference, output, dtype)
    elif path.suffix in SUFFIXES or (len(path.parts) == 1 and not metrics):
        refuse_given(ctx, f"{target} is no folder, and so taken as a suite", OF_A_FOLDER)
        run_stage("score", target, set_, runs, reports, workers, redo)
    else:
        raise BenchError(
            f"{path}: no such folder of images. --metrics is for a folder; a suite has its own, "
            "and its path ends in .yaml"
        )


def _score_images(
    folder: Path,
    prompts: Path | None,
    order: str | None,
    metrics: Sequence[str],
    reference: str | None,
    output: Path | None,
    dtype: str,
) -> None:
    """Score a folder of images and print the values."""
    from ddmd_bench.data.image_folders import left_out, some_of
    from ddmd_bench.measuring.folder import folder_problems, read_folder, score_folder
    from ddmd_bench.scorers import METRICS, needs_of, scorer_weights
    from ddmd_bench.scorers.weights import located, missing_sentence

    metrics = split_names(metrics)
    if not metrics:
        alone = [name for name in METRICS if not needs_of(name)]
        raise BenchError(
            "--metrics: name at least one. `python -m ddmd_bench list metrics` says what each "
            f"needs; from pixels alone: {', '.join(alone)}"
        )
    raise_problems(folder_problems(metrics, reference))
    raise_problems([missing_sentence(w) for w in scorer_weights(metrics) if not located(w)])
    output = output or Path("scores") / own_place(folder)
    require_folder(output, "--output")
    images = read_folder(folder, prompts, metrics, order)
    with numerics(), progress_shown(console) as on_event:

        def progress(done: int, total: int) -> None:
            on_event(Event("score", done, total))

        record = score_folder(
            images, metrics, output, reference, default_device(), torch_dtype(dtype), progress
        )
    _print_scores(record)
    if images.not_listed:
        named = f"{len(images.not_listed)} images have no prompt and were not scored: "
        console.print(named + some_of(images.not_listed))
    if lost := [
        row["file_name"]
        for row, at in zip(images.rows, images.paths, strict=True)
        if not at.is_file()
    ]:
        console.print(f"{len(lost)} listed images are not there: {some_of(lost)}")
    if others := left_out(folder):
        console.print(others)
    if number := record["equal_images"]:
        console.print(f"{number} images repeat another of the set, byte for byte: they add nothing")
    console.print(f"scores: {output}")


def _print_scores(record: dict[str, Any]) -> None:
    from rich.table import Table

    from ddmd_bench.reporting.numbers import interval_shown, metric_shown, unit_of
    from ddmd_bench.scorers import METRICS

    table = Table("metric", "group", "value", "95 % interval", "n")
    for metric, groups in record["metrics"].items():
        for group, cell in groups.items():
            counted = "" if cell["n"] == cell["n_expected"] else f" of {cell['n_expected']}"
            table.add_row(
                METRICS[metric].title + unit_of(metric),
                group,
                metric_shown(metric, cell["value"]),
                interval_shown(metric, cell["low"], cell["high"]),
                f"{cell['n']}{counted}",
            )
    console.print(table)
    for metric, groups in record["metrics"].items():
        for group, cell in groups.items():
            if note := cell.get("missing") or cell.get("note"):
                console.print(f"{METRICS[metric].title}, {group}: {note}")
    for scorer, told in record.get("imported_reference", {}).items():
        console.print(f"{scorer}: the reference is {told}")
    for scorer, reasons in record["missing"].items():
        for reason, number in reasons.items():
            console.print(f"{scorer}: {number} images have no value: {reason}")
    for scorer, number in record["truncated_prompts"].items():
        console.print(f"{scorer}: {number} prompts are longer than it reads and were cut")


def doctor(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Scorers, default all; or a suite: its own and its teacher."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or bfloat16. Default: a suite's scoring.dtype, else float32."),
    ] = None,
) -> None:
    """Check that scorers measure anything, and that a teacher has guidance: exit 1 if not."""
    _examine(targets or [], dtype)


@numerics()
def _examine(targets: Sequence[str], dtype: str | None) -> None:
    """Examine what is named, or all scorers, and print what was found; exit 1 if it is wrong."""
    from ddmd_bench.measuring.doctor import examine
    from ddmd_bench.scorers import SCORERS, outside_scorers
    from ddmd_bench.stages.doctor import examine_teacher

    scorers, teachers = list[tuple[str, str]](), []
    for name in split_names(targets) or list(SCORERS):
        if name in SCORERS:
            scorers.append((name, dtype or FLOAT32))
            continue
        asked = _suite_of(name)
        own = dtype or asked.suite.scoring.dtype  # as its run examines them
        scorers += [(scorer, own) for scorer in outside_scorers(asked.suite.all_metrics)]
        teachers.append(asked)
    marks = {True: "ok", False: "WRONG", None: "not checked"}
    wrong = False

    def show(findings: Sequence[Finding]) -> None:
        nonlocal wrong
        for finding in findings:
            wrong |= finding.passed is False
            line = f"{finding.scorer}: {finding.check}: {marks[finding.passed]} ({finding.text})"
            console.print(line)

    for name, computed_in in dict.fromkeys(scorers):
        found = examine([name], default_device(), torch_dtype(computed_in))
        if not found:
            console.print(f"{name}: reads pixels with no network of its own, nothing to check")
        show(found)
    for asked in teachers:
        show([examine_teacher(asked)])
    if wrong:
        raise typer.Exit(1)


def _suite_of(name: str) -> Asked:
    from ddmd_bench.planning.part import Asked
    from ddmd_bench.scorers import SCORERS
    from ddmd_bench.suite.files import load_suite

    try:
        return Asked.of(load_suite(name, []))
    except BenchError as error:
        raise BenchError(f"{unknown('scorer', name, SCORERS)} As a suite: {error}") from error
