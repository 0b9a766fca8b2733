"""A trained student as diffusers loads it: a whole pipeline, or the file of its LoRA, with a card.

The card's snippet draws the first image of the student's run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ddmd_bench.backends import PipelineForm
from ddmd_bench.data.images import image_ids, image_seed
from ddmd_bench.errors import BenchError
from ddmd_bench.files.provenance import provenance
from ddmd_bench.files.records import read_done, write_whole
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.students.networks import load_student
from ddmd_bench.students.prepared import open_backend
from ddmd_bench.suite.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ddmd_bench.backends import Backend
    from ddmd_bench.planning.plan import Plan

LORA_FILE = "pytorch_lora_weights.safetensors"


def export(plan: Plan, student: str, seed: int, folder: Path) -> Path:
    """Write the student that was trained with the seed into an empty or new folder."""
    suite = plan.suite
    if student not in suite.students or suite.students[student].source != "train":
        trained = [name for name, s in suite.students.items() if s.source == "train"]
        raise BenchError(f"{student!r} is not trained by this suite. Trained: {', '.join(trained)}")
    if seed not in suite.seeds:
        raise BenchError(f"seed {seed}: the suite has {list(suite.seeds)}")
    task = plan.task("train", student, seed)
    if not task.complete():
        raise BenchError(f"{task.label} is not trained yet. Run the train stage first")
    backend = open_backend(plan, student)
    if backend.pipeline is None:
        raise BenchError(
            f"backend {suite.backend} has no pipeline in diffusers; its students' weights are "
            f"{task.folder / 'student.safetensors'}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    settings = suite.train_settings(student)
    state = _weights(task.folder / "student.safetensors")
    save = _save_pipeline if settings.lora_rank is None else _save_lora
    save(backend, backend.pipeline, settings, state, folder)
    write_whole(folder / "README.md", _card(plan, student, seed, backend.pipeline))
    return folder


def _weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _save_pipeline(
    backend: Backend,
    form: PipelineForm,
    settings: TrainSettings,
    state: Mapping[str, Tensor],
    folder: Path,
) -> None:
    import diffusers
    import torch

    dtype = getattr(torch, backend.dtype)
    denoiser = load_student(backend, settings, dict(state), "cpu").to(dtype)
    scheduler = getattr(diffusers, form.scheduler).from_config(
        form.scheduler_config(), **form.scheduler_options
    )
    parts = {form.network: getattr(denoiser, form.network), "scheduler": scheduler}
    pipeline = form.load(parts, dtype)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _save_lora(
    backend: Backend,
    form: PipelineForm,
    settings: TrainSettings,
    state: Mapping[str, Tensor],
    folder: Path,
) -> None:
    import diffusers

    prefix = f"{form.network}."
    layers = {name.removeprefix(prefix): value for name, value in state.items()}
    config = {
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_alpha,
        "target_modules": list(backend.lora_targets),
    }
    options: dict[str, Any] = {
        f"{form.network}_lora_layers": layers,
        f"{form.network}_lora_adapter_metadata": config,
    }
    getattr(diffusers, form.pipeline).save_lora_weights(
        folder, weight_name=LORA_FILE, safe_serialization=True, **options
    )


def _card(plan: Plan, student: str, seed: int, form: PipelineForm) -> str:
    suite, settings = plan.suite, plan.suite.train_settings(student)
    (image, *_) = image_ids(plan.prompts, suite.images_per_prompt())
    done = read_done(plan.task("train", student, seed).folder) or {}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    method = METHODS[suite.students[student].method or ""]
    return environment.get_template("model_card.md.j2").render(
        title=suite.students[student].title or f"{method.title}, {len(settings.t_list)} steps",
        method=method.title,
        suite=suite.name,
        student=student,
        seed=seed,
        settings=settings.model_dump(mode="json"),
        iterations=done.get("num_iterations"),
        commit=provenance()["commit"],
        form=form,
        schedule=form.schedule(settings.t_list),
        lora=settings.lora_rank is not None,
        dtype=form.dtype,
        prompt=image.prompt.text,
        image_seed=image_seed(seed, image),
        resolution=form.resolution,
    )
