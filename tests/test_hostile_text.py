"""What a suite or a prompt may say does nothing where a report is opened."""

from __future__ import annotations

import csv
import io

import pytest

from ddmd_bench.reporting.tables import csv_text, markdown_table


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers(start: str) -> None:
    text = start + "HYPERLINK(1)"
    (row,) = csv.DictReader(io.StringIO(csv_text(["a", "b"], [{"a": text, "b": -1.5}]), newline=""))
    assert row == {"a": f"'{text}".replace("\r", " "), "b": "-1.5"}


def test_a_cell_of_markdown_opens_no_tag_and_no_column() -> None:
    table = markdown_table(["a"], [["<script>|\n|"]])
    assert "<" not in table
    assert table.splitlines()[-1] == "| &lt;script>\\| \\| |"
