"""Images a second through the harness, beside the bare network calls and diffusers' own pipeline.

    python -m benchmarks.generate [--widths 16 64] [--images 32] [--batch 8] [--rounds 9]

A tiny SDXL of random weights, whose UNet's blocks have the given width and twice as many channels.
The harness draws, looks for values that are not finite and writes PNG files in threads with their
journal, as the stage does; the
bare loop runs the same UNet on the same batches as often, and the VAE once; diffusers' pipeline is
given the encoded prompts and writes PNG files of its own. All take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import ROOT, Spent
from benchmarks.table import Table, as_text
from ddmd_bench.backends import Backend
from ddmd_bench.data.image_writer import ImageWriter
from ddmd_bench.data.images import ImageId, image_generator, image_ids
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.stages.encode import encode
from ddmd_bench.students.drawing import DrawnImages, conditioning, iter_drawn
from ddmd_bench.students.sources import SOURCES
from ddmd_bench.suite.schema import Suite

NUM_STEPS, GUIDANCE_SCALE = 4, 5.0
CPU = "cpu"

Draw = Callable[[], object]


def write_repository(folder: Path, width: int) -> Path:
    """The tests' SDXL with a UNet of another width."""
    sys.path.append(str(ROOT / "tests"))
    import tiny_sdxl
    from diffusers import UNet2DConditionModel

    pipeline = tiny_sdxl.make_pipeline()
    unet = UNet2DConditionModel(**{**tiny_sdxl.UNET, "block_out_channels": (width, 2 * width)})
    pipeline.register_modules(unet=unet)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def encoded_plan(folder: Path, repository: Path, num_images: int, batch_size: int) -> Plan:
    """Of a suite with the teacher alone, its prompts encoded."""
    prompts = [f"a star number {k}" for k in range(num_images)]
    (folder / "prompts.txt").write_text("\n".join(prompts))
    teacher = {"num_inference_steps": NUM_STEPS, "guidance_scale": GUIDANCE_SCALE}
    suite = {
        "name": "drawing",
        "title": "Drawing",
        "backend": "sdxl",
        "model": {"repository": str(repository), "resolution": 64, "images_at_once": batch_size},
        "prompts": {
            "some": {
                "source": str(folder / "prompts.txt"),
                "num_prompts": num_images,
                "images_per_prompt": 1,
            }
        },
        "students": {"teacher": {"source": "teacher", **teacher}},
        "baseline": "teacher",
        "metrics": ["mean", "std"],
    }
    plan = make_plan(Suite.model_validate(suite), folder / "runs", folder / "reports")
    for task in plan.of_stage("encode"):
        encode(plan, task, lambda done, total: None)
    return plan


def batches(images: Sequence[ImageId], size: int) -> Iterator[Sequence[ImageId]]:
    return (images[k : k + size] for k in range(0, len(images), size))


def _iter_drawn(
    plan: Plan, backend: Backend, images: Sequence[ImageId]
) -> Callable[[], Iterator[DrawnImages]]:
    (seed,) = plan.suite.seeds
    source = SOURCES["teacher"](plan.seeded("teacher", seed), backend, CPU)
    return lambda: iter_drawn(source.draw, images, AtOnce(backend.images_at_once, "images"))


def harness(plan: Plan, backend: Backend, images: Sequence[ImageId], folder: Path) -> Draw:
    """What the stage `generate` does with every batch."""
    drawn_anew = _iter_drawn(plan, backend, images)

    @torch.no_grad()
    def draw() -> None:
        with (
            tempfile.TemporaryDirectory(dir=folder) as name,
            ImageWriter(Path(name) / "images", len(images), torch.get_num_threads()) as writer,
        ):
            left = writer.missing
            for drawn in drawn_anew():
                num = len(drawn.rows)
                writer.add(left[:num], drawn.rows, drawn.levels)
                left = left[num:]
            writer.finish()

    return draw


def without_files(plan: Plan, backend: Backend, images: Sequence[ImageId], folder: Path) -> Draw:
    """What is drawn, and looked at, but not kept."""
    drawn_anew = _iter_drawn(plan, backend, images)

    @torch.no_grad()
    def draw() -> None:
        for _ in drawn_anew():
            pass

    return draw


