"""The LaTeX table: every student and metric, nothing of a title read as a command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import make_run, make_suite

from ddmd_bench.reporting.latex import escaped, latex
from ddmd_bench.reporting.numbers import metric_shown
from ddmd_bench.scorers import METRICS
from ddmd_bench.stages.report import report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    suite = make_suite(title=r"50 % & more_of {it} #1 \input{x} $y$ a~b^c [d]")
    plan = make_run(tmp_path_factory.mktemp("run"), suite)
    (plan.task("score", "ca_only", 0).folder / "done.json").unlink()
    record = report(plan)
    return (plan.report_folder / "table.tex").read_text(encoding="utf-8"), record


def rows_of(text: str) -> list[str]:
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    return body.splitlines()[1:]


def test_every_student_and_metric_is_in_it(made: tuple[str, dict[str, Any]]) -> None:
    text, record = made
    rows = rows_of(text)
    assert [row.split(" & ")[0] for row in rows] == [
        escaped(s["title"]) for s in record["students"].values()
    ]
    (heading,) = [line for line in text.splitlines() if line.startswith("Student & ")]
    for cell, metric in zip(heading.split(" & ")[1:], record["suite"]["metrics"], strict=True):
        words = cell.replace(r" \\ ", " ")
        assert escaped(METRICS[metric].title) in words
        arrow = {"higher": "uparrow", "lower": "downarrow", "reference": "approx"}
        assert rf"$\{arrow[METRICS[metric].better]}$" in words
    for row, name in zip(rows, record["students"], strict=True):
        cells = row.removesuffix(r" \\").split(" & ")[1:]
        for cell, metric in zip(cells, record["suite"]["metrics"], strict=True):
            found = record["table"][name][metric]["all"]
            if found["value"] is None:
                assert cell == "--"
                continue
            for key in ("value", "low", "high"):
                if found[key] is not None:
                    assert escaped(metric_shown(metric, found[key])) in cell


def test_best_is_bold(made: tuple[str, dict[str, Any]]) -> None:
    text, record = made
    best = record["best"]["prompt_accuracy"]
    value = metric_shown(
        "prompt_accuracy", record["table"][best]["prompt_accuracy"]["all"]["value"]
    )
    bold = [row for row in rows_of(text) if rf"\textbf{{{value}}}" in row]
    assert [row.split(" & ")[0] for row in bold] == [record["students"][best]["title"]]
    # Real scenes are better still, and no contender.
    assert r"\textbf" not in next(r for r in rows_of(text) if r.startswith("Real scenes"))


def test_no_character_of_a_title_is_a_command(made: tuple[str, dict[str, Any]]) -> None:
    (caption,) = [line for line in made[0].splitlines() if line.startswith(r"\caption")]
    assert (
        r"50 \% \& more\_of \{it\} \#1 \textbackslash{}input\{x\} \$y\$ "
        r"a\textasciitilde{}b\textasciicircum{}c {[}d{]}" in caption
    )
    assert "CA only was not scored" in caption
    bare = re.sub(r"\\[{}%&$#_]", "", made[0])
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", made[0]) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert not [line for line in made[0].splitlines()[1:] if re.search(r"(?<!\\)%", line)]


def test_several_seeds_are_said(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite(seeds=(0, 1, 2)))
    (plan.task("score", "dmd", 1).folder / "done.json").unlink()
    report(plan)
    text = (plan.report_folder / "table.tex").read_text()
    assert "Mean over 3 seeds" in text
    assert r"\scriptsize 2 of 3 seeds" in next(r for r in rows_of(text) if r.startswith("DMD"))


def test_what_was_drawn_until_settled_claims_no_correction(
    made: tuple[str, dict[str, Any]],
) -> None:
    text, record = made
    assert "after Holm's correction" in text
    sequential = {"num_comparisons": 3, "metrics": ["prompt_accuracy"], "level": 1 - 0.05 / 3,
                  "block": 50, "margins": {}}  # fmt: skip
    settled = latex({**record, "sequential": sequential})
    assert "Holm" not in settled
    assert "by confidence sequences, which hold together" in settled
