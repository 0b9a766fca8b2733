"""The record's tables as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from ddmd_bench.reporting import notes
from ddmd_bench.reporting.agreement import RULE, correlation_table, sentences
from ddmd_bench.reporting.claims.judging import rules_of
from ddmd_bench.reporting.claims.words import claim_result
from ddmd_bench.reporting.escaping import all_in_markdown, in_markdown, visible
from ddmd_bench.reporting.literature_view import literature_view
from ddmd_bench.reporting.numbers import (
    MISSING,
    heading,
    interval_shown,
    metric_shown,
    p_shown,
    shown,
)
from ddmd_bench.reporting.seeds import fewer_than_expected, shortfall
from ddmd_bench.reporting.sequential import TITLE, limits, said
from ddmd_bench.reporting.sequential import rows as rows_settled
from ddmd_bench.reporting.summary import summary
from ddmd_bench.scorers import METRICS

DIFFERENCE_COLUMNS = (
    "student", "baseline", "metric", "value", "low", "high", "over", "p_value", "p_holm", "least",
    "n", "wins", "wins_low", "wins_high", "outcome", "why", "missing", "n_seeds",
    "n_seeds_expected",
)  # fmt: skip
_DIFFERENCES = (
    "student", "metric", "difference", "95 % interval", "could show", "p", "wins", "outcome",
)  # fmt: skip
CLAIM_COLUMNS = (
    "verdict", "text", "claim", "student", "other", "metric", "series", "margin", "paper", "value",
    "low", "high", "over", "why", "note",
)  # fmt: skip


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV; a missing value is an empty cell, and no text is a spreadsheet's formula."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


# Their wide forms too, which a spreadsheet takes for them where those are in use.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet would compute stands behind an apostrophe (OWASP: CSV injection).

    A lone carriage return, which the writer does not quote, would begin a row.
    """
    if not isinstance(value, str):
        return value
    one_row = visible(value.replace("\r", " "))
    return f"'{one_row}" if value.startswith(_FORMULA) else one_row


def table_csv(record: dict[str, Any]) -> str:
    """One line for each student, metric and group, values raw."""
    columns = (
        "student", "title", "metric", "group", "value", "low", "high", "n", "n_expected", "n_seeds",
        "n_seeds_expected",
    )  # fmt: skip
    return csv_text(
        columns,
        (
            {
                "student": name,
                "title": record["students"][name]["title"],
                "metric": metric,
                "group": group,
                **cell,
            }
            for name, metrics in record["table"].items()
            for metric, groups in metrics.items()
            for group, cell in groups.items()
        ),
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table; bars and line ends inside a cell are neutralised."""

    def line(cells: Sequence[str]) -> str:
        safe = (c.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for c in cells)
        return "| " + " | ".join(safe) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *map(line, rows)]) + "\n"


def _cell(metric: str, cell: dict[str, Any]) -> str:
    if cell.get("value") is None:
        return f"{MISSING} ({why})" if (why := cell.get("missing")) else MISSING
    interval = interval_shown(metric, cell["low"], cell["high"])
    counted = f", {fewer}" if (fewer := fewer_than_expected(cell)) else ""
    text = metric_shown(metric, cell["value"])
    return f"{text} ({interval}{counted})" if interval != MISSING or counted else text


def _agreement(record: dict[str, Any]) -> list[str]:
    """The parts of the section on the metrics' agreement; none where fewer than two have it."""
    header, rows = correlation_table(record)
    if not rows:
        return []
    return ["## Agreement of the metrics", RULE, markdown_table(header, rows), *sentences(record)]


def _settled(record: dict[str, Any]) -> list[str]:
    """The parts of the section on what was drawn; none where all was."""
    header, rows = rows_settled(record)
    return [f"## {TITLE}", markdown_table(header, rows)] if rows else []


def _literature(record: dict[str, Any]) -> list[str]:
    """The parts of the section on the literature's values; none where the suite names no table."""
    view = literature_view(record)
    parts = ["## Values from the literature", notes.LITERATURE] if view else []
    for table in view:
        rows = [
            [
                f"{row['title']} / {row['label']}",
                _with_note(head["title"], head["note"]),
                _with_note(cell["ours"], cell["ours_note"]),
                _with_note(cell["theirs"], cell["theirs_note"]),
            ]
            for row in table["rows"]
            for head, cell in zip(table["header"].values(), row["cells"], strict=True)
        ]
        parts += [
            f"### {table['title']}",
            f"{table['source']}.",
            markdown_table(["student / published as", "metric", "here", "published"], rows),
            "\n".join(f"- {note}" for note in table["notes"]),
            table["differences_title"],
            "\n".join(f"- {d['title']}: {d['text']}" for d in table["differences"]),
        ]
    return parts


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text


def _for_markdown(record: dict[str, Any]) -> dict[str, Any]:
    """The record with what people have written as Markdown shows it."""
    suite = record["suite"]
    title, description = " ".join(suite["title"].split()), suite["description"]
    texts = {"title": in_markdown(title), "description": in_markdown(description)}
    parts = ("students", "claims", "differences")
    told = {part: all_in_markdown(record[part]) for part in parts}
    return {**record, **told, "suite": {**suite, **texts}}


def markdown(record: dict[str, Any]) -> str:
    """The report to read in a terminal or a pull request."""
    record = _for_markdown(record)
    students, suite = record["students"], record["suite"]
    commit = record["provenance"]["common"].get("commit")
    metrics, num_seeds = suite["metrics"], len(suite["seeds"])
    header = ["student", *map(heading, metrics)]
    table = [
        [s["title"] + (f" ({s['missing']})" if s["missing"] else "")]
        + [_cell(m, record["table"][name].get(m, {}).get("all", {})) for m in metrics]
        for name, s in students.items()
    ]
    differences = [
        [
            students[d["student"]]["title"],
            METRICS[d["metric"]].title,
            metric_shown(d["metric"], d["value"], sign=True),
            interval_shown(d["metric"], d["low"], d["high"], sign=True),
            metric_shown(d["metric"], d["least"]),
            p_shown(d["p_holm"]),
            shown(None if d["wins"] is None else 100 * d["wins"], 0),
            d["missing"]
            or ", ".join(
                filter(
                    None, [d["outcome"], d["why"], shortfall(d["n_seeds"], d["n_seeds_expected"])]
                )
            ),
        ]
        for d in record["differences"]
    ]
    claims = [
        [c["verdict"], c["text"], claim_result(c, num_seeds), c["paper"]] for c in record["claims"]
    ]
    rules = rules_of({c["claim"] for c in record["claims"]}, num_seeds)
    told = said(record)
    above = " ".join(filter(None, [told["differences"], told["could_show"], told["family"]]))
    parts = [
        f"# {suite['title']}",
        suite["description"],
        " ".join(summary(record)),
        "## Values",
        f"{told['values']} {notes.directions(suite)}",
        markdown_table(header, table),
        f"## Differences to {students[suite['baseline']]['title']}",
        f"{above} {notes.WINS}",
        markdown_table(
            _DIFFERENCES,
            differences,
        ),
        *_settled(record),
        *_agreement(record),
        "## Claims",
        markdown_table(["verdict", "claim", "result", "paper"], claims),
        "\n".join(f"- `{kind}`: {rule}" for kind, rule in rules.items()),
        f"{told['claim']} {notes.gating(suite)}" if claims else notes.gating(suite),
        *_literature(record),
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits(record)),
        "## Provenance",
        f"Fingerprint `{record['fingerprint']}`, commit `{commit}`; the rest is in `report.json`.",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
