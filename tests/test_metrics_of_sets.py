"""Metrics that are for some prompt sets alone: table, differences and keys are of those prompts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import make_run, make_suite
from settling_runs import TEACHER, do_here

from ddmd_bench.files.records import read_json
from ddmd_bench.measuring.aggregates import counted, values_of
from ddmd_bench.measuring.per_image import per_image_table
from ddmd_bench.measuring.sheets import Answer
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.reporting.differences import make_compare
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import RunFiles, load_run
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.dpg_score import share_column
from ddmd_bench.stats.intervals import mean_interval
from ddmd_bench.suite.schema import Suite

OF_ALL = ["prompt_accuracy", "frechet_attributes", "saturation", "std"]
OF_VARIETY = ["diversity", "distance_efficientnet"]
SUITE: dict[str, Any] = {
    "name": "sets",
    "title": "Sets",
    "backend": "shapes",
    "prompts": {
        "seen": {"source": "shapes/seen", "num_prompts": 140, "metrics": OF_ALL,
                 "images_per_prompt": 1},
        # Prompts of another kind, whose images look otherwise.
        "variety": {"source": "shapes/held_out", "num_prompts": 8, "metrics": OF_VARIETY,
                    "images_per_prompt": 3},
    },
    "students": {
        "two": TEACHER,
        "one": {**TEACHER, "num_inference_steps": 1},
    },
    "baseline": "two",
    "metrics": [*OF_ALL, *OF_VARIETY],
    "reference": {"images_per_prompt": 2},
}  # fmt: skip


def plan_of(folder: Path, **changes: Any) -> Plan:
    suite = Suite.model_validate({**SUITE, **changes})
    return make_plan(suite, folder / "runs", folder / "reports")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A whole run of two students that need no training."""
    plan = plan_of(tmp_path_factory.mktemp("sets"))
    for stage in ("reference", "generate", "score"):
        do_here(plan, plan.of_stage(stage), None)
    return plan


@pytest.fixture(scope="module")
def run(plan: Plan) -> RunFiles:
    return load_run(plan)


@pytest.fixture(scope="module")
def table(run: RunFiles) -> dict[str, Any]:
    found: dict[str, Any] = build_record(run)["table"]
    return found


@pytest.mark.parametrize("metric", [*OF_ALL, *OF_VARIETY])
def test_a_difference_is_that_of_the_table(
    run: RunFiles, table: dict[str, Any], metric: str
) -> None:
    one, two = (table[name][metric]["all"] for name in ("one", "two"))
    asked, other = ("seen", "variety") if metric in OF_ALL else ("variety", "seen")
    same, none = (table["one"][metric][name] for name in (asked, other))
    assert (one["value"], one["n"]) == (same["value"], same["n"])
    assert (none["value"], none["n"], none["n_expected"]) == (None, 0, 0)
    found = make_compare(run)(metric, "one", "two")
    assert found.value == pytest.approx(
        one["value"] - two["value"], abs=1e-6
    )  # records are rounded
    assert found.n == one["n"] == one["n_expected"] == (140 if metric in OF_ALL else 8)
    assert math.isfinite(found.low)


@pytest.mark.long
def test_a_distance_compares_with_real_images_of_its_own_prompts(plan: Plan) -> None:
    both = plan_of(plan.runs.parent, prompts={"seen": {**SUITE["prompts"]["seen"]}},
                   metrics=OF_ALL, seeds=[0])  # fmt: skip
    for stage in ("reference", "generate", "score"):
        do_here(both, both.of_stage(stage), None)
    for student in ("one", "two"):
        with_variety, alone = (
            read_json(p.task("score", student, 0).folder / "aggregates.json") for p in (plan, both)
        )
        for metric in OF_ALL:
            assert with_variety[metric]["seen"] == alone[metric]["seen"]
            assert with_variety[metric]["all"] == alone[metric]["all"]


def test_which_metrics_a_set_has_is_part_of_the_question(tmp_path: Path) -> None:
    def keys(**prompts: Any) -> tuple[str, str]:
        plan = plan_of(tmp_path, prompts={**SUITE["prompts"], **prompts})
        return plan.task("score", "one", 0).key, plan.fingerprint

    seen = SUITE["prompts"]["seen"]
    assert keys() == keys(seen={**seen, "metrics": OF_ALL[::-1]})
    for changed in ({**seen, "metrics": OF_ALL[1:]}, {**seen, "metrics": None}):
        assert not {*keys()} & {*keys(seen=changed)}


def test_a_metric_of_prompts_wants_several_images_of_one(tmp_path: Path) -> None:
    few = {**SUITE["prompts"]["variety"], "images_per_prompt": 1}
    with pytest.raises(Exception, match="diversity compares the images of one prompt, and each"):
        plan_of(tmp_path, prompts={**SUITE["prompts"], "variety": few})


def test_a_prompt_has_its_value_whichever_image_is_missing() -> None:
    rows = [
        {"prompt_id": f"p/{k // 3}", "prompt_set": "p", "image_index": k % 3, "out_of_range": 0.0}
        for k in range(6)
    ]
    for lost in range(6):  # the first of its prompt among them
        values = np.array([1.0, 1, 1, 2, 2, 2])
        values[lost] = math.nan
        table = per_image_table(rows, ["diversity"], {"images": Answer(6, {"diversity": values})})
        assert table["diversity"][counted("diversity", table, "all")].tolist() == [1, 2]


def test_a_difference_weighs_images_as_the_mean_does(tmp_path: Path) -> None:
    metric = share_column("dpg_bench_blip_vqa", "entity")
    run = load_run(make_run(tmp_path, make_suite([], metrics=["std", metric])))
    means = {}
    for name in ("dmd", "ca_only"):
        (files,) = run.students[name].values()
        assert files.per_image is not None
        # Twelve questions about one prompt in four, one about the others.
        numbers = np.where(files.per_image["prompt_id"].str[-1].isin(["0", "4", "8"]), 12.0, 1.0)
        files.per_image[METRICS[metric].counts or ""] = numbers
        files.per_image.loc[0, metric] = math.nan if name == "dmd" else 1.0
        values, groups = values_of(metric, files.per_image, np.arange(len(numbers)) > 0)
        means[name] = mean_interval(values, groups, (0, 1))
    found = make_compare(run)(metric, "ca_only", "dmd")
    assert found.value == pytest.approx(means["ca_only"].value - means["dmd"].value, abs=1e-12)
    assert found.n == means["dmd"].n
