"""A paragraph for a paper: every work that it names has an entry, and every entry is named."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.reporting.citing import (
    OF_BACKENDS,
    OF_METRICS,
    OF_PROMPTS,
    _works,
    bibtex,
    methods_tex,
    works_of_metric,
)
from ddmd_bench.scorers import METRICS, needs_of
from ddmd_bench.suite.files import load_suite

REPORT = Path(__file__).parents[1] / "reports" / "shapes" / "report.json"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.read_text())
    return found


def test_every_key_is_a_work() -> None:
    keys = {key for works in OF_METRICS.values() for key in works}
    assert keys | {*OF_PROMPTS.values()} | {*OF_BACKENDS.values()} <= _works().keys()
    for name in PROMPT_SOURCES:
        assert any(name.startswith(key) for key in OF_PROMPTS), name
    for name, row in _works().items():
        assert re.fullmatch(r"\d{4}\.\d{5}|\d{4}\.\d{4}", row["arxiv"]), name
        # Of the number's own month, or printed in the year after.
        assert int(f"20{row['arxiv'][:2]}") == row["year"], name


def test_what_a_published_network_measures_has_a_work_behind_it() -> None:
    for metric in METRICS:
        if {*needs_of(metric)} - {"prompts", "real images", "images of a run"} and metric not in (
            "diversity",
            "ms_ssim",  # of no arXiv number
        ):
            assert works_of_metric(metric), metric
    assert works_of_metric("fid_dmd2") == ("fid", "clean_fid", "dmd2")
    assert works_of_metric("dpg_bench_blip_vqa_entity") == ("ella", "blip")
    assert works_of_metric("std") == ()


def test_what_is_cited_has_an_entry_and_nothing_else(record: dict[str, Any]) -> None:
    suite = load_suite("sdxl").model_dump(mode="json")
    names = suite["students"]
    large = {
        **record,
        "suite": suite,
        "students": {
            name: {**row, "facts": {"num_iterations": 5000}, "title": f"{name} & 100 %"}
            for name, row in names.items()
        },
    }
    for one in (record, large):
        text = methods_tex(one)
        cited = {key for keys in re.findall(r"\\cite\{([^}]*)\}", text) for key in keys.split(",")}
        entries = re.findall(r"@misc\{(\w+),", bibtex(one))
        assert cited == {*entries}
        assert len(entries) == len(set(entries))
        assert not re.search(r"(?<!\\)[%&#_](?!\w*\})", re.sub(r"\\cite\{[^}]*\}", "", text))
    assert "hpsv2" in bibtex(large)
    assert "dmd2" in bibtex(large)
    assert "real images share the prompts alone" in methods_tex(record)


def test_what_was_drawn_until_settled_claims_no_correction(record: dict[str, Any]) -> None:
    assert "by Holm's method" in methods_tex(record)
    untested = [{**row, "p_value": None} for row in record["differences"]]
    sequential = {"num_comparisons": 7, "metrics": ["saturation"], "level": 1 - 0.05 / 7,
                  "block": 50, "margins": {},
                  "images": {"real": 0, "dmd": 2100, "ca_only": 1400}}  # fmt: skip
    text = methods_tex({**record, "differences": untested, "sequential": sequential})
    assert not re.search("Holm|-values of the", text)
    assert "7 comparisons were to be settled, on Saturation: they hold together with 95" in text
    assert "-values of the" not in methods_tex({**record, "differences": untested})
    # Not what the suite has at most: drawing ended early.
    assert "on up to " in text
    assert "1,400 to 2,100 images of each;" in text


def test_students_of_other_batches_are_told(record: dict[str, Any]) -> None:
    assert "updates of 32 samples." in methods_tex(record)
    changed = copy.deepcopy(record)
    changed["suite"]["students"]["ca_only"]["train"] = {"batch_size": 64}
    assert "updates of 32 and 64 samples." in methods_tex(changed)
