"""The commands: words, progress and exit codes.

python -m ddmd_bench run suites/shapes.yaml      # everything; what is complete is kept
python -m ddmd_bench plan shapes                 # what it would do
python -m ddmd_bench check shapes                # does the code still do the same?
"""

from __future__ import annotations

from typing import Annotated

import typer

import ddmd_bench.files.quiet  # noqa: F401 - before any library loads
from ddmd_bench import __version__
from ddmd_bench.commands import stats, study
from ddmd_bench.commands.checking import CheckCommand, check, expect
from ddmd_bench.commands.comparing import board, compare, figures, power
from ddmd_bench.commands.crosschecking import crosscheck
from ddmd_bench.commands.exporting import export
from ddmd_bench.commands.fetching import fetch
from ddmd_bench.commands.listing import list_
from ddmd_bench.commands.measuring import doctor, score
from ddmd_bench.commands.options import on_ranks, started_once, stop_cleanly
from ddmd_bench.commands.planning import plan
from ddmd_bench.commands.pushing import pull, push
from ddmd_bench.commands.reporting import report
from ddmd_bench.commands.running import STAGE_COMMANDS, run
from ddmd_bench.commands.verifying import pack, verify
from ddmd_bench.commands.watching import watch

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(stats.app, name="stats")
app.add_typer(study.app, name="study")


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print it.")
    ] = False,
) -> None:
    """Compare few-step text-to-image students and write a report that can be rerun."""


def schema() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    import json

    from ddmd_bench.suite.schema import Suite

    print(json.dumps(Suite.model_json_schema(), indent=1))


def published() -> None:
    """Print the students that a suite can name: weights, settings, and where each was seen."""
    from ddmd_bench.students.listing import page

    print(page(), end="")


# In the order in which --help lists them.
COMMANDS = (
    run,
    plan,
    watch,
    fetch,
    *STAGE_COMMANDS,
    score,
    doctor,
    crosscheck,
    report,
    check,
    verify,
    pack,
    push,
    pull,
    export,
    compare,
    board,
    figures,
    power,
    expect,
    list_,
    published,
    schema,
)
# These only read, so that saying their words several times does no harm.
READING = (plan, check, verify, power, list_, published, schema)
SHARING = (run, *STAGE_COMMANDS)
for command in COMMANDS:
    if command in SHARING:
        guarded = on_ranks(command)
    else:
        guarded = command if command in READING else started_once(command)
    kind = CheckCommand if command is check else None
    app.command(command.__name__.rstrip("_"), cls=kind)(stop_cleanly(guarded))
