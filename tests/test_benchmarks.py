"""The benchmarks' list and the file that they write; what they measure no test repeats."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import losses
from benchmarks.__main__ import BENCHMARKS, preamble
from benchmarks.document import Sitting, replaced, sections_of
from benchmarks.table import Table, as_markdown, as_text

FOLDER = Path(__file__).parents[1] / "benchmarks"
# What the benchmarks are made of, the other side of `scorers` and the cases of `coverage`.
BESIDE = {
    "__init__", "__main__", "contenders", "coverage_cases", "document", "processes", "table",
}  # fmt: skip
TABLE = Table("Short is short.", ("what", "s", "ratio"), [("a", "1.0", "1"), ("bcd", "20", "20")])
SITTING = Sitting("2026-01-02 03:04 UTC", 0.25, "a CPU, 2 cores, 24 GiB", 1, "abc", {"torch": "2"})


def test_every_module_has_a_row() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - BESIDE == BENCHMARKS.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_how_it_is_run(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    card = ast.get_docstring(tree) or ""
    assert f"python -m benchmarks.{name}" in card or f"python benchmarks/{name}.py" in card
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in functions
    if BENCHMARKS[name].arguments is None:
        arguments = functions["results"].args  # the short form: every option has a default
        assert len(arguments.args) == len(arguments.defaults)


def test_columns_are_aligned() -> None:
    assert as_text(TABLE) == "Short is short.\nwhat    s  ratio\na     1.0      1\nbcd    20     20"


def test_a_section_says_what_and_where() -> None:
    assert as_markdown(TABLE) == (
        "Short is short.\n\n| what | s | ratio |\n| --- | ---: | ---: |\n| a | 1.0 | 1 |\n"
        "| bcd | 20 | 20 |"
    )
    assert str(SITTING) == (
        "Measured 2026-01-02 03:04 UTC at a load of 0.25 on a CPU, 2 cores, 24 GiB; threads: 1; "
        "commit abc; torch 2."
    )


def test_only_the_named_sections_are_replaced() -> None:
    order = ["start", "run", "size"]
    first = replaced("", {"size": "old size", "run": as_markdown(TABLE)}, "# Title", order)
    second = replaced(first, {"size": "new size", "start": "new start"}, "# New title", order)
    assert list(sections_of(second).items()) == [
        ("start", "new start"),
        ("run", as_markdown(TABLE)),
        ("size", "new size"),
    ]
    assert second.startswith("# New title\n\n## start\n\n")
    assert replaced(second, {}, "# New title", order) == second
    # A benchmark that is gone takes its section with it.
    assert [*sections_of(replaced(second, {}, "# Title", order[1:]))] == ["run", "size"]


def test_the_losses_that_are_seen_are_verdicts() -> None:
    """A loss of eight points is worse, none is not: made-up students are compared, not missing."""
    assert losses.verdicts(784, 0.08, 5) == {"failed": 5}
    assert losses.verdicts(3200, 0.0, 5) == {"ok": 5}


def test_what_is_left_out_says_why() -> None:
    left_out = {name: row.left_out for name, row in BENCHMARKS.items() if row.left_out}
    assert left_out
    assert all(f"`{name}`: {why}" in preamble() for name, why in left_out.items())
