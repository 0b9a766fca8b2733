"""Small results of every kind that has a version, and the committed ones that they must equal.

    python tests/version_values.py    # writes golden/versions.json anew where a version was raised

A value here moves where results of that kind move for the same question.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny_lumina2
import tiny_sd15
import tiny_sdxl
import torch
from PIL import Image
from torch import Tensor

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.schedulers import SCHEDULERS, make_scheduler
from ddmd_bench.data.images import ImageId, image_generator
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.files.records import read_json, write_json
from ddmd_bench.files.versions import VERSIONS
from ddmd_bench.measuring.one_pass import Item, OnePass
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.objective.sampler import scheduler_sample
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.diversity import DIVERSITIES
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.stats.intervals import mean_interval, paired_difference
from ddmd_bench.students.drawing import draw_reference, few_step_draw
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.update import Training

GOLDEN = Path(__file__).parent / "golden" / "versions.json"
PROMPTS = (
    "a large red star at the left on a brown background",
    "a small blue circle at the right on a white background",
)
Values = dict[str, float]


def _told(name: str, tensor: Tensor) -> Values:
    """Enough of a tensor to notice when it is another one."""
    flat = tensor.detach().double().flatten()
    signs = torch.where(torch.arange(len(flat)) % 2 == 0, 1.0, -1.0).double()
    return {
        f"{name} mean": float(flat.mean()),
        f"{name} std": float(flat.std()),
        f"{name} alternating": float((flat * signs).mean()),
    }


# What a method alone does not reach.
OPTIONS: Mapping[str, dict[str, Any]] = {
    "fresh": {"fake_score_samples": "fresh"},
    "step": {"fake_score_sees": "step"},
    "per_term": {"normalizer": "per_term"},
    "unnormalised": {"normalizer": "none"},
    "lora": {"lora_rank": 2},
}


def train() -> Values:
    """The second update of every method, and of the options that are no method.

    In the first the fake score still is the teacher, and DM is 0.
    """
    backend = BACKENDS["shapes"](Model())
    found: Values = {}
    runs = {name: (name, {}) for name in METHODS}
    runs |= {name: ("decoupled_hybrid", options) for name, options in OPTIONS.items()}
    for name, (method, options) in runs.items():
        settings = TrainSettings(batch_size=4, fake_score_updates=1, **options)
        training = Training(backend, METHODS[method], settings, 0, "cpu")
        training.update(1)
        row = training.update(2)
        found |= {f"{name} {key}": value for key, value in row.items() if np.isfinite(value)}
    return found


def _images(num: int) -> list[ImageId]:
    prompts = [Prompt(f"seen/{k}", "seen", PROMPTS[k % 2]) for k in range(num)]
    return [ImageId(prompt, 0) for prompt in prompts]


def _networks(backend: Backend, cond: Any, uncond: Any) -> Values:
    """Levels, the teacher's x0, its sampling and the decoder."""
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(len(PROMPTS), *backend.latent_shape, generator=generator)
    t = torch.tensor([0.9, 0.3])
    teacher = backend.load_teacher()
    with torch.no_grad():
        latents = backend.sample_teacher(teacher, 2, 4.0, cond, uncond, x_t)
        level = backend.level(t)
        return {
            **_told("level", torch.stack([level.alpha.flatten(), level.sigma.flatten()])),
            **_told("weight", backend.denoising_weight(level)),
            **_told("x0", teacher(x_t, t, cond)),
            **_told("sampled", latents),
            **_told("image", backend.decode(latents)),
        }


def shapes() -> Values:
    """The embedded world, its real images too."""
    backend = BACKENDS["shapes"](Model())
    assert backend.draw_real is not None
    drawn = backend.draw_real(PROMPTS[0], torch.Generator().manual_seed(2))
    cond, uncond = (dict(backend.encode_prompts(p)) for p in (PROMPTS, [""] * 2))
    return {**_told("real", drawn), **_networks(backend, cond, uncond)}


def _family(name: str, write_repository: Callable[[Path], Path]) -> Callable[[], Values]:
    def values() -> Values:
        with tempfile.TemporaryDirectory() as folder:
            repository = write_repository(Path(folder) / "repository")
            backend = BACKENDS[name](Model(repository=str(repository), resolution=64))
            assert backend.encoders is not None
            encode = backend.encoders.load_prompt_encoder("cpu")
            cond, uncond = (backend.encoders.collate(encode(p)) for p in (PROMPTS, [""] * 2))
            pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
            latents = backend.encoders.load_image_encoder("cpu")(pixels)
            return {
                **_told("embedding", cond["prompt_embeds"]),
                **_told("latents", latents),
                **_networks(backend, cond, uncond),
            }

    return values


