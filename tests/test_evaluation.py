"""Evaluation in training equals generate and score on the same images, and leaves no trace."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.data.prompts import Prompt, head_in_proportion, pictured
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import mark_done, read_json, read_jsonl
from ddmd_bench.objective.terms import Cond
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.scorers import METRICS, loaded, outside_scorers
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.reference import reference
from ddmd_bench.stages.score import score
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import Evaluation
from ddmd_bench.training.evaluation import (
    Evaluator,
    Value,
    best_row,
    evaluations_table,
    history_rows,
)

BACKEND = make_backend()
# Those whose weights this package or another one carries; scenes are too small for MS-SSIM, and
# their prompts quote no text.
NOT_OF_SCENES = ("ms_ssim", "ocr_accuracy", "ocr_exact")
EVERY = [name for name in METRICS if not outside_scorers([name]) and name not in NOT_OF_SCENES]


def quiet(*_: Any) -> None:
    """No progress."""


def student() -> nn.Module:
    """The teacher with its weights moved, as a training does."""
    network = BACKEND.load_teacher()
    generator = torch.Generator().manual_seed(5)
    for value in network.parameters():
        value += 0.02 * value.std() * torch.randn(value.shape, generator=generator)
    return network


def evaluator(
    plan: Plan, num_prompts: int, images_per_prompt: int, metrics: list[str]
) -> Evaluator:
    return Evaluator(
        student="dmd",
        backend=BACKEND,
        settings=Evaluation(
            at=(0,), num_prompts=num_prompts, images_per_prompt=images_per_prompt, metrics=metrics
        ),
        prompts=plan.prompts,
        suite=plan.suite,
        seed=plan.suite.seeds[0],
        t_list=plan.suite.train_settings("dmd").t_list,
        device="cpu",
    )


@pytest.fixture
def planned(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> Callable[..., Plan]:
    """Plans the tiny suite with overrides."""
    name = write_suite(tiny)

    def make(*overrides: str) -> Plan:
        return make_plan(load_suite(name, overrides), tmp_path / "runs", tmp_path / "reports")

    return make


# Values


@pytest.mark.long
def test_it_equals_generate_and_score_bit_for_bit(planned: Callable[..., Plan]) -> None:
    """The subset of a larger suite is a suite of its own; 140 images, so that batches differ."""
    per_prompt = [f"prompts.{name}.images_per_prompt=2" for name in ("seen", "compositional")]
    common = ("seeds=[3]", "reference.images_per_prompt=3", f"metrics={EVERY}", *per_prompt)
    large = planned("prompts.seen.num_prompts=80", "prompts.compositional.num_prompts=60", *common)
    small = planned("prompts.seen.num_prompts=40", "prompts.compositional.num_prompts=30", *common)
    network = student()
    task = small.task("train", "dmd", 3)
    task.folder.mkdir(parents=True)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, task.folder / "student.safetensors")
    mark_done(task.folder, {"key": task.key})
    reference(small, small.task("reference"), quiet)
    generate(small, small.task("generate", "dmd", 3), quiet)
    score(small, small.task("score", "dmd", 3), quiet)
    scored = read_json(small.task("score", "dmd", 3).folder / "aggregates.json")
    expected = {
        name: (groups["all"]["value"], groups["all"]["n"]) for name, groups in scored.items()
    }

    evaluate = evaluator(large, 70, 2, EVERY)
    images = evaluate.drawn(network)
    found = evaluate.values_of(images)
    assert found == expected
    drawn = small.task("generate", "dmd", 3).folder / "images"
    rows = read_jsonl(drawn / "metadata.jsonl", {"file_name": str})
    files = {r["prompt_id"]: r["file_name"] for r in rows if r["image_index"] == 0}
    with Image.open(BytesIO(evaluate.pictures_of(images))) as strip:
        kept = np.asarray(strip.convert("RGB"))
    pictures = [
        np.asarray(Image.open(drawn / files[prompt.prompt_id]))
        for prompt in pictured(large.prompts, 70)
    ]
    assert len(pictures) == 4
    assert np.array_equal(kept, np.concatenate(pictures, 1))
    assert list(found) == EVERY
    assert all(math.isfinite(value) for value, _ in found.values())


def test_only_the_metrics_asked_for_are_there(planned: Callable[..., Plan]) -> None:
    found = evaluator(planned(), 3, 1, ["saturation"])(student())
    assert found.keys() == {"saturation"}
    assert found["saturation"].n == 3


def test_images_that_are_not_finite_stop_the_training(planned: Callable[..., Plan]) -> None:
    def broken(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return x_t * math.nan

    with pytest.raises(BenchError, match="its images hold values that are not finite"):
        evaluator(planned(), 3, 1, ["std"])(broken)


# The subset


def prompts_of(**sizes: int) -> list[Prompt]:
    return [
        Prompt(f"{name}/{k:04d}", name, f"{name} {k}")
        for name, size in sizes.items()
        for k in range(size)
    ]


@pytest.mark.parametrize(
    ("num_prompts", "expected"),
    [
        (1, {"a": 1, "b": 0, "c": 0}),
        (2, {"a": 1, "b": 1, "c": 0}),
        (4, {"a": 2, "b": 1, "c": 1}),
        (8, {"a": 4, "b": 2, "c": 2}),
        (16, {"a": 8, "b": 4, "c": 4}),
    ],
)
def test_the_subset_is_each_set_s_head_in_proportion(
    num_prompts: int, expected: dict[str, int]
) -> None:
    prompts = prompts_of(a=8, b=4, c=4)
    found = head_in_proportion(prompts, num_prompts)
    heads = [p for p in prompts if int(p.prompt_id[-4:]) < expected[p.prompt_set]]
    assert found == heads


@pytest.mark.parametrize("num_prompts", range(1, 29))
def test_a_larger_subset_contains_the_smaller(num_prompts: int) -> None:
    prompts = prompts_of(a=17, b=5, c=6)
    few, many = (set(head_in_proportion(prompts, n)) for n in (num_prompts - 1, num_prompts))
    assert few < many
    assert len(many) == num_prompts
    for name, size in {"a": 17, "b": 5, "c": 6}.items():
        share = num_prompts * size / len(prompts)
        assert abs(sum(p.prompt_set == name for p in many) - share) < 1


# No trace


class WithDropout(nn.Module):
    """A denoiser whose output depends on its mode and, in training mode, on torch's state."""

    def __init__(self) -> None:
        super().__init__()
        self.network = student()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.dropout(self.network(x_t, t, cond))


