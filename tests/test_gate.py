"""A student beside a baseline's: each change has the verdict that it should have."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_run import make_run, make_suite
from PIL import Image
from pydantic import ValidationError

from ddmd_bench.errors import BenchError, NotRun
from ddmd_bench.files.decoding import Unusable
from ddmd_bench.planning.plan import Plan
from ddmd_bench.reporting import gate
from ddmd_bench.reporting.baselines import Baseline
from ddmd_bench.reporting.checked import Checked
from ddmd_bench.reporting.defects import defects_of
from ddmd_bench.reporting.runfiles import RunFiles, load_run
from ddmd_bench.stages.score import _images
from ddmd_bench.stats.intervals import paired_difference
from ddmd_bench.suite.gate import Margin

GATE = {
    "prompt_accuracy": {"margin": 0.15},
    "saturation": {"spreads": 0.6},
    "frechet_attributes": {"share": 0.6},
}
Change = Callable[[Path], None]  # of a student's files in a run's folder


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_run(tmp_path_factory.mktemp("old"), make_suite(gate=GATE))


@pytest.fixture(scope="module")
def baseline(plan: Plan) -> Baseline:
    return Baseline.of(load_run(plan))


def changed(plan: Plan, folder: Path, change: Change | None) -> RunFiles:
    """A copy of the run with the files of `decoupled_hybrid` changed."""
    shutil.copytree(plan.runs, folder)
    if change is not None:
        change(folder)
    moved = {
        name: task.__class__(
            **{**vars(task), "folder": folder / task.folder.relative_to(plan.runs)}
        )
        for name, task in plan.tasks.items()
    }
    return load_run(Plan(**{**vars(plan), "tasks": moved, "runs": folder}))


def rescore(columns: Callable[[pd.DataFrame], dict[str, Any]]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "score/decoupled_hybrid-0/per_image.parquet"
        table = pd.read_parquet(path)
        table.assign(**columns(table)).to_parquet(path)

    return change


def noise(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def another_seed(table: pd.DataFrame) -> dict[str, Any]:
    """The same student in other noise: 3 images in 80 are right that were wrong and 3 wrong."""
    right = table["prompt_accuracy"].to_numpy().copy()
    right[np.flatnonzero(right)[:3]], right[np.flatnonzero(right == 0)[:3]] = 0.0, 1.0
    return {"prompt_accuracy": right, "saturation": table["saturation"] + 0.01 * noise(len(table))}


def fewer_updates(table: pd.DataFrame) -> dict[str, Any]:
    """Every third image that was right is wrong."""
    right = table["prompt_accuracy"].to_numpy().copy()
    right[np.flatnonzero(right)[::3]] = 0.0
    return {"prompt_accuracy": right}


def swapped_prompts(table: pd.DataFrame) -> dict[str, Any]:
    """Images that belong to other prompts are right by chance alone."""
    return {"prompt_accuracy": (np.arange(len(table)) % 20 == 0).astype(float)}


def black(folder: Path) -> None:
    """What a network of half precision leaves where it overflows."""
    images = sorted((folder / "generate/decoupled_hybrid-0/images").glob("*.png"))
    for path in images[:5]:
        Image.new("RGB", (32, 32)).save(path)
    path = folder / "score/decoupled_hybrid-0/features_attributes.npy"
    features = np.load(path)
    features[:5] = np.nan  # as the scorers leave them
    np.save(path, features)


def verdict(run: RunFiles, baseline: Baseline) -> Checked:
    return gate.against_baseline(run, baseline, [("decoupled_hybrid", "decoupled_hybrid")])


def failed(found: Checked) -> set[str]:
    return {one.name.split(", ")[-1] for one in found.failed}


def test_a_student_is_not_worse_than_itself(plan: Plan, baseline: Baseline, tmp_path: Path) -> None:
    found = verdict(changed(plan, tmp_path / "run", None), baseline)
    assert found.status == "ok"
    # Of answers that all tie so few prompts leave open what unseen ones would say.
    reached = {one.name.split(", ")[-1]: one.beyond for one in found.held}
    assert 0 < reached.pop("Prompt accuracy") < 1
    assert list(reached.values()) == pytest.approx([0.0] * len(reached))


@pytest.mark.parametrize(
    ("change", "status", "metrics"),
    [
        (rescore(another_seed), "ok", set()),
        (rescore(fewer_updates), "worse", {"Prompt accuracy"}),
        (rescore(swapped_prompts), "worse", {"Prompt accuracy"}),
        (black, "worse", {"black"}),
    ],
    ids=["another seed", "fewer updates", "swapped prompts", "black images"],
)
def test_each_change_has_its_verdict(
    plan: Plan, baseline: Baseline, tmp_path: Path, change: Change, status: str, metrics: set[str]
) -> None:
    found = verdict(changed(plan, tmp_path / "run", change), baseline)
    assert found.status == status
    assert failed(found) == metrics


def test_black_images_are_found_before_any_metric(
    plan: Plan, baseline: Baseline, tmp_path: Path
) -> None:
    (first, *_) = verdict(changed(plan, tmp_path / "run", black), baseline).failed
    assert first.part == "pictures"
    assert first.text.startswith("5 of 80 images, 0 of the baseline's, e.g. 00000.png")


def test_what_is_not_known_of_files_alone_is_no_fault_of_theirs(
    plan: Plan, baseline: Baseline, tmp_path: Path
) -> None:
    """Images that were drawn elsewhere do not say what was clipped: no saturation is no loss."""
    unknown = rescore(lambda table: {"saturation": np.nan})
    found = verdict(changed(plan, tmp_path / "run", unknown), baseline)
    assert found.status == "ok"
    assert not any("Saturation" in one.name for one in found.held)
    assert "left out, as not known of files alone: Saturation of decoupled_hybrid" in found.notes
    lost = rescore(lambda table: {"prompt_accuracy": np.nan})  # a scorer has a value, or failed
    failing = verdict(changed(plan, tmp_path / "other", lost), baseline)
    assert "not scored" in failed(failing)


def test_where_no_gating_metric_is_known_nothing_is_ok(plan: Plan, tmp_path: Path) -> None:
    alone = Plan(**{**vars(plan), "suite": make_suite(gate={"saturation": {"spreads": 0.6}})})
    unknown = rescore(lambda table: {"saturation": np.nan})
    found = verdict(changed(alone, tmp_path / "run", unknown), Baseline.of(load_run(alone)))
    assert found.status == "too few"
    assert [one.text for one in found.failed] == ["none that gates is known"]


def all_black(folder: Path) -> None:
    """No image has a value, so that scoring them failed."""
    for path in (folder / "generate/decoupled_hybrid-0/images").glob("*.png"):
        Image.new("RGB", (32, 32)).save(path)
    shutil.rmtree(folder / "score/decoupled_hybrid-0")


def test_images_that_cannot_be_scored_are_worse(
    plan: Plan, baseline: Baseline, tmp_path: Path
) -> None:
    """By themselves, and beside students that are compared as ever."""
    run = changed(plan, tmp_path / "run", all_black)
    alone = verdict(run, baseline)
    assert (alone.status, failed(alone)) == ("worse", {"black"})
    assert alone.failed[0].text.startswith("80 of 80 images, 0 of the baseline's")
    assert any("was not scored: its images alone were looked at" in note for note in alone.notes)
    every = gate.against_baseline(run, baseline, gate.pairs_of(run, baseline, None, None))
    assert every.status == "worse"
    assert [one.name for one in every.failed if one.status == "failed"] == [
        "decoupled_hybrid, black"
    ]
    assert {one.name.split(", ")[0] for one in every.held} > {"dmd", "teacher", "ca_only"}


def test_a_baseline_without_its_images_excuses_nothing_and_accuses_of_nothing(
    plan: Plan, baseline: Baseline, tmp_path: Path
) -> None:
    """As of a pack: identical images, some of them black, are no loss, nor are they ok."""
    alone = baseline._replace(
        students={
            name: {seed: replace(files, images={}) for seed, files in by_seed.items()}
            for name, by_seed in baseline.students.items()
        }
    )
    found = verdict(changed(plan, tmp_path / "some", black), alone)
    assert (found.status, failed(found)) == ("too few", {"black"})
    assert found.failed[0].text.endswith("e.g. 00000.png, 00001.png, 00002.png; "
                                         "the baseline's images are not here")  # fmt: skip
    assert verdict(changed(plan, tmp_path / "none", None), alone).status == "ok"
    # What has scores was not all black.
    every = verdict(changed(plan, tmp_path / "all", all_black), alone)
    assert (every.status, failed(every)) == ("worse", {"black"})


def test_images_that_are_whole_but_not_scored_yet_are_no_verdict(
    plan: Plan, baseline: Baseline, tmp_path: Path
) -> None:
    run = changed(
        plan, tmp_path / "run", lambda folder: shutil.rmtree(folder / "score/decoupled_hybrid-0")
    )
    with pytest.raises(NotRun, match="was not scored"):
        verdict(run, baseline)


def test_a_margin_that_so_few_images_cannot_show_is_too_few(plan: Plan, tmp_path: Path) -> None:
    """Three images changed sides each way: no loss, but none as small as half a point either."""
    suite = make_suite(gate={"prompt_accuracy": {"margin": 0.005}})
    old = Baseline.of(load_run(Plan(**{**vars(plan), "suite": suite})))
    new = changed(Plan(**{**vars(plan), "suite": suite}), tmp_path / "run", rescore(another_seed))
    found = verdict(new, old)
    assert found.status == "too few"
    assert "times the prompts may" in found.failed[0].text
    assert found.failed[0].beyond > 1


@pytest.mark.parametrize(
    ("num", "wrong", "status"), [(40, 0, "too few"), (371, 0, "ok"), (371, 1, "too few"),
                                 (371, 12, "worse")]
)  # fmt: skip
def test_a_baseline_without_a_wrong_answer_has_a_margin_by_its_number_of_prompts(
    plan: Plan, num: int, wrong: int, status: str
) -> None:
    """Against its own images too: of few prompts nobody knows what others would say."""
    suite = make_suite(gate={"prompt_accuracy": {"spreads": 0.1}})
    run = replace(load_run(plan), suite=suite)
    ids = {"prompt_id": [f"p{k}" for k in range(num)], "image_index": 0}

    def with_scores(right: np.ndarray) -> RunFiles:
        table = pd.DataFrame({**ids, "prompt_accuracy": right})
        return replace(
            run,
            students={
                name: {0: replace(files, per_image=table)}
                for name, by_seed in run.students.items()
                for files in by_seed.values()
            },
        )

    old = Baseline.of(with_scores(np.ones(num)))
    found = verdict(with_scores((np.arange(num) >= wrong).astype(float)), old)
    assert found.status == status
    if status == "too few":
        assert "times the prompts may" in found.failed[0].text


def test_what_is_right_where_it_equals_real_scenes_may_not_move_either_way(
    plan: Plan, tmp_path: Path
) -> None:
    suite = make_suite(gate={"std": {"margin": 0.01}})
    same = Plan(**{**vars(plan), "suite": suite})
    for name, step, status in (("up", 0.05, "worse"), ("down", -0.05, "worse"), ("no", 0.0, "ok")):
        move = rescore(lambda table, step=step: {"std": table["std"] + step})
        new = changed(same, tmp_path / name, move)
        assert verdict(new, Baseline.of(load_run(same))).status == status


def test_a_false_worse_is_rare_and_a_margin_that_is_lost_is_seldom_called_ok() -> None:
    """Of 300 comparisons at 40 prompts with no loss 5 % may be called worse, and as many with a
    loss of just the margin ok: 24 or more of 300 have a chance of 1 in 100."""
    generator, prompts = np.random.default_rng(3), np.arange(40)
    wrong = {0.0: 0, -0.5: 0}
    for loss in wrong:
        for k in range(300):
            values = generator.normal(loss, 1.0, 40)
            paired = paired_difference(values, 0 * values, prompts, seed=k)
            difference = gate.Difference(**paired._asdict())
            one = gate.Compared(("a", "a"), "hps_v3", difference, 0.5, (0.0, 0.0))
            status = gate.verdict_on(one, difference.p_value).status
            wrong[loss] += status == ("failed" if loss == 0.0 else "ok")
    assert max(wrong.values()) < 24


# What is compared


def test_two_students_of_one_run(plan: Plan, baseline: Baseline) -> None:
    run = load_run(plan)
    pairs = gate.pairs_of(run, baseline, "ca_only", "decoupled_hybrid")
    found = gate.against_baseline(run, baseline, pairs)
    assert found.status == "worse"
    assert found.failed[0].name.startswith("ca_only against decoupled_hybrid, ")
    with pytest.raises(BenchError, match="Did you mean 'ca_only'"):
        gate.pairs_of(run, baseline, "ca_onyl", None)


def test_by_default_all_students_but_real_scenes(plan: Plan, baseline: Baseline) -> None:
    names = ["teacher", "dmd", "decoupled_hybrid", "ca_only"]
    assert gate.pairs_of(load_run(plan), baseline, None, None) == [(name, name) for name in names]


def test_another_protocol_is_incomparable(plan: Plan, baseline: Baseline) -> None:
    other = load_run(Plan(**{**vars(plan), "protocol": {"resolution": [64, 64]}}))
    assert verdict(other, baseline).status == "incomparable"


def test_other_seeds_are_paired_by_prompt_and_that_is_said(
    baseline: Baseline, tmp_path: Path
) -> None:
    other = load_run(make_run(tmp_path / "run", make_suite(gate=GATE, seeds=(7,))))
    found = gate.against_baseline(other, baseline, [("dmd", "dmd")])
    assert found.status in ("ok", "too few", "worse")
    assert any("7 with 0" in note for note in found.notes)


def test_images_without_a_value_are_no_way_to_be_better(
    plan: Plan, baseline: Baseline, tmp_path: Path
) -> None:
    def wrong_ones_lost(table: pd.DataFrame) -> dict[str, Any]:
        right = table["prompt_accuracy"]
        return {"prompt_accuracy": right.where(right == 1)}

    found = verdict(changed(plan, tmp_path / "run", rescore(wrong_ones_lost)), baseline)
    assert found.status == "worse"
    assert failed(found) == {"not scored"}


def test_no_margin_is_needed_for_what_did_not_move() -> None:
    same = gate.Difference(0.0, 0.0, 0.0, 1.0, 80, 0.5)
    for margin in (0.0, float("nan"), 0.1):
        one = gate.Compared(("a", "a"), "saturation", same, margin, (0.0, 0.0))
        assert gate.verdict_on(one, 1.0)[2:] == ("ok", gate.verdict_on(one, 1.0).text, 0.0)
    more = same._replace(value=0.1, low=0.05, high=0.15, p_value=0.001)
    one = gate.Compared(("a", "a"), "saturation", more, 0.0, (0.1, 0.0))
    assert gate.verdict_on(one, 0.001).status == "failed"
    assert gate.verdict_on(one, 0.2).status == "too few"


def test_what_was_not_scored_is_not_judged(plan: Plan, baseline: Baseline, tmp_path: Path) -> None:
    def undo(folder: Path) -> None:
        (folder / "score/decoupled_hybrid-0/done.json").unlink()

    with pytest.raises(NotRun, match="decoupled_hybrid, seed 0: was not scored"):
        verdict(changed(plan, tmp_path / "run", undo), baseline)


# Settings


def test_margins_by_default_are_of_what_has_a_better_direction() -> None:
    margins = gate.margins_of(make_suite())
    assert margins == {
        "prompt_accuracy": gate.OF_IMAGES,
        "saturation": gate.OF_IMAGES,
        "frechet_attributes": gate.OF_SETS,
    }


def test_a_margin_is_said_in_one_way() -> None:
    with pytest.raises(ValidationError, match="takes one of margin, spreads and share"):
        Margin(margin=0.1, share=0.2)
    with pytest.raises(ValidationError, match="found none"):
        Margin()
    with pytest.raises(ValidationError, match="gate: unknown metric 'prompt_acuracy'"):
        make_suite(gate={"prompt_acuracy": {"margin": 0.1}})


def test_a_suite_without_a_gate_is_as_it_was() -> None:
    assert "gate" not in make_suite().model_dump()
    assert make_suite(gate=GATE).model_dump()["gate"]["saturation"]["spreads"] == 0.6


def test_defects_are_told_apart(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    images = {
        "a.png": pixels[0],
        "b.png": pixels[1],
        "c.png": pixels[0],
        "d.png": pixels[0] // 255 * 0,
        "e.png": np.full((8, 8, 3), 200, np.uint8) + pixels[0] // 64,
    }
    for name, array in images.items():
        Image.fromarray(array).save(tmp_path / name)
    (tmp_path / "f.png").write_bytes(b"no image")
    found = defects_of(sorted(tmp_path.iterdir()))
    assert found.num == 6
    assert found.found == {
        "black": ["d.png"],
        "of one colour": ["e.png"],
        "broken": ["f.png"],
        "repeated": ["c.png"],
    }


def test_a_black_image_in_the_first_place_costs_no_other_its_value(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    names = ["a.png", "b.png"]
    for name, value in zip(names, (0, 255), strict=True):
        pixels = np.random.default_rng(0).integers(0, value + 1, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    images = _images(tmp_path, [{"file_name": name} for name in names])
    with pytest.raises(Unusable, match="constant image"):
        images.open(0)
    assert images.open(1).size == (8, 8)
