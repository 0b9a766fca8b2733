"""Disk of a run before it starts, by stage, and whether there is room for it.

What holds tensors is known to the byte but for small headers. An image is counted as if its PNG
compressed nothing, which noise comes near; a photograph takes about half of it or less.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from ddmd_bench.objective.methods import METHODS, Method
from ddmd_bench.planning.downloads import gigabytes
from ddmd_bench.planning.memory import FLOAT32, STATES, Shapes, adapter_parameters, shapes_of
from ddmd_bench.planning.outlook import STAGES, Outlook
from ddmd_bench.scorers import METRICS, SCORERS, needed_scorers
from ddmd_bench.suite.settings import TrainSettings

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
RECORD = 1024  # of metadata and of a table's row, an image; a prompt of 4,000 letters is rare


def png_bytes(height: int, width: int) -> int:
    """No 8-bit RGB PNG that this package writes is larger: raw levels, filters, block headers."""
    raw = height * (3 * width + 1)
    return raw + raw // 500 + 1024


def checkpoint_bytes(
    shapes: Shapes, method: Method, settings: TrainSettings, lora_targets: Iterable[str]
) -> tuple[int, int]:
    """A training's checkpoint under way, and the student's weights that it leaves.

    The discriminator's head and the step's embedding are not counted: they are small.
    """
    num = sum(map(prod, shapes.values()))
    if settings.lora_rank is not None:
        num = adapter_parameters(shapes, settings.lora_rank, lora_targets)
    trained = 1 + (method.tau_dm is not None or method.gan)
    kept = num * (trained * (FLOAT32 + STATES[settings.optimizer]) + FLOAT32 * bool(settings.ema))
    return kept, num * FLOAT32


def disk_of(outlook: Outlook) -> dict[tuple[str, str], int]:
    """Bytes that each task writes, by stage and student; one seed of it."""
    suite, backend, shapes = outlook.suite, outlook.backend, shapes_of(outlook.backend)
    found = {("encode", ""): encode_bytes(outlook)} if backend.encoders is not None else {}
    scorers = [SCORERS[name] for name in needed_scorers(m for m in suite.metrics if m in METRICS)]
    # Kept with each scorer's answers, and beside the values.
    features = 2 * FLOAT32 * sum(scorer.num_features or 0 for scorer in scorers)
    if backend.draw_real is not None:
        num_real = outlook.num_prompts() * suite.reference.images_per_prompt
        found["reference", ""] = num_real * (features + RECORD)
    bases = outlook.bases()
    for name, student in suite.students.items():
        if student.source == "train":
            method, settings = METHODS[student.method or ""], suite.train_settings(name)
            sizes = checkpoint_bytes(shapes, method, settings, backend.lora_targets)
            kept_best = suite.evaluation is not None and suite.evaluation.keep_best is not None
            found["train", name] = sizes[1] * (1 + kept_best)
        one = outlook.loaded.get(name)
        base = bases.get(name)
        side = base.resolution if base else one.row.resolution if one else backend.resolution
        found["generate", name] = outlook.num_images() * (png_bytes(side, side) + RECORD)
        found["score", name] = outlook.num_images() * (features + RECORD)
    return found


def encode_bytes(outlook: Outlook) -> int:
    """Embeddings of all prompts, once for each text encoder; real images and their latents."""
    suite, backend, data = outlook.suite, outlook.backend, outlook.suite.train_data
    width = DTYPE_BYTES[backend.dtype]
    of_prompt = sum(value.numel() for value in backend.skeleton().cond.values()) * width
    captions = data.prompts.num_prompts if data and data.prompts else 0
    num_images = data.images.num_images if data and data.images else 0
    others = {one.model for one in outlook.loaded.values()} - {suite.model}
    embeddings = outlook.num_prompts() * (1 + len(others)) + captions + num_images
    side = backend.resolution
    of_image = png_bytes(side, side) + RECORD + prod(backend.latent_shape) * FLOAT32
    return embeddings * (of_prompt + RECORD) + num_images * of_image


def largest_checkpoint(outlook: Outlook) -> int:
    """What the largest training keeps until it ends: a checkpoint, and a second while it writes."""
    suite, shapes = outlook.suite, shapes_of(outlook.backend)
    sizes = [
        checkpoint_bytes(
            shapes,
            METHODS[student.method or ""],
            suite.train_settings(name),
            outlook.backend.lora_targets,
        )[0]
        for name, student in suite.students.items()
        if student.source == "train" and outlook.num_todo("train", name)
    ]
    return 2 * max(sizes, default=0)


def disk_todo(outlook: Outlook, stages: Iterable[str] = STAGES) -> dict[str, int]:
    """Bytes still to be written by stage; `train` with its largest checkpoint under way."""
    found: dict[str, int] = {}
    for (stage, student), size in disk_of(outlook).items():
        if stage in stages and (num := outlook.num_todo(stage, student)):
            found[stage] = found.get(stage, 0) + num * size
    if "train" in found:
        found["train"] += largest_checkpoint(outlook)
    return found


def disk_lines(outlook: Outlook) -> list[str]:
    """One line for each stage that has something to write, and one about what is assumed."""
    todo = disk_todo(outlook)
    if not todo:
        return []
    lines = [f"disk of {stage}: at most {gigabytes(size)}" for stage, size in todo.items()]
    total = gigabytes(sum(todo.values()))
    return [*lines, f"disk in all: at most {total}, as if no PNG compressed anything"]


def disk_problems(needed: Mapping[Path, int]) -> list[str]:
    """Folders without room for the bytes that they are to hold; those of one disk count as one."""
    by_disk: dict[int, list[Path]] = {}
    for folder in needed:
        by_disk.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    problems = []
    for folders in by_disk.values():
        wanted = sum(needed[folder] for folder in folders)
        free = shutil.disk_usage(_existing(folders[0])).free
        if wanted > free:
            parts = " and ".join(f"{gigabytes(needed[f])} in {f}" for f in folders if needed[f])
            problems.append(
                f"no room on the disk: {gigabytes(free)} are free, and up to {parts} are to be "
                "written. Make room, ask for fewer prompts or images, or take another disk: "
                "--runs, and HF_HOME for downloads"
            )
    return problems


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
