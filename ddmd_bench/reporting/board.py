"""A board over many reports: what shares a protocol in one table, and nothing else beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.reporting.html.templates import content_policy, environment, script_of
from ddmd_bench.reporting.numbers import heading, interval_shown, metric_shown
from ddmd_bench.reporting.saved import read_report
from ddmd_bench.reporting.seeds import fewer_than_expected
from ddmd_bench.scorers import METRICS

TEMPLATE, SCRIPTS = "board.html.j2", ("tables.js",)


class Cell(NamedTuple):
    """What is shown, and by what it is sorted; None stands last."""

    shown: str
    beside: str = ""
    order: float | str | None = None


class Table(NamedTuple):
    """Students of all reports of one protocol."""

    fingerprint: str
    protocol: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    links: list[str]  # of each row, the report's page as seen from their folder


def read_reports(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Reports in a folder's folders by name, and why others cannot be read."""
    found, problems = {}, []
    for file in sorted(folder.glob("*/report.json")):
        try:
            found[file.parent.name] = read_report(file)
        except BenchError as error:
            problems.append(said_by(error))
    if not found:
        raise BenchError(f"{folder}: holds no reports. Expected NAME/report.json in it")
    return found, problems


def board(reports: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """A table for each protocol, those with most students first."""
    alike: dict[str, list[str]] = {}
    for name, record in reports.items():
        alike.setdefault(record["fingerprint"], []).append(name)
    tables = [_table({name: reports[name] for name in names}) for names in alike.values()]
    return sorted(tables, key=lambda table: -len(table.rows))


def _table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    first = next(iter(reports.values()))
    metrics = list(dict.fromkeys(m for r in reports.values() for m in r["suite"]["metrics"]))
    rows, links = [], []
    for name, record in reports.items():
        for student, row in record["students"].items():
            values = [_value(record, student, metric) for metric in metrics]
            if any(cell.order is not None for cell in values):
                cost = row["facts"].get("network_evaluations")
                seeds = len(record["suite"]["seeds"])
                rows.append(
                    [
                        Cell(row["title"], "", row["title"].casefold()),
                        Cell(name, "", name.casefold()),
                        *values,
                        Cell("-" if cost is None else f"{cost:,}", "", cost),
                        Cell(str(seeds), "", seeds),
                    ]
                )
                links.append(f"{name}/index.html")
    header = ("Student", "Report", *map(heading, metrics), "Network evaluations", "Seeds")
    return Table(first["fingerprint"], ", ".join(_told(first["protocol"])), header, rows, links)


def _value(record: Mapping[str, Any], student: str, metric: str) -> Cell:
    cell = record["table"][student].get(metric, {}).get("all", {})
    value = cell.get("value")
    if value is None:
        return Cell("-")
    ends = interval_shown(metric, cell.get("low"), cell.get("high"))
    beside = ", ".join(filter(None, ["" if ends == "-" else ends, fewer_than_expected(cell)]))
    # Sorted once, the best come first.
    order = -value if METRICS[metric].better == "higher" else value
    return Cell(metric_shown(metric, value), beside, order)


def _told(protocol: Mapping[str, Any]) -> Iterator[str]:
    """The protocol's short facts."""
    for key, value in protocol.items():
        if isinstance(value, str | int | float) and len(str(value)) < 60:
            yield f"{key} {value}"


def board_page(tables: Sequence[Table], problems: Sequence[str], folder: str = ".") -> str:
    """The page, whole in itself; folder: of the reports, as seen from the page."""
    script = script_of(SCRIPTS)
    template = environment().get_template(TEMPLATE)
    policy = content_policy(script)
    return template.render(
        tables=tables, problems=problems, folder=folder, script=script, policy=policy
    )
