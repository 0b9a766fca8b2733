"""A student's card: its schedules' pictures are what training draws, its settings what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_run import make_run, make_suite
from matplotlib.path import Path as Outline
from PIL import Image

from ddmd_bench.objective.methods import METHODS
from ddmd_bench.objective.schedules import tau_of
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.reporting.html.cards import SIDE, SNIPPET, cards
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.train import train
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import Suite


def cards_of(folder: Any, suite: Suite) -> dict[str, dict[str, Any]]:
    run = load_run(make_run(folder, suite))
    return cards(build_record(run), run.suite)


@pytest.mark.parametrize("name", METHODS)
def test_a_shaded_part_is_where_training_draws(name: str) -> None:
    """No level lies outside it, and everywhere inside there are some."""
    suite = make_suite([], students={"dmd": {"method": name}}, metrics=["std"])
    method, settings = METHODS[name], suite.train_settings("dmd")
    record = {
        "suite": {"metrics": []}, "table": {"dmd": {}}, "students": {"dmd": {"facts": {}}},
        "clock": {"dmd": {}},
    }  # fmt: skip
    card = cards(record, suite)["dmd"]
    t = torch.rand(200_000, generator=torch.Generator().manual_seed(0)).double()
    uniform = torch.rand(len(t), generator=torch.Generator().manual_seed(1)).double()
    for part, schedule in zip(card["schedules"], (method.tau_ca, method.tau_dm), strict=True):
        if schedule is None:
            assert (part.points, part.words) == ("", "absent")
            continue
        corners = [[float(x) for x in point.split(",")] for point in part.points.split()]
        outline = Outline(np.array(corners) / SIDE)
        tau = tau_of(schedule, t, settings.tau_range, uniform)
        kept = t > settings.tau_range[0]  # below it there is room for the lowest level alone
        points = torch.stack([t, 1 - tau], 1)[kept].numpy()
        assert outline.contains_points(points, radius=0.002).all()
        cells = np.stack(np.meshgrid(np.linspace(0.05, 0.95, 19), np.linspace(0.05, 0.95, 19)), -1)
        inside = cells.reshape(-1, 2)
        inside = inside[outline.contains_points(inside, radius=-0.03)]
        counts, *_ = np.histogram2d(*points.T, bins=20, range=[[0, 1], [0, 1]])
        assert all(counts[int(x * 20), int(y * 20)] > 0 for x, y in inside)


def test_a_card_names_what_was_set_otherwise_than_for_the_baseline(tmp_path: Any) -> None:
    rows = {
        "dmd": {"method": "dmd"},
        "hybrid": {"method": "decoupled_hybrid", "train": {"batch_size": 16, "ema": 0.5}},
        "teacher": {"source": "teacher", "num_inference_steps": 4, "guidance_scale": 4},
    }
    found = cards_of(tmp_path, make_suite([], students=rows))
    assert found["hybrid"]["settings"] == [("batch_size", "16", "32"), ("ema", "0.5", "0.95")]
    assert found["dmd"]["settings"] == found["teacher"]["settings"] == []
    assert found["hybrid"]["what"] == "Trained here, method Decoupled-Hybrid"
    assert found["teacher"]["levels"] == []
    assert "120 updates in 12 s" in found["hybrid"]["cost"]


def test_what_draws_nothing_has_no_lines(tmp_path: Path) -> None:
    found = cards_of(tmp_path, make_suite([]))
    assert found["real"]["snippet"] == ""
    assert "'teacher'" in found["teacher"]["snippet"]


@pytest.mark.long
def test_a_cards_lines_draw_the_first_image_again(
    tmp_path: Path,
    tiny: dict[str, Any],
    write_suite: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = write_suite(tiny)
    plan = make_plan(load_suite(name), tmp_path / "runs", tmp_path / "reports")
    seed, student = plan.suite.seeds[0], "dmd"
    train(plan, plan.task("train", student, seed), lambda done, total: None)
    generate(plan, plan.task("generate", student, seed), lambda done, total: None)
    monkeypatch.chdir(tmp_path)
    exec(SNIPPET.format(name=student, seed=seed).replace("path/to/this/report", name), {})
    images = plan.task("generate", student, seed).folder / "images"
    first, again = (np.asarray(Image.open(p), int) for p in (images / "00000.png", "first.png"))
    assert np.abs(first - again).max() <= 1  # of a batch that is larger
