r"""The table of values for a paper: \input{table.tex} after \usepackage{booktabs}."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import Any

from ddmd_bench.reporting import notes
from ddmd_bench.reporting.escaping import visible
from ddmd_bench.reporting.numbers import MISSING, heading, interval_shown, metric_shown
from ddmd_bench.reporting.seeds import fewer_than_expected
from ddmd_bench.reporting.sequential import said

MARK = "(+)"  # in a caption, until it is LaTeX
_NOT_TOLD = f"{MARK} not told from the baseline, after Holm's correction."
_NOT_SETTLED = (
    f"{MARK} not told from the baseline by confidence sequences, which hold together with 95 %."
)
UNDECIDED = r"$^\dagger$"
LINE = 16  # characters of a heading before it is broken
ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\u2212": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≈": r"$\approx$",
    "\n": " ",
    # At the start of a row it would be read as the argument of the line break before it.
    "[": "{[}",
    "]": "{]}",
    # Nor is it the other form of that line break.
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Text in which no character is a command."""
    return re.sub("|".join(map(re.escape, ESCAPES)), lambda found: ESCAPES[found[0]], visible(text))


def latex(record: dict[str, Any]) -> str:
    """Every student on every metric of the suite, with its interval; the best student in bold."""
    suite, students = record["suite"], record["students"]
    metrics = suite["metrics"]
    rows = [
        " & ".join([escaped(s["title"]), *(_cell(record, name, m) for m in metrics)])
        for name, s in students.items()
    ]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(_caption(record)).replace(MARK, UNDECIDED)}}}",
        rf"\label{{tab:{suite['name']}}}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(["Student", *(_broken(heading(m)) for m in metrics)]) + r" \\",
        r"\midrule",
        *(rf"{row} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(record: dict[str, Any]) -> str:
    missing = [f"{s['title']} {s['missing']}" for s in record["students"].values() if s["missing"]]
    not_told = _NOT_SETTLED if "sequential" in record else _NOT_TOLD
    parts = [
        f"{record['suite']['title']}.",
        said(record)["values"],
        f"{notes.directions(record['suite'])} Bold: the best trained student.",
        not_told if _undecided(record) else "",
        f"Missing: {'; '.join(missing)}." if missing else "",
    ]
    return " ".join(filter(None, parts))


def _cell(record: dict[str, Any], student: str, metric: str) -> str:
    cell = record["table"][student][metric]["all"]
    if cell["value"] is None:
        return "--"
    value = escaped(metric_shown(metric, cell["value"]))
    if (student, metric) in _undecided(record):
        value += UNDECIDED
    if _leads(record, student, metric):
        value = rf"\textbf{{{value}}}"
    interval = interval_shown(metric, cell["low"], cell["high"])
    below = ["" if interval == MISSING else interval, fewer_than_expected(cell)]
    lines = [value, *(rf"\scriptsize {escaped(text)}" for text in below if text)]
    # Its first line stands level with the student's name.
    return r"\begin{tabular}[t]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _undecided(record: dict[str, Any]) -> set[tuple[str, str]]:
    """Students and metrics whose difference to the baseline was not told from none."""
    rows = record["differences"]
    return {(d["student"], d["metric"]) for d in rows if d["outcome"] == "undecided"}


def _leads(record: dict[str, Any], student: str, metric: str) -> bool:
    """Whether a trained student has the best value, alone or with others."""
    best, table = record["best"][metric], record["table"]
    if best is None or record["students"][student]["source"] != "train":
        return False
    value, lead = (table[name][metric]["all"]["value"] for name in (student, best))
    return bool(value == lead)


def _broken(text: str) -> str:
    """A column's heading in short lines above each other."""
    return r"\shortstack[r]{" + r" \\ ".join(map(escaped, wrap(text, LINE))) + "}"
