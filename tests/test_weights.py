"""The committed weights are those that their cards describe, and as good as the cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ddmd_bench.backends.shapes.backend import WEIGHTS, make_backend
from ddmd_bench.backends.shapes.scenes import draw_labels, held_out_labels, prompt_of, seen_labels
from ddmd_bench.data.images import quantised
from ddmd_bench.files.records import file_sha256
from ddmd_bench.objective.sampler import ode_sample
from ddmd_bench.recipes.shapes import CAPTION_NOISE, _misread
from ddmd_bench.scorers import loaded


@pytest.mark.parametrize("name", ["teacher", "attributes"])
def test_weights_are_those_of_their_card(name: str) -> None:
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    assert card["sha256"] == file_sha256(WEIGHTS / f"{name}.safetensors")
    assert {"num_iterations", "seed", "batch_size"} <= card["recipe"].keys()


def test_card_of_the_teacher_holds_what_guidance_is_for() -> None:
    measured = json.loads(Path(WEIGHTS / "teacher.json").read_text())["measured"]
    for part in ("seen", "held_out"):
        assert measured[f"all_right_{part}_32_steps_guidance_4"] >= 0.95
        assert measured[f"all_right_{part}_32_steps_guidance_1"] < 0.80


@pytest.mark.long
@torch.no_grad()
def test_guided_teacher_draws_what_the_prompt_says() -> None:
    """20 steps with guidance, half of the prompts held out: at least 95 of 100 all right."""
    backend = make_backend()
    generator = torch.Generator().manual_seed(11)
    labels = torch.cat(
        [draw_labels(50, generator), draw_labels(50, generator, among=held_out_labels())]
    )
    prompts = [prompt_of(row) for row in labels]
    noise = torch.randn(100, *backend.latent_shape, generator=generator)
    cond, uncond = backend.encode_prompts(prompts), backend.encode_prompts([""] * 100)
    latents = ode_sample(backend.load_teacher(), 20, 4.0, cond, uncond, noise, backend.level)
    reader = loaded("attributes", "cpu", torch.float32)
    inputs = quantised(backend.decode(latents)).permute(0, 2, 3, 1)
    scored = reader.score_batch(inputs, reader.encode_prompts(prompts))
    assert scored.columns["prompt_accuracy"].sum() >= 95


def test_training_captions_err_at_the_stated_rate_and_name_no_held_out_scene() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = draw_labels(20_000, generator)
    captions = _misread(labels, generator)
    seen = {tuple(row) for row in seen_labels().tolist()}
    assert all(tuple(row) in seen for row in captions.tolist())
    # A redrawn word may be the right one: of 8 colours, 7 in 8 redraws change it. Captions that
    # would name a held-out combination, about a tenth of the changed ones, stay right.
    wrong = (captions[:, 1] != labels[:, 1]).double().mean()
    assert float(wrong) == pytest.approx(CAPTION_NOISE * 7 / 8 * 0.9, rel=0.06)
