"""Groups of commands that `ddmd_bench.cli` puts together, and how every command stops."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from rich.console import Console

from ddmd_bench.errors import BenchError

P = ParamSpec("P")


def _say(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True).print(sentence, markup=False, highlight=False)


def stop_cleanly(command: Callable[P, None]) -> Callable[P, None]:
    """Bad input ends with its message and exit code 2, without a traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BenchError as error:
            _say(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _say("stopped; what is complete is kept, run again to go on")
            raise typer.Exit(130) from None

    return wrapped
