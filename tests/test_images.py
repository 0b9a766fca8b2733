"""A run's images open with `datasets`, and an image depends on its own identity alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddmd_bench.planning.plan import make_plan
from ddmd_bench.stages.generate import generate
from ddmd_bench.suite.files import load_suite


def test_images_open_as_an_imagefolder(
    tiny: dict, write_suite: Callable[[Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset

    plan = make_plan(load_suite(write_suite(tiny)), tmp_path / "runs", tmp_path / "reports")
    task = plan.task("generate", "real", 0)
    generate(plan, task, lambda *_: None)
    folder = task.folder / "images"
    rows = load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["prompt_id"] for row in rows][:2] == [plan.prompts[0].prompt_id] * 2
    assert rows[0]["prompt"] == plan.prompts[0].text
    assert rows[0]["image"].size == (32, 32)
    assert len(rows) == sum(plan.suite.images_per_prompt()[p.prompt_set] for p in plan.prompts)
