"""What the commands share: the console, options, and how bad input ends."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from ddmd_bench.errors import BenchError, files_told
from ddmd_bench.files import ranks
from ddmd_bench.files.elsewhere import is_elsewhere
from ddmd_bench.files.launchers import refuse_several
from ddmd_bench.files.stopping import EXIT_CODE, Stopped

# What people named, in brackets or with colons, is printed as it stands.
LITERAL: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
console = Console(**LITERAL)
errors = Console(stderr=True, **LITERAL)

SuiteName = Annotated[
    str, typer.Argument(help="A suite file, or the name of one that is built in.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: train.num_iterations=20")
]


def _folder(given: str | Path) -> Path:
    if is_elsewhere(str(given)):
        raise typer.BadParameter(
            f"{given}: work is done in a folder of this machine, or in a shared one. `pull` brings "
            "a run from there, `push` takes it back"
        )
    return Path(given)


Runs = Annotated[
    Path,
    typer.Option(help="Where the stages keep their files.", parser=_folder, metavar="PATH"),
]
# Of commands that only read: a copy of what is elsewhere is brought up to date first.
RunsAnywhere = Annotated[
    str, typer.Option("--runs", help="Where the stages' files are: a folder, or a URL (s3://...).")
]
REPORTS = Path("reports")
Reports = Annotated[
    Path | None,
    typer.Option(help="Where reports are. Default: reports, with --set under a name of their own."),
]
Workers = Annotated[int, typer.Option(min=0, help="Students side by side; 0: one a core or GPU.")]
Redo = Annotated[
    bool, typer.Option("--redo", help="Make again what another version of the code has made.")
]
UntilSettled = Annotated[
    bool,
    typer.Option(
        "--until-settled",
        help="Draw in blocks, and no more than settles the comparisons with the baseline; "
        "other commands find that run with --set until_settled={}.",
    ),
]

LEAVE_OUT = "leave it out"  # of an option that would be ignored
SOME_FAILED = 3  # the exit code of a run that went to its end without some of its tasks

P = ParamSpec("P")


def stop_cleanly(command: Callable[P, None]) -> Callable[P, None]:
    """Bad input, and a file that cannot be written, end with a message and exit code 2."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a character that it lacks ends no command
                stream.reconfigure(errors="backslashreplace")
        try:
            with files_told():
                command(*args, **kwargs)
        except BenchError as error:
            if not ranks.said_by_first(error):
                errors.print(as_told(str(error), kwargs.get("suite")))
            raise typer.Exit(2) from None
        except (KeyboardInterrupt, Stopped) as stop:
            why = f"{stop}; " if isinstance(stop, ranks.Parted) else ""
            errors.print(f"{why}stopped; what is complete is kept, run again to go on")
            code = EXIT_CODE if isinstance(stop, Stopped) else 130
            raise typer.Exit(code) from None

    return wrapped


# A problem of the prompts of one set; those of one source share their words.
_OF_PROMPTS = re.compile(r"^(suite \S+: )?prompts\.(\S+?)\.source: (.*)$")


def as_told(text: str, suite: object) -> str:
    """An error as it is printed: commands with the suite's own name, of sets alike one line."""
    if isinstance(suite, str):
        text = re.sub(r"(ddmd_bench \w+) SUITE\b", lambda found: f"{found[1]} {suite}", text)
    sets: dict[tuple[str, str], list[str]] = {}  # by what is said of their source
    for line in text.split("\n"):
        found = _OF_PROMPTS.match(line)
        of, what = (found[1] or "", found[3]) if found else ("", line)
        sets.setdefault((of, what), []).extend([found[2]] if found else [])
    lines = []
    for (of, what), names in sets.items():
        where = f"prompts.{names[0]}.source: " if len(names) == 1 else ""
        where = f"prompts {', '.join(names)}: " if len(names) > 1 else where
        lines.append(f"{of}{where}{what}")
    return "\n".join(lines)


def started_once(command: Callable[P, None]) -> Callable[P, None]:
    """A command that writes; where a launcher started several, each is refused before any work."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        refuse_several()
        command(*args, **kwargs)

    return wrapped


def on_ranks(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose work the processes share that a launcher started; the first one speaks."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        ranks.join()
        console.quiet = not ranks.is_first()
        command(*args, **kwargs)

    return wrapped


def split_names(given: Sequence[str]) -> list[str]:
    """Names from an option that is given several times, or once with commas."""
    return list(dict.fromkeys(name for text in given for name in text.split(",") if name))


def given_options(ctx: typer.Context) -> list[str]:
    """The options that the command line names, whatever their values: --dtype."""
    return [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.param_type_name == "option"
        and getattr(ctx.get_parameter_source(str(parameter.name)), "name", "") == "COMMANDLINE"
    ]


def refuse_given(ctx: typer.Context, fact: str, instead: Mapping[str, str]) -> None:
    """Refuse options that would be ignored for such a fact, each with what to do `instead`."""
    given = [name for name in given_options(ctx) if name in instead]
    if given:
        raise BenchError("\n".join([f"{fact}:", *(f"{name}: {instead[name]}" for name in given)]))


def raise_problems(problems: list[str]) -> None:
    """One error of all of them, if there are any."""
    if problems:
        raise BenchError("\n".join(problems))
