"""How the committed weights of the embedded world were made.

    python -m ddmd_bench.recipes.shapes attributes   # about 12 minutes on one core
    python -m ddmd_bench.recipes.shapes teacher      # about 35 minutes on one core
    python -m ddmd_bench.recipes.shapes measure      # prompt accuracy of the teacher

The trainings are seeded and run on one thread; the weights are written as float16 safetensors
beside a card that records the recipe, the sha256 and what was measured.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddmd_bench.backends.shapes.backend import WEIGHTS, make_backend
from ddmd_bench.backends.shapes.networks import (
    AttributeNetwork,
    WordEncoder,
    make_unet,
    to_latents,
    tokenize,
)
from ddmd_bench.backends.shapes.scenes import (
    ATTRIBUTES,
    draw_labels,
    held_out_labels,
    prompt_of,
    render,
    seen_labels,
)
from ddmd_bench.files.records import read_record
from ddmd_bench.objective.process import flow_level, renoise
from ddmd_bench.objective.sampler import ode_sample
from ddmd_bench.scorers.attributes import load_network
from ddmd_bench.scorers.weights import attribute_weights


@dataclass(frozen=True)
class Recipe:
    """What determines the weights; recorded in the card."""

    num_iterations: int
    batch_size: int
    learning_rate: float
    warmup: int
    ema: float
    seed: int


TEACHER = Recipe(10_000, 32, 1e-3, 500, 0.9995, seed=1)
ATTRIBUTE_NETWORK = Recipe(6_000, 128, 1e-3, 200, 0.999, seed=2)
# How often an attribute word of a training caption is redrawn at random. Captions of the web are no
# better, and it leaves the conditional model a weakness that guidance mends, as in large models:
# without it this small world needs no guidance and CFG Augmentation would have nothing to do.
CAPTION_NOISE = 0.1
PROMPT_DROPOUT = 0.1  # share of training prompts replaced by '', so that guidance has its branch


RATES = {"teacher": {"caption_noise": CAPTION_NOISE, "prompt_dropout": PROMPT_DROPOUT}}


def _optimize(
    parameters: list[nn.Parameter], recipe: Recipe, losses: Iterator[Tensor]
) -> Iterator[int]:
    """AdamW with warm-up and cosine decay to zero, gradients clipped at 1; yields the iteration."""
    optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.99), fused=True)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=recipe.warmup)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, recipe.num_iterations - recipe.warmup
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [recipe.warmup])
    start = time.time()
    for iteration in range(1, recipe.num_iterations + 1):
        loss = next(losses)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if iteration % 100 == 0:
            seconds = (time.time() - start) / iteration
            print(f"{iteration:6d}  loss {loss.item():.4f}  {seconds:.3f} s/iteration", flush=True)
        yield iteration


@torch.no_grad()
def _update_ema(average: nn.Module, source: nn.Module, decay: float, iteration: int) -> None:
    decay = min(decay, (1 + iteration) / (10 + iteration))
    for mean, value in zip(average.parameters(), source.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def _save(name: str, module: nn.Module, recipe: Recipe, measured: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    path = WEIGHTS / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    state = {k: v.half().contiguous() for k, v in module.state_dict().items()}
    save_file(state, path)
    path.chmod(0o644)
    card = {
        "recipe": asdict(recipe) | RATES.get(name, {}),
        "command": f"python -m ddmd_bench.recipes.shapes {name}",
        "torch": torch.__version__,
        "parameters": sum(v.numel() for v in state.values()),
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "measured": measured,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _misread(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Labels that the captions name, [B, 5]: some wrong, none a held-out combination."""
    wrong = torch.rand(labels.shape, generator=generator) < CAPTION_NOISE
    drawn = torch.stack(
        [torch.randint(len(v), (len(labels),), generator=generator) for v in ATTRIBUTES.values()], 1
    )
    captions = torch.where(wrong, drawn, labels)
    held_out = (captions[:, None] == held_out_labels()).all(-1).any(-1)
    return torch.where(held_out[:, None], labels, captions)