@pytest.mark.parametrize("training", [True, False])
def test_the_training_does_not_notice(planned: Callable[..., Plan], training: bool) -> None:
    network = WithDropout().requires_grad_(True).train(training)
    modes = [module.training for module in network.modules()]
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    # As in a new process: building the scorers' networks draws from torch's state.
    loaded.cache_clear()
    plan = planned("reference.images_per_prompt=50")
    evaluate = evaluator(plan, 3, 43, ["prompt_accuracy", "frechet_efficientnet"])
    torch.manual_seed(11)
    before = torch.get_rng_state()
    evaluate(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


# The best


def history_of(metric: str, *values: float) -> list[dict[str, Any]]:
    rows = []
    for k, value in enumerate(values):
        rows += history_rows(10 * k, {metric: Value(value, 4), "std": Value(0.5, 4)})
    return rows


@pytest.mark.parametrize(
    ("values", "higher", "lower"),
    [
        ((0.3,), True, True),
        ((0.3, 0.4), True, False),
        ((0.3, 0.2), False, True),
        ((0.3, 0.3), False, False),  # a tie keeps the earlier
        ((0.5, 0.1, 0.3), False, False),
        ((math.nan,), False, False),
        ((0.3, math.nan), False, False),
        ((math.nan, 0.3), True, True),
        ((0.3, math.nan, 0.4), True, False),
    ],
)
def test_the_best_follows_the_metric_s_direction(
    values: tuple[float, ...], higher: bool, lower: bool
) -> None:
    for metric, expected in (("prompt_accuracy", higher), ("saturation", lower)):
        history = history_of(metric, *values)
        best = best_row(history, metric)
        newest_is_best = best is not None and best["iteration"] == history[-1]["iteration"]
        assert newest_is_best is expected


def test_an_evaluation_without_the_metric_is_not_the_best() -> None:
    history = history_of("prompt_accuracy", 0.3) + history_rows(10, {"std": Value(0.5, 4)})
    assert best_row(history, "prompt_accuracy") == history[0]


# The history


def test_a_history_is_plain_data_and_becomes_a_table(tmp_path: Path) -> None:
    history = history_of("prompt_accuracy", 0.3, math.nan)
    assert json.loads(json.dumps(history, allow_nan=False)) == history
    torch.save(history, tmp_path / "history.pt")
    resumed = torch.load(tmp_path / "history.pt", weights_only=True)
    assert resumed == history
    table = evaluations_table(history)
    for name, rows in (("whole", history), ("resumed", resumed)):
        evaluations_table(rows).to_parquet(tmp_path / name, index=False)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
    pd.testing.assert_frame_equal(
        table,
        pd.DataFrame(
            {
                "iteration": [0, 0, 10, 10],
                "metric": pd.Series(["prompt_accuracy", "std"] * 2, dtype=object),
                "value": [0.3, 0.5, math.nan, 0.5],
                "n": [4, 4, 4, 4],
            }
        ),
    )
    assert evaluations_table([]).dtypes.equals(table.dtypes)
