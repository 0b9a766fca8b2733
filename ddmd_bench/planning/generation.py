"""Where each student's images come from, and what drawing them takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddmd_bench.backends import BACKENDS, twice_guided
from ddmd_bench.data.headers import headers_of
from ddmd_bench.data.image_folders import read_listing
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import content_key
from ddmd_bench.files.versions import backend_versions, versions
from ddmd_bench.hub import Remote
from ddmd_bench.planning.models import network_inputs
from ddmd_bench.planning.part import Asked, Cost, Downloads, Part, TaskKind, Work
from ddmd_bench.planning.prompts import asked_of_each
from ddmd_bench.planning.sizes import RECORD, png_bytes
from ddmd_bench.planning.task import DOCTOR, ENCODE, NO_SEED, Tasks
from ddmd_bench.students.catalogue import PIPELINE
from ddmd_bench.students.checkpoints import base_remote, inputs_of, lora_remotes, remote_of
from ddmd_bench.students.verdicts import weights_problem
from ddmd_bench.suite.students import Student


def _problems(asked: Asked) -> Iterator[str]:
    suite, backend = asked.suite, asked.backend
    yield from asked.refused
    for name, student in suite.students.items():
        if student.images is not None:
            yield from _folder_problems(asked, name, student.images)
        for option in sorted(student.teacher_options().keys() - backend.teacher_options):
            yield f"students.{name}.{option}: backend {suite.backend} has no such option"
        if student.source == "real" and backend.draw_real is None:
            yield f"students.{name}: backend {suite.backend} draws no real images"


def unfit_students(asked: Asked) -> dict[str, str]:
    """Students whose weights are here and damaged, or do not fit their base: why, by name.

    No reason to keep the others from running: each is its own task's failure, known early.
    """
    found = {}
    for name, one in asked.loaded.items():
        base = BACKENDS[asked.suite.backend](one.model)
        if (problem := weights_problem(one.row, base)) is not None:
            found[name] = problem
    return found


def _folder_problems(asked: Asked, name: str, folder: str) -> Iterator[str]:
    """A folder of images that lacks some of the suite's prompts."""
    try:
        read_listing(Path(folder), asked.prompts, asked.suite.images_per_prompt())
    except BenchError as error:
        yield f"students.{name}: {error}"


def _inputs(asked: Asked, name: str, student: Student) -> dict[str, Any]:
    """What determines a student's images beside its seed and what its training has left."""
    suite, backend, one = asked.suite, asked.backend, asked.loaded.get(name)
    if student.images is not None:
        files = read_listing(Path(student.images), asked.prompts, suite.images_per_prompt())
        headers = headers_of(files.values())
        return {"images": content_key([[*of, headers[file].sha256] for of, file in files.items()])}
    dtype = {"dtype": backend.dtype}
    if one is not None and one.row.format == PIPELINE:
        return {**dtype, **inputs_of(one.row)}
    if one is not None:
        own_base = BACKENDS[suite.backend](one.model)
        base = network_inputs(suite.backend, own_base, asked.needs_network(name))
        return {**base, **dtype, **inputs_of(one.row)}
    network = {**network_inputs(suite.backend, backend), **dtype}
    if student.source == "train":
        return network if student.weights == "last" else {**network, "drawn_from": student.weights}
    facts = student.model_dump(mode="json", include={"num_inference_steps", "guidance_scale"})
    options = {"source": student.source, **facts, **student.teacher_options()}
    return {**network, **options}


def _add_tasks(asked: Asked, tasks: Tasks) -> None:
    suite, images = asked.suite, asked_of_each(asked)
    for name, student in suite.students.items():
        computed = versions("generate")
        if name in asked.bases or student.source == "real":
            computed |= backend_versions(suite.backend)
        if name in asked.loaded:
            computed |= versions("loaded")
        trained = student.source == "train"
        own = _inputs(asked, name, student)
        for seed in suite.seeds:
            inputs = {**own, **images, "seed": seed}
            if trained:
                inputs["student"] = tasks.key("train", name, seed)
            needs = [DOCTOR, ENCODE, ("encode", name, NO_SEED), ("train", name, seed)]
            tasks.add("generate", inputs, computed, name, seed, needs=needs)


def _downloads(asked: Asked) -> Downloads:
    found: list[Remote] = []
    for one in asked.loaded.values():
        found.append(remote_of(one.row))
        found += lora_remotes(one.row)
        if (base := base_remote(one.row)) is not None:
            found.append(base)
    return Downloads(tuple(found))


def _costs(asked: Asked) -> Mapping[TaskKind, Cost]:
    found = {}
    for name in asked.suite.students:
        one, base = asked.loaded.get(name), asked.bases.get(name)
        own = one.row.resolution if one else None
        side = own or (base or asked.backend).resolution
        found["generate", name] = Cost(disk=asked.num_images * (png_bytes(side, side) + RECORD))
    return found


def operations_of_image(asked: Asked, name: str) -> int:
    """Of the denoiser's passes for one image of a student, and of its decoder.

    Not of text encoders, nor of a whole pipeline of another architecture.
    """
    base, student = asked.bases[name], asked.suite.students[name]
    if student.source == "train":
        passes = len(asked.suite.train_settings(name).t_list)
    elif student.source == "teacher":
        steps, scale = student.num_inference_steps, student.guidance_scale
        passes = base.teacher_evaluations(steps, scale, **student.teacher_options())
    else:
        sampling = asked.loaded[name].row.sampling
        passes = twice_guided(sampling.num_inference_steps, sampling.guidance_scale)
    flops = asked.facts(base).flops
    return passes * flops.forward + flops.decode


def _work(asked: Asked) -> Mapping[TaskKind, Work]:
    return {
        ("generate", name): Work(asked.num_images * operations_of_image(asked, name), base.dtype)
        for name, base in asked.bases.items()
    }


GENERATION = Part(_problems, add_tasks=_add_tasks, downloads=_downloads, costs=_costs, work=_work)
