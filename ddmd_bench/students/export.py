"""A trained student as diffusers loads it: a whole pipeline, or the file of its LoRA, with a card.

The card's lines draw the first image of the student's run again, and bring the student back into a
suite as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ddmd_bench.backends import PipelineForm
from ddmd_bench.backends.schedulers import SCHEDULERS, new_scheduler
from ddmd_bench.data.images import image_ids, image_seed
from ddmd_bench.errors import BenchError
from ddmd_bench.files.provenance import commit
from ddmd_bench.files.records import naming, read_done, write_whole
from ddmd_bench.files.saving import disk_errors
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.students.networks import load_student
from ddmd_bench.students.seeded import SeededStudent, trained_folder, weights_file
from ddmd_bench.students.snippets import suite_lines
from ddmd_bench.students.sources import trained_weights
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ddmd_bench.backends import Backend


ONE_FILE = "1TB"


def export(student: SeededStudent, suite: Suite, backend: Backend, folder: Path) -> Path:
    """Write a student that a suite has trained into an empty or new folder."""
    assert student.settings is not None, "only what was trained here is exported"
    weights = weights_file(student)
    if backend.pipeline is None:
        raise BenchError(
            f"the suite's backend has no pipeline in diffusers; its students' weights are {weights}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    save = _save_pipeline if student.settings.lora_rank is None else _save_lora
    with naming(folder), disk_errors():
        save(backend, backend.pipeline, student.settings, trained_weights(student), folder)
    write_whole(folder / "README.md", _card(student, student.settings, suite, backend.pipeline))
    return folder


def _save_pipeline(
    backend: Backend,
    form: PipelineForm,
    settings: TrainSettings,
    state: Mapping[str, Tensor],
    folder: Path,
) -> None:
    import torch

    dtype = getattr(torch, backend.dtype)
    denoiser = load_student(backend, settings, state, "cpu")
    scheduler = new_scheduler(form.scheduler, form.scheduler_config())
    parts = {form.network: getattr(denoiser, form.network), "scheduler": scheduler}
    pipeline = form.load(parts, dtype)
    # One file a network, which a suite can name.
    pipeline.save_pretrained(folder, safe_serialization=True, max_shard_size=ONE_FILE)


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
    getattr(diffusers, form.pipeline).save_lora_weights(folder, safe_serialization=True, **options)


def _updates(student: SeededStudent) -> str:
    """How long the weights have trained."""
    done = read_done(trained_folder(student)) or {}
    total, best = done.get("num_iterations"), done.get("best")
    if student.row.weights == "last" or best is None:
        return f"{total} updates"
    return f"{best['iteration']} of {total} updates (its best by {best['metric']} on the way)"


def _card(
    student: SeededStudent,
    settings: TrainSettings,
    suite: Suite,
    form: PipelineForm,
) -> str:
    (image, *_) = image_ids(student.prompts, student.images_per_prompt)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    method = METHODS[student.row.method or ""]
    return environment.get_template("model_card.md.j2").render(
        title=student.row.title or f"{method.title}, {len(settings.t_list)} steps",
        method=method.title,
        suite=suite.name,
        student=student.name,
        seed=student.seed,
        settings=settings.model_dump(mode="json"),
        updates=_updates(student),
        commit=commit(),
        form=form,
        scheduler=SCHEDULERS[form.scheduler],
        schedule=form.schedule(settings.t_list),
        lora=settings.lora_rank is not None,
        dtype=form.dtype,
        prompt=image.prompt.text,
        image_seed=image_seed(student.seed, image),
        resolution=form.resolution,
        snippets=suite_lines(student, settings, suite, form),
    )