def bare(plan: Plan, backend: Backend, images: Sequence[ImageId], folder: Path) -> Draw:
    """The same calls of the networks, with nothing around them."""
    network: Any = backend.load_teacher()
    inputs = []
    for batch in batches(images, backend.images_at_once):
        cond = conditioning(backend, [""] * len(batch) + [i.prompt.text for i in batch], CPU)
        inputs.append((torch.randn(len(batch), *backend.latent_shape), cond))
    timesteps = torch.linspace(999, 0, NUM_STEPS)

    @torch.no_grad()
    def draw() -> None:
        for x, cond in inputs:
            both = torch.cat([x, x])
            for timestep in timesteps:
                network.predict(both, timestep, cond)
            backend.decode(x)

    return draw


def pipeline(plan: Plan, backend: Backend, images: Sequence[ImageId], folder: Path) -> Draw:
    """diffusers' own, with prompts encoded beforehand."""
    from diffusers import StableDiffusionXLPipeline

    whole = StableDiffusionXLPipeline.from_pretrained(plan.suite.model.repository)
    whole.set_progress_bar_config(disable=True)
    names = ("prompt_embeds", "negative_prompt_embeds",
             "pooled_prompt_embeds", "negative_pooled_prompt_embeds")  # fmt: skip
    with torch.no_grad():
        encoded = [
            dict(zip(names, whole.encode_prompt([i.prompt.text for i in batch]), strict=True))
            for batch in batches(images, backend.images_at_once)
        ]
    (seed,) = plan.suite.seeds

    def draw() -> None:
        num = 0
        for batch, cond in zip(batches(images, backend.images_at_once), encoded, strict=True):
            found = whole(
                **cond,
                num_inference_steps=NUM_STEPS,
                guidance_scale=GUIDANCE_SCALE,
                height=backend.resolution,
                width=backend.resolution,
                generator=[image_generator(seed, image) for image in batch],
            )
            for image in found.images:
                image.save(folder / f"{num:05d}.png")
                num += 1

    return draw


BARE = "bare network calls"
CONTENDERS = {
    BARE: bare,
    "the harness, no files": without_files,
    "the harness": harness,
    "diffusers' pipeline": pipeline,
}


def seconds_of(draw: Draw) -> Spent:
    cpu, start = time.process_time(), time.perf_counter()
    draw()
    return Spent(time.perf_counter() - start, time.process_time() - cpu)


def rounds_of(width: int, num_images: int, batch_size: int, rounds: int) -> dict[str, list[Spent]]:
    """Seconds of all contenders, which take turns, after one round that is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = write_repository(folder / "repository", width)
        plan = encoded_plan(folder, repository, num_images, batch_size)
        images = image_ids(plan.prompts, plan.suite.images_per_prompt())
        backend = plan.prepared().opened("teacher")
        draws = {name: make(plan, backend, images, folder) for name, make in CONTENDERS.items()}
        found = [
            {name: seconds_of(draw) for name, draw in draws.items()} for _ in range(rounds + 1)
        ]
    return {name: [one[name] for one in found[1:]] for name in draws}


def over(times: Sequence[float], bare_times: Sequence[float]) -> str:
    """The median of each round's ratio: a slow moment of the machine meets all in a round."""
    ratios = [a / b for a, b in zip(times, bare_times, strict=True)]
    return f"{statistics.median(ratios):.3f}"


def results(
    widths: Sequence[int] = (16, 64),
    num_images: int = 32,
    batch_size: int = 8,
    rounds: int = 9,
    threads: int = 1,
) -> Table:
    """Of a UNet as small as its classes allow, beside which all else weighs most, and of more."""
    torch.set_num_threads(threads)
    rows = []
    for width in widths:
        found = rounds_of(width, num_images, batch_size, rounds)
        bare_wall, bare_cpu = zip(*found[BARE], strict=True)
        for name, times in found.items():
            wall, cpu = zip(*times, strict=True)
            rate = num_images / statistics.median(wall)
            ratios = over(wall, bare_wall), over(cpu, bare_cpu)
            rows.append((f"{name}, width {width}", f"{rate:.1f}", *ratios))
    how = (
        f"{num_images} images of 64 px in batches of {batch_size}, {NUM_STEPS} steps with "
        f"guidance; medians of {rounds} rounds, in which all take turns."
    )
    return Table(
        "Drawing through the harness takes at most 1.05 of what the network calls alone take.",
        ("contender", "images/s", "wall over bare", "CPU over bare"),
        rows,
        (how,),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--images", type=int, default=32, dest="num_images")
    parser.add_argument("--batch", type=int, default=8, dest="batch_size")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
