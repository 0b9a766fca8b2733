"""The README's tables are what the committed reports say, and documents link to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ddmd_bench.files.records import read_json

ROOT = Path(__file__).parents[1]
NAMES = {
    "real scenes": "real",
    "teacher, 32 steps": "teacher_32",
    "teacher, 4 steps": "teacher_4",
}
# Column by column, with the factor that the table has.
COLUMNS = (
    ("prompt_accuracy", 100),
    ("frechet_attributes", 1),
    ("frechet_efficientnet", 1),
    ("saturation", 100),
)


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize(("report", "num_rows"), [("shapes", 9), ("shapes_ablation", 10)])
def test_a_table_has_the_values_of_its_report(report: str, num_rows: int) -> None:
    table = read_json(ROOT / "reports" / report / "report.json")["table"]
    text = (ROOT / "README.md").read_text().split(f"[`reports/{report}`]")[1]
    lines = text.split("|---|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == num_rows
    for line in lines:
        name, *cells = (cell.strip(" `*%") for cell in line.strip("|").split("|"))
        values = table[NAMES.get(name, name)]
        expected = [f"{values[metric]['all']['value'] * k:.1f}" for metric, k in COLUMNS]
        assert cells == expected, name


def anchors_of(document: Path) -> set[str]:
    """What GitHub makes of its headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", document.read_text())
    for path, anchor in links:
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors_of(target), f"{path}#{anchor}"
