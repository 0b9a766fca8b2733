"""Progress fits where the output goes."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.text import Text

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import LITERAL
from ddmd_bench.run.events import Event, Note, Standing


def _shown(terminal: bool, events: list[Event | Note | Standing]) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, height=24, **LITERAL)
    with progress_shown(console) as on_event:
        for event in events:
            on_event(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_what_runs_and_a_line_for_what_is_done() -> None:
    """40 finished tasks on 24 rows: the one that still runs is the only bar left."""
    done = [Event(f"train {k}", step, 2) for k in range(40) for step in (1, 2)]
    text = _shown(True, [Event("train last", 1, 9), *done])
    assert all(f"train {k}: 2/2" in text for k in range(40))
    last = text.rpartition("train 39: 2/2")[2]
    assert "train last" in last
    assert "━" in last


def test_a_log_has_plain_lines() -> None:
    text = _shown(False, [Event("score dmd", 1, 2), Event("score dmd", 2, 2)])
    assert text == "score dmd: 2/2\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_task_says_is_a_line_at_once(terminal: bool) -> None:
    note = Note("generate dmd", "memory ran out with 8 images at once; 4 at once from here on")
    text = Text.from_ansi(_shown(terminal, [Event("generate dmd", 1, 9), note])).plain
    assert f"generate dmd: {note.text}" in text


def test_the_time_left_fits_in_80_columns() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, **LITERAL)
    with progress_shown(console) as on_event:
        for k in (1, 2, 3):
            on_event(Event("generate decoupled_constrained", k, 784))
    assert isinstance(console.file, io.StringIO)
    last = Text.from_ansi(console.file.getvalue()).plain.splitlines()[-1]
    assert re.search(r"generate decoupled_constrained .* +3/784 (-:--:--|\d+:\d\d:\d\d) *$", last)


def test_the_run_as_a_whole_has_a_line_of_its_own() -> None:
    events = [Event("train dmd", 1, 9), Standing(2, 5, 3725.0, at_least=True)]
    last = Text.from_ansi(_shown(True, events)).plain.splitlines()[-1]
    assert last.strip() == "2 under way, 5 to come, at least 1:02:05 left in all"
