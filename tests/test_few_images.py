"""A distance of few images says so in terminal, record and page, and why where it is missing."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from fake_run import make_run, make_suite
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.files.made import LIST, write_list
from ddmd_bench.files.records import mark_done, read_done, read_json, write_json
from ddmd_bench.measuring.few_images import told_of_few

FEW = "of 80 images, fewer than the 200 real images: compares only with values of as many"


@pytest.mark.parametrize(
    ("metric", "n", "num_real", "told"),
    [
        ("precision", 2, 5000, {"missing": "needs 4 images, has 2"}),
        ("kid", 1, 5000, {"missing": "needs 2 images, has 1"}),
        ("fid", 40, 1, {"missing": "needs 2 real images, has 1"}),
        ("fid", 50_000, 50_000, {}),
        ("fid", 30_000, 30_000, {}),
        ("kid", 2_048, 2_048, {}),  # has no bias, so that no number is prescribed
        ("std", 1, 1, {}),
    ],
)
def test_what_few_images_lack(metric: str, n: int, num_real: int, told: dict[str, str]) -> None:
    assert told_of_few(metric, n, 2_048, num_real) == told


def test_a_note_names_all_that_the_images_are_fewer_than() -> None:
    assert told_of_few("fid", 1_000, 2_048, 5_000)["note"] == (
        "of 1,000 images, fewer than the 2,048 features, the 5,000 real images and the 30,000 of "
        "published values: compares only with values of as many"
    )
    assert (
        "fewer than the 10,000 of published values:"
        in (told_of_few("fid_dmd2", 9_999, 2_048, 9_999)["note"])
    )


def test_a_suites_report_says_it_in_record_page_and_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_run(tmp_path, make_suite())
    # One student has but three images with features, and five files of one and the same image.
    scored, drawn = (plan.task(stage, "dmd", 0).folder for stage in ("score", "generate"))
    values = read_json(scored / "aggregates.json")
    few = {"value": None, "low": None, "high": None, "n": 3, "n_expected": 80}
    values["frechet_attributes"]["all"] = few
    write_json(scored / "aggregates.json", values)
    write_list(drawn, {f"images/{k:05d}.png": f"{min(k, 75):064x}" for k in range(80)})
    monkeypatch.setattr("ddmd_bench.reporting.runfiles.refuse_changed", lambda folder: None)
    mark_done(drawn, read_done(drawn) or {}, [LIST])
    monkeypatch.setattr("ddmd_bench.commands.reporting.begun", lambda *suite: nullcontext(plan))
    result = CliRunner().invoke(app, ["report", "fake"])
    assert result.exit_code == 0, result.output
    record = json.loads((plan.report_folder / "report.json").read_text())
    cells = {name: table["frechet_attributes"] for name, table in record["table"].items()}
    assert cells["dmd"]["all"]["missing"] == "needs 6 images, has 3"
    assert cells["ca_only"]["all"]["note"] == FEW
    # Of a prompt set the real images of its own prompts count.
    assert "fewer than the 100 real images" in cells["ca_only"]["new"]["note"]
    assert "note" not in record["table"]["ca_only"]["std"]["all"]
    assert record["students"]["dmd"]["equal_images"] == 4
    assert "equal_images" not in record["students"]["ca_only"]
    titles = {name: student["title"] for name, student in record["students"].items()}
    own = titles.pop("dmd")
    said = [
        f"Fréchet distance (attributes) ({own}): needs 6 images, has 3.",
        f"Fréchet distance (attributes) (all but {own}): {FEW}.",
        f"{own}: 4 images are another's byte for byte, and add nothing.",
    ]
    page = (plan.report_folder / "index.html").read_text()
    markdown = (plan.report_folder / "report.md").read_text()
    for line in said:
        assert line in result.output
        assert line in markdown
        assert f"<li>{line.replace(chr(39), '&#39;')}</li>" in page
    assert '-<small class="warn">needs 6 images, has 3</small>' in page
    assert "| - (needs 6 images, has 3) |" in markdown
