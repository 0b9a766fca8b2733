"""Two reports compared: the same differences as within one report, and a refusal where due."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.reporting.between import between, between_markdown
from ddmd_bench.reporting.differences import Difference

REPORT = Path(__file__).parent.parent / "reports" / "shapes_ablation" / "report.json"
NAMES = ("first", "second")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(REPORT.read_text())
    return result


def test_differences_are_those_within_a_report(record: dict[str, Any]) -> None:
    """The committed report's own differences against its baseline, from its files' images; those
    of images may have an interval over prompts too, which is never the narrower one."""
    baseline = record["suite"]["baseline"]
    own = [row for row in record["differences"] if row["student"] == "ca_only"]
    rows = between(record, record, [("ca_only", baseline)])
    assert [row.metric for row in rows] == [row["metric"] for row in own]
    for row, expected in zip(rows, own, strict=True):
        found = row.difference
        assert found.value == pytest.approx(expected["value"], rel=1e-6)
        if expected.get("over", "seeds") == "seeds":
            ends = expected["low"], expected["high"]
            assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)
        else:
            assert expected["low"] <= found.low < found.high <= expected["high"]


def test_the_interval_is_the_paired_t_test_s(record: dict[str, Any]) -> None:
    (row, *_) = between(record, record, [("decoupled_hybrid", "dmd")])
    cells = [record["table"][n]["prompt_accuracy"]["all"] for n in ("decoupled_hybrid", "dmd")]
    a, b = ([cell["by_seed"][str(seed)]["value"] for seed in range(5)] for cell in cells)
    assert row.difference.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert row.values == pytest.approx((np.mean(a), np.mean(b)))


def test_only_shared_seeds_are_compared(record: dict[str, Any]) -> None:
    fewer = copy.deepcopy(record)
    for cell in fewer["table"]["dmd"].values():
        cell["all"]["by_seed"]["0"]["value"] = None
    (row, *_) = between(record, fewer, [("dmd", "dmd")])
    assert sorted(row.difference.by_seed) == [1, 2, 3, 4]
    assert row.difference[:4] == (0.0, 0.0, 0.0, 1.0)
    assert "over the seeds 1, 2, 3, 4 that both have" in between_markdown(
        record, fewer, NAMES, [row]
    )


def test_one_shared_seed_has_no_interval(record: dict[str, Any]) -> None:
    one = copy.deepcopy(record)
    for cell in one["table"]["dmd"].values():
        cell["all"]["by_seed"] = {"3": cell["all"]["by_seed"]["3"]}
    difference: Difference = between(record, one, [("ca_only", "dmd")])[0].difference
    assert np.isnan(difference.low)
    assert difference.missing == "1 seeds in both reports: no interval"


def test_another_protocol_is_refused_with_what_differs(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["fingerprint"] = "0" * 12
    other["protocol"]["resolution"] = 64
    with pytest.raises(BenchError, match=r"resolution: 32 in the first, 64 in the second"):
        between(record, other, [("dmd", "dmd")])


def test_the_command_prints_and_writes_the_table(tmp_path: Path) -> None:
    output = tmp_path / "between.md"
    pair = ["--pair", "decoupled_hybrid=dmd", "--output", str(output)]
    result = CliRunner().invoke(app, ["compare", str(REPORT.parent), str(REPORT), *pair])
    assert result.exit_code == 0, result.output
    assert "| decoupled_hybrid | dmd | Prompt accuracy | 99.2 | 95.2 | +4.1 |" in output.read_text()


def test_equal_reports_are_called_identical(record: dict[str, Any]) -> None:
    pairs = [(name, name) for name in record["table"]]
    rows = between(record, record, pairs)
    text = between_markdown(record, record, NAMES, rows)
    assert f"Identical: all {len(rows)} values are the same on every seed" in text
    assert "|" not in text
    other = copy.deepcopy(record)
    cell = other["table"]["dmd"]["prompt_accuracy"]["all"]["by_seed"]["2"]
    cell["value"] += 1e-9
    other["provenance"]["common"]["device"] = "cuda"
    text = between_markdown(record, other, NAMES, between(record, other, pairs))
    assert f"The same on every seed, and not listed: {len(rows) - 1} of {len(rows)} values" in text
    assert "device: 'cpu' in the first, 'cuda' in the second" in text
    assert text.count("\n| dmd | dmd |") == 1


def test_a_small_p_is_told_as_it_is(record: dict[str, Any], tmp_path: Path) -> None:
    """In a terminal `<` is no entity."""
    pair = ["--pair", "decoupled_hybrid=ca_only"]
    result = CliRunner().invoke(app, ["compare", str(REPORT), str(REPORT), *pair])
    assert "<0.001" in result.output
    assert "&lt;" not in result.output


def test_several_reports_are_one_page(record: dict[str, Any], tmp_path: Path) -> None:
    """Each against the first; a table for each metric that is not the same in both."""
    folders = []
    for k in range(3):
        one = copy.deepcopy(record)
        one["suite"]["name"] = f"<i>report {k}</i>"
        cells = one["table"]["dmd"]["prompt_accuracy"]["all"]["by_seed"]
        for seed, cell in cells.items():
            cell["value"] -= 0.1 * k + (0.001 * int(seed) if k == 2 else 0.0)
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / "report.json").write_text(json.dumps(one))
        folders.append(str(tmp_path / str(k)))
    output = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["compare", *folders, "--output", str(output)])
    assert result.exit_code == 0, result.output
    page = output.read_text()
    assert "<i>" not in page
    assert page.count('<table class="sorted">') == 2
    assert "+10.0" in page
    assert "+20.2" in page
    assert page.count('class="interval"') == 1  # of the same difference on each seed there is none
    alone = CliRunner().invoke(app, ["compare", folders[0]])
    assert alone.exit_code == 2
    assert "name another report" in alone.output


def test_reports_of_one_suite_are_told_by_their_places(
    record: dict[str, Any], tmp_path: Path
) -> None:
    places = []
    for k in range(3):
        one = copy.deepcopy(record)
        for cell in one["table"]["dmd"]["std"]["all"]["by_seed"].values():
            cell["value"] += k
        one["suite"]["name"] = "other" if k == 2 else "same"
        (tmp_path / f"of_{k}").mkdir()
        (tmp_path / f"of_{k}" / "report.json").write_text(json.dumps(one))
        places.append(str(tmp_path / f"of_{k}"))
    for output in (tmp_path / "page.html", tmp_path / "page.md"):
        result = CliRunner().invoke(app, ["compare", *places, "--output", str(output)])
        assert result.exit_code == 0, result.output
        text = output.read_text().replace("\\", "")
        for said in (result.output, text):
            assert f"{places[0]} against {places[1]}" in said
            assert f"{places[0]} against other" in said
            assert "same against" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json", str(REPORT)], "no such report"),
        ([str(REPORT), str(REPORT), "--pair", "dmd"], "expected student=other"),
        ([str(REPORT), str(REPORT), "--pair", "dmd=decoupled_hybird"], "decoupled_hybrid"),
    ],
)
def test_bad_input_says_what_to_do(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["compare", *arguments])
    assert result.exit_code == 2
    assert message in result.output
