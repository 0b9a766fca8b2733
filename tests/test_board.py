"""A board: one table for each protocol, sorted by any column, each student a link to its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from browsers import needs_browser, started, violations, watched
from fake_run import MALICIOUS, make_run, make_suite
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.reporting.board import board, read_reports
from ddmd_bench.stages.report import report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three reports: two of one protocol, one of another, and one that is cut."""
    reports = tmp_path_factory.mktemp("reports")
    for name, protocol in (("first", "a"), ("second", "a"), ("third", "b")):
        plan = make_run(tmp_path_factory.mktemp(name), make_suite())
        record = report(plan)
        target = reports / name
        shutil.copytree(plan.report_folder, target)
        record["fingerprint"] = protocol
        record["students"]["dmd"]["title"] = f"{name} {MALICIOUS}"
        (target / "report.json").write_text(json.dumps(record))
    (reports / "cut").mkdir()
    (reports / "cut" / "report.json").write_text("{")
    return reports


def test_only_what_shares_a_protocol_stands_in_one_table(folder: Path) -> None:
    reports, problems = read_reports(folder)
    tables = board(reports)
    assert [table.fingerprint for table in tables] == ["a", "b"]
    assert {cell[1].shown for cell in tables[0].rows} == {"first", "second"}
    assert len(tables[0].rows) == 2 * 5
    assert len(problems) == 1
    assert "cut" in problems[0]


def test_a_value_of_fewer_seeds_or_images_says_so(folder: Path) -> None:
    """Beside its interval; an early report, which does not say what was expected, as it was."""
    record = read_reports(folder)[0]["first"]
    cells = record["table"]
    cells["dmd"]["std"]["all"] |= {"n_seeds": 2, "n_seeds_expected": 3}
    cells["ca_only"]["std"]["all"] |= {"n": 70, "n_expected": 80}
    for name in ("n_expected", "n_seeds", "n_seeds_expected"):
        cells["teacher"]["std"]["all"].pop(name)
    (table,) = board({"first": record})
    column = 2 + record["suite"]["metrics"].index("std")
    beside = [row[column].beside for row in table.rows]  # in the suite's order
    assert beside[2].endswith(", 2 of 3 seeds")
    assert beside[4].endswith(", n 70 of 80")
    assert all("of" not in beside[k] for k in (0, 1, 3))


def test_the_command_writes_it_where_asked(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["board", str(folder), "--output", str(tmp_path / "b.html")])
    assert result.exit_code == 0, result.output
    assert "15 students of 3 reports, 2 protocols" in result.output
    page = (tmp_path / "b.html").read_text()
    assert "<script>alert" not in page
    empty = CliRunner().invoke(app, ["board", str(tmp_path)])
    assert empty.exit_code == 2
    assert "holds no reports" in empty.output


@pytest.mark.long
@needs_browser
def test_a_title_sorts_and_a_name_leads_to_its_report(folder: Path) -> None:
    CliRunner().invoke(app, ["board", str(folder)])
    with started() as browser:
        page: Any = watched(browser.new_context(viewport={"width": 1100, "height": 800}))
        page.goto((folder / "board.html").as_uri())
        assert violations(page) == []
        table = page.locator("table.sorted").first
        button = table.locator("thead button", has_text="Prompt accuracy")

        def values() -> list[float]:
            cells = table.locator("tbody tr td:nth-child(3)").all_inner_texts()
            return [float(text.split()[0]) for text in cells]

        button.click()
        assert values() == sorted(values(), reverse=True)  # the best first
        button.press("Enter")
        assert values() == sorted(values())
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        table.locator("tbody th a").first.click()
        page.wait_for_selector("#glance")
        assert page.wrong == []
