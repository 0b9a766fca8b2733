"""What a suite or a prompt may say does nothing where a report is opened."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fake_run import make_run, make_suite
from markdown_it import MarkdownIt

from ddmd_bench.reporting import ci
from ddmd_bench.reporting.between import between, between_markdown
from ddmd_bench.reporting.checked import Checked, Held, lines_of
from ddmd_bench.reporting.html import pages
from ddmd_bench.reporting.power import power_markdown
from ddmd_bench.reporting.tables import csv_text, markdown_table
from ddmd_bench.reporting.worst import Worst
from ddmd_bench.stages.report import report


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers(start: str) -> None:
    text = start + "HYPERLINK(1)"
    (row,) = csv.DictReader(io.StringIO(csv_text(["a", "b"], [{"a": text, "b": -1.5}]), newline=""))
    assert row == {"a": f"'{text}".replace("\r", " "), "b": "-1.5"}


def test_a_cell_of_markdown_opens_no_tag_and_no_column() -> None:
    table = markdown_table(["a"], [["<script>|\n|"]])
    assert "<" not in table
    assert table.splitlines()[-1] == "| &lt;script>\\| \\| |"


# What a suite or a prompt may say, each in the place of a title.
HOSTILE = {
    "formula": "=HYPERLINK(1)",
    "tag": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "reversed": "safe\u202egpj.exe\u2066",
    "long": "word " * 400,
    "picture": "![seen](https://example.org/seen.png) [link](javascript:alert(3))",
    "code": "`a` *b* _c_ ~~d~~ $e$ **f** &lt;g&gt; \\h",
    "heading": "# heading",
    "list": "1. first - second",
    "row": "a | b |\n| c",
    "command": "x\n::error::from a prompt\r::add-mask::y",
    "terminal": "\x1b[2J\x07\x9b2J\x00",
    "template": "{{ 7 * 7 }} {% raw %}",
    "star": "* \\input{/etc/passwd} [x]",
    "end": "]]> --> </td></table>",
}
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The report of a run whose students are called so, and its record."""
    names = ["real", "teacher", "dmd", "decoupled_hybrid", "ca_only"]
    students = make_suite().model_dump(mode="json", exclude_unset=True)["students"]
    rows = {}
    for k, (key, title) in enumerate(HOSTILE.items()):
        rows[key if k >= len(names) else names[k]] = {**students["dmd"], "title": title}
    for name in ("real", "teacher"):
        rows[name] = {**students[name], "title": rows[name]["title"]}
    text = "\n".join(HOSTILE.values())
    suite = make_suite(claim_rows=[], title=text, description=text, students=rows)
    plan = make_run(tmp_path_factory.mktemp("run"), suite)
    (plan.task("score", "star", 0).folder / "done.json").unlink()
    return plan.report_folder, report(plan)


def rendered(text: str) -> str:
    """As GitHub shows it, by a parser of its Markdown."""
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def test_no_file_of_a_report_holds_what_cannot_be_seen(
    written: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = written
    files = [path for path in folder.iterdir() if path.suffix in (".md", ".csv", ".tex", ".html")]
    assert len(files) == 8
    for path in files:
        assert not UNSEEN.search(path.read_bytes().decode()), path
    for name in ("index.html", "report.md", "table.csv", "table.tex"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "u202egpj.exe" in text, "shown by its number"


def test_the_page_lets_its_own_script_run_and_nothing_else(
    written: tuple[Path, dict[str, Any]],
) -> None:
    """A browser hashes what stands between the tags: so is the policy's hash, of one script."""
    page = (written[0] / "index.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;;" in page
    template = Path(pages.__file__).with_name(pages.TEMPLATE).read_text(encoding="utf-8")
    assert not re.search(r"\son[a-z]+=", template), "a handler in an attribute would not run"


def test_the_page_shows_titles_as_they_are(written: tuple[Path, dict[str, Any]]) -> None:
    page = (written[0] / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "{{ 7 * 7 }}" in page
    assert page.count("</table>") == page.count("<table")


def test_markdown_shows_titles_as_they_are(written: tuple[Path, dict[str, Any]]) -> None:
    folder, record = written
    texts = {
        "report": (folder / "report.md").read_text(encoding="utf-8"),
        "power": power_markdown(record, "prompt_accuracy", 1),
        "between": between_markdown(
            record,
            record,
            (HOSTILE["tag"], HOSTILE["list"]),
            between(record, record, [("dmd", "ca_only")]),
        ),
    }
    for name, text in texts.items():
        page = rendered(text)
        assert not re.search(r"<(script|img|a|em|strong|s|ol)\b", page), name
    shown = html.unescape(rendered(texts["report"]))
    for key in ("formula", "tag", "picture", "code", "list", "template", "end"):
        assert f"<td>{HOSTILE[key]}" in shown
    assert shown.count("<h1>") == 1


def test_latex_reads_no_command_of_a_title(written: tuple[Path, dict[str, Any]]) -> None:
    text = (written[0] / "table.tex").read_text(encoding="utf-8")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == len(HOSTILE)
    # A star or a bracket after a line's end would belong to it.
    assert not [row for row in body if row.startswith(("*", "["))]
    assert r"\input" not in text
    assert text.count(r"\end{tabular}") == text.count(r"\begin{tabular}")


def test_no_cell_of_a_reports_csv_is_a_formula(written: tuple[Path, dict[str, Any]]) -> None:
    with (written[0] / "table.csv").open(newline="", encoding="utf-8") as file:
        titles = {row["student"]: row["title"] for row in csv.DictReader(file)}
    assert len(titles) == len(HOSTILE)
    assert not [t for t in titles.values() if t.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    (row,) = csv.DictReader(io.StringIO(csv_text(["a"], [{"a": "\uff1d1+1"}])))
    assert row == {"a": "'\uff1d1+1"}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_ci_reads_is_no_command(text: str) -> None:
    held = [Held("metrics", f"dmd, {text}", "failed", text, 2.0)]
    found = Checked("worse", held, [text], (Worst("dmd", "seen/0", text, "0, was 1", {}),))
    root = ElementTree.fromstring(ci.junit(found, "mine").encode())
    (case,) = root.iter("testcase")
    assert not UNSEEN.search("".join(root.itertext()) + (case.get("name") or ""))
    page = rendered(ci.summary(found, "mine"))
    assert not re.search(r"<(script|img|a|em|strong|s|code)\b", page)
    assert page.count("<tr>") == 4
    assert page.count("<h2>") == 1
    (line,) = ci.workflow_commands(found, "mine")
    lines = [line, *lines_of(found)]
    assert len(lines) == 5
    for one in lines:
        assert "\n" not in one
        assert not UNSEEN.search(one)
    # A runner takes a line that begins so for a command.
    assert not [one for one in lines[1:] if one.lstrip().startswith("::")]
    assert len(lines[2]) < 400