def train_teacher(recipe: Recipe = TEACHER) -> None:
    """Flow matching on rendered scenes of the seen combinations; keeps the EMA weights."""
    torch.manual_seed(recipe.seed)
    model = nn.ModuleDict({"unet": make_unet(), "text": WordEncoder()})
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(recipe.seed)
    num = recipe.batch_size

    def losses() -> Iterator[Tensor]:
        while True:
            labels = draw_labels(num, generator)
            x0 = to_latents(render(labels, generator))
            captions = _misread(labels, generator)
            word_ids = torch.tensor([tokenize(prompt_of(row)) for row in captions])
            dropped = torch.rand(num, generator=generator) < PROMPT_DROPOUT
            word_ids[dropped] = 0
            # Stratified: one t in each of B equal parts of [0, 1], for a steadier gradient.
            t = (torch.arange(num) + torch.rand(num, generator=generator)) / num
            eps = torch.randn(x0.shape, generator=generator)
            x_t = renoise(x0, flow_level(t), eps)
            velocity = model["unet"](x_t, t * 1000, model["text"](word_ids)).sample
            yield F.mse_loss(velocity, eps - x0)

    for iteration in _optimize(list(model.parameters()), recipe, losses()):
        _update_ema(average, model, recipe.ema, iteration)
        if iteration % 1000 == 0:
            _save("teacher", average, recipe, {"iteration": iteration})


def _all_right(network: AttributeNetwork, among: Tensor, generator: torch.Generator) -> float:
    """Share of 20,000 fresh scenes with all five attributes read right."""
    right = 0
    with torch.no_grad():
        for _ in range(20):
            labels = draw_labels(1000, generator, among)
            images = render(labels, generator)
            read = network.predicted_labels(network.features(images))
            right += int((read == labels).all(1).sum())
    return right / 20_000


def train_attributes(recipe: Recipe = ATTRIBUTE_NETWORK) -> None:
    """Cross-entropy on scenes of every combination with added noise, as students may draw them."""
    torch.manual_seed(recipe.seed)
    network = AttributeNetwork().to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    generator = torch.Generator().manual_seed(recipe.seed)
    everything = torch.cat([seen_labels(), held_out_labels()])

    def losses() -> Iterator[Tensor]:
        while True:
            labels = draw_labels(recipe.batch_size, generator, everything)
            images = render(labels, generator)
            noise = torch.randn(images.shape, generator=generator)
            images = images + 0.15 * torch.rand(len(images), 1, 1, 1, generator=generator) * noise
            logits = network(images)
            each = [F.cross_entropy(logits[n], labels[:, k]) for k, n in enumerate(ATTRIBUTES)]
            yield torch.stack(each).sum()

    for iteration in _optimize(list(network.parameters()), recipe, losses()):
        _update_ema(average, network, recipe.ema, iteration)
    generator = torch.Generator().manual_seed(recipe.seed + 1000)
    measured = {
        "all_right_seen": _all_right(average, seen_labels(), generator),
        "all_right_held_out": _all_right(average, held_out_labels(), generator),
    }
    print(measured)
    _save("attributes", average, recipe, measured)


@torch.no_grad()
def measure_teacher(num_steps: int = 32, guidance_scale: float = 4.0) -> None:
    """Write into the teacher's card the share of images with all five attributes right.

    One image for each of 400 seen prompts and of every held-out prompt, with and without guidance.
    """
    backend, network = make_backend(), load_network(attribute_weights())
    teacher = backend.load_teacher()
    generator = torch.Generator().manual_seed(TEACHER.seed + 1000)
    parts = {"seen": draw_labels(400, generator), "held_out": held_out_labels()}
    measured: dict[str, Any] = {"iteration": TEACHER.num_iterations}
    for name, labels in parts.items():
        cond = backend.encode_prompts([prompt_of(row) for row in labels])
        uncond = backend.encode_prompts([""] * len(labels))
        noise = torch.randn(len(labels), *backend.latent_shape, generator=generator)
        for scale in (1.0, guidance_scale):
            latents = ode_sample(teacher, num_steps, scale, cond, uncond, noise, backend.level)
            images = backend.decode(latents).clamp(-1, 1)
            read = network.predicted_labels(network.features(images))
            right = float((read == labels).all(1).double().mean())
            measured[f"all_right_{name}_{num_steps}_steps_guidance_{scale:g}"] = right
    print(measured)
    card = WEIGHTS / "teacher.json"
    updated = read_record(card) | {"measured": measured}
    card.write_text(json.dumps(updated, indent=2) + "\n", encoding="utf-8")


COMMANDS: dict[str, Callable[[], None]] = {
    "teacher": train_teacher,
    "attributes": train_attributes,
    "measure": measure_teacher,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=COMMANDS)
    COMMANDS[parser.parse_args().what]()
