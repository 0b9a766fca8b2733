"""People as judges.

python -m ddmd_bench study make shapes --students dmd,decoupled_hybrid --prompts 100
python -m ddmd_bench study tally studies/shapes answers/
python -m ddmd_bench study power 60 --study studies/shapes
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import (
    Overrides,
    Reports,
    RunsAnywhere,
    console,
    split_names,
    started_once,
    stop_cleanly,
)
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.places import require_folder
from ddmd_bench.run.events import Event

app = typer.Typer(no_args_is_help=True, help="A blind page for people, and what they preferred.")
Study = Annotated[Path, typer.Argument(help="The folder that `study make` wrote.")]


@app.command()
@stop_cleanly
@started_once
def make(
    suite: Annotated[str, typer.Argument(help="A suite that was run, or its report.")],
    students: Annotated[
        list[str] | None, typer.Option(help="Whose images; with commas. Default: all but real.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Of the suite's, sets in proportion.")] = 500,
    annotators: Annotated[int, typer.Option(min=1, help="People who will answer.")] = 10,
    seen_by: Annotated[int, typer.Option(min=1, help="People who see each set.")] = 1,
    design: Annotated[str, typer.Option(help="ranking, pairs or side-by-side.")] = "ranking",
    ties: Annotated[bool, typer.Option("--ties", help="Equally good may be said.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of who sees what in which order.")] = 0,
    quality: Annotated[
        int | None, typer.Option(min=50, max=100, help="Of lossy WebP. Default: without loss.")
    ] = None,
    words: Annotated[
        list[Path] | None, typer.Option(help="LANGUAGE.yaml: the page's words in one more.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The study's folder. Default: studies/SUITE.")
    ] = None,
    set_: Overrides = None,
    runs: RunsAnywhere = "runs",
    reports: Reports = None,
) -> None:
    """Write a page for people, who see nothing of whose the images are, and the key to it.

    Hand out `page/`, or host it; keep `key.json` for `study tally`.
    """
    from ddmd_bench.commands.plans import begun
    from ddmd_bench.reporting.kept import shows_images_of
    from ddmd_bench.reporting.runfiles import load_run
    from ddmd_bench.reporting.saved import read_report
    from ddmd_bench.study.key import FORMS
    from ddmd_bench.study.making import Asked, make_study, students_of
    from ddmd_bench.study.pages import words_of
    from ddmd_bench.suite.files import REPORT, find_suite

    if design not in FORMS:
        raise BenchError(f"--design: {unknown('design', design, FORMS)}")
    if seen_by > annotators:
        raise BenchError(f"--seen-by {seen_by}: there are {annotators} people (--annotators)")
    with begun(suite, set_, runs, reports) as plan:
        if plan.packed is not None:
            raise BenchError(f"{suite}: a study needs the run's own images, which stay in a pack")
        source = find_suite(suite)
        if source.name == REPORT and not shows_images_of(read_report(source), plan):
            raise BenchError(
                f"{suite}: shows other images than {Path(runs) / plan.suite.name} holds. Name the "
                "runs that it is of: --runs"
            )
        if prompts > len(plan.prompts):
            raise BenchError(
                f"--prompts {prompts}: the suite has {len(plan.prompts)}. Ask for as many or fewer"
            )
        run = load_run(plan)
        asked = Asked(
            students_of(run, split_names(students or [])),
            prompts, annotators, seen_by, design, ties, seed, quality,
        )  # fmt: skip
        folder = output or Path("studies") / plan.suite.name
        require_folder(folder, "--output")
        said = words_of(words or [])
        with progress_shown(console) as on_event:

            def on_image(done: int, total: int) -> None:
                on_event(Event("images", done, total))

            record = make_study(run, plan.prompts, asked, said, folder, on_image)
    shares = [len(screens) for screens in record["screens"]]
    each = f"{min(shares)} to {max(shares)}" if min(shares) < max(shares) else f"{shares[0]}"
    console.print(f"{folder / 'page' / 'index.html'}: {annotators} people, {each} screens each")
    console.print(f"each opens it with a number of their own: index.html#1 to #{annotators}")
    console.print(f"hand out {folder / 'page'} alone; {folder / 'key.json'} says whose images are")


@app.command()
@stop_cleanly
@started_once
def tally(
    study: Study,
    answers: Annotated[list[Path], typer.Argument(help="Files that came back, or their folder.")],
) -> None:
    """Make numbers of what people answered, with intervals over prompts and people."""
    from ddmd_bench.study.answers import read_answers
    from ddmd_bench.study.key import read_key
    from ddmd_bench.study.report import write_tally
    from ddmd_bench.study.tally import tally as tallied
    from ddmd_bench.study.view import summary_of

    key = read_key(study)
    record = tallied(key, read_answers(key, answers))
    page = write_tally(record, study)
    for line in summary_of(record):
        console.print(line)
    console.print(f"tally: {page}")


@app.command()
@stop_cleanly
def power(
    share: Annotated[float, typer.Argument(help="Of a pair, in percent, to be told from 50.")],
    study: Annotated[
        Path | None, typer.Option(help="A tallied study whose answers' worth is taken.")
    ] = None,
) -> None:
    """Say how many answers show that one of two students is preferred."""
    from ddmd_bench.study.power import power_lines

    for line in power_lines(share, study):
        console.print(line)
