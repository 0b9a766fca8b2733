"""What a suite or a prompt may say does nothing where a report is opened."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from pathlib import Path

import pytest

from ddmd_bench.reporting import pages
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


def test_the_page_lets_its_own_script_run_and_nothing_else() -> None:
    """A browser hashes what stands between the tags: so is the policy's hash, of one script."""
    template = Path(pages.__file__).with_name(pages.TEMPLATE).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)
    assert "{{" not in script, "what is filled in would change the hash"
    assert "{%" not in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in pages.content_policy(template)
    assert not re.search(r"\son[a-z]+=", template), "a handler in an attribute would not run"