def generate() -> Values:
    """A few-step network's images, each with its own noise."""
    backend, images = BACKENDS["shapes"](Model()), _images(3)
    with torch.no_grad():
        draw = few_step_draw(backend.load_teacher(), backend, (1.0, 0.5), 0, "cpu")
        return _told("images", draw(images))


def reference() -> Values:
    """A real image that distributions compare with."""
    backend = BACKENDS["shapes"](Model())
    assert backend.draw_real is not None
    return _told("image", draw_reference(backend.draw_real, _images(1)[0]))


def loaded() -> Values:
    """Every scheduler with a network that predicts a tenth of its input."""
    found: Values = {}
    diffusion, flow = tiny_sdxl.SCHEDULER, {"num_train_timesteps": 1000, "shift": 3.0}
    for name, row in SCHEDULERS.items():
        if row.class_name is None:
            continue
        config = flow if "Flow" in row.class_name else diffusion
        scheduler = make_scheduler(name, config, 2)
        (image,) = _images(1)
        generators = [image_generator(0, image)]
        noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))
        latents = scheduler_sample(lambda x, timestep, k: 0.1 * x, scheduler, noise, generators)
        found |= _told(name, latents)
    return found


def _pictures(num: int) -> list[Image.Image]:
    backend = BACKENDS["shapes"](Model())
    assert backend.draw_real is not None
    drawn = [draw_reference(backend.draw_real, image) for image in _images(num)]
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in drawn]


def answers() -> Values:
    """What scorers whose weights are in a package say of pictures."""
    pictures, found = _pictures(4), Values()
    items = [
        Item(str(k), PROMPTS[k % 2], lambda k=k: pictures[k], prompt_id=PROMPTS[k % 2])
        for k in range(4)
    ]
    (answered,) = OnePass(["images", "faults", "attributes", "efficientnet"]).over([items])
    for scorer, answer in answered.items():
        for column, values in answer.columns.items():
            found |= _told(f"{scorer} {column}", torch.as_tensor(np.asarray(values, float)))
        if answer.features is not None:
            found |= _told(f"{scorer} features", torch.as_tensor(answer.features))
    return found


def score() -> Values:
    """Every interval, difference and distance that a record or a report has."""
    draws = np.random.default_rng(0)
    features, other, real = (draws.normal(size=(40, 4)) + shift for shift in (0.2, 0.4, 0))
    groups = np.repeat(np.arange(20), 2)
    reference = RealFeatures(real, groups)
    found = {}
    for name, row in DISTANCES.items():
        difference = row.difference(features, other, reference, groups, 0, True)
        found[name] = [*row.interval(features, reference, groups, 0), *difference[:4]]
    found |= {name: [measure(features[:8])] for name, measure in DIVERSITIES.items()}
    found["mean"] = [*mean_interval(features[:, 0], groups)]
    found["paired"] = [*paired_difference(features[:, 0], other[:, 0], groups, seed=0)]
    right = [(x[:, 0] > -1).astype(float) for x in (features, other)]
    found["share"] = [*mean_interval(right[0], groups, (0, 1))]
    found["paired shares"] = [*paired_difference(*right, groups, seed=0, bounds=(0, 1))]
    return {f"{name} {k}": float(v) for name, row in found.items() for k, v in enumerate(row)}


VALUES: Mapping[str, Callable[[], Values]] = {
    "train": train,
    "generate": generate,
    "reference": reference,
    "answers": answers,
    "score": score,
    "loaded": loaded,
    "backend shapes": shapes,
    "backend sdxl": _family("sdxl", tiny_sdxl.write_repository),
    "backend sd15": _family("sd15", tiny_sd15.write_repository),
    "backend lumina2": _family("lumina2", tiny_lumina2.write_repository),
}


def rewritten(known: Mapping[str, Any]) -> dict[str, Any]:
    """The committed values, made again where the version is another."""

    def entry(name: str) -> Any:
        if known.get(name, {}).get("version") == VERSIONS[name]:
            return known[name]
        return {"version": VERSIONS[name], "values": VALUES[name]()}

    return {name: entry(name) for name in VALUES}


if __name__ == "__main__":
    write_json(GOLDEN, rewritten(read_json(GOLDEN)))
