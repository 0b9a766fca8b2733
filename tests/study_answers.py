"""Studies with and without images, and people who answer as the page would write it down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.files.records import write_json
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles
from ddmd_bench.study.answers import completion_of
from ddmd_bench.study.design import screens_of, shares_of
from ddmd_bench.study.key import JUDGED, KEY, OBVIOUS, Key, read_key
from ddmd_bench.study.making import RULE, Asked, make_study
from ddmd_bench.study.pages import words_of
from ddmd_bench.suite.schema import Suite

STUDENTS = ("red", "green", "blue")
Rank = Callable[[Key, int, list[str]], list[float]]  # ranks of a screen's images, place by place


def write_study(
    folder: Path,
    students: list[str],
    num_prompts: int,
    num_people: int,
    seen_by: int = 1,
    *,
    num_checks: int = 0,
    ties: bool = False,
    metrics: dict[str, Any] | None = None,
) -> Key:
    """A study of all students on each prompt."""
    generator = np.random.default_rng(0)
    size, images, sets = len(students), {}, []
    for k in range(num_prompts + num_checks):
        kind = JUDGED if k < num_prompts else OBVIOUS
        columns = []
        for j, student in enumerate(students):
            name = f"{k:04d}{j}.webp"
            images[name] = {"student": student if kind == JUDGED else "", "prompt_id": f"p/{k:04d}"}
            columns.append([name])
        sets.append({"kind": kind, "prompt_ids": [f"p/{k:04d}"], "columns": columns})
    shares = shares_of(num_prompts, num_people, seen_by, generator)
    checks = [*range(num_prompts, num_prompts + num_checks)]
    screens = [screens_of(share, checks, num_checks, size, generator) for share in shares]
    record = {
        "schema": 1, "study": "abc", "suite": "made", "title": "Made up", "form": "ranking",
        "ties": ties, "rule": RULE,
        "students": {name: {"title": name.upper()} for name in students},
        "images": images, "sets": sets,
        "screens": [[screen.told() for screen in person] for person in screens],
        "metrics": metrics or {},
    }  # fmt: skip
    write_json(folder / KEY, record)
    return read_key(folder)


def write_answers(
    key: Key, folder: Path, person: int, rank: Rank, code: str = "x", num: int | None = None
) -> Path:
    """What somebody sends back: the first `num` screens, or all."""
    answers = []
    for k, screen in enumerate(key.record["screens"][person - 1][:num]):
        number, order = screen["set"], screen["order"]
        columns = key.sets[number].columns
        shown = [key.student_of(columns[column]) for column in order]
        ranks = rank(key, k, shown)
        if key.sets[number].kind == OBVIOUS:
            ranks = [float(column) for column in order]  # the whole image is the first column
            if rank(key, -1, shown) is None:
                ranks = [-r for r in ranks]
        levels = sorted(set(ranks))
        answers.append(
            {
                "set": number,
                "order": order,
                "ranks": [levels.index(r) + 1 for r in ranks],
                "ms": 4000 + 10 * k,
            }
        )
    record = {
        "schema": 1, "study": key.record["study"], "person": person, "code": code, "language": "en",
        "answers": answers,
        "completion": completion_of(key.record["study"], person, code, len(answers)),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"answers-{person}-{code}.json"
    path.write_text(json.dumps(record))
    return path


def drawn_run(folder: Path, num_prompts: int = 12, size: int = 16) -> tuple[RunFiles, list[Prompt]]:
    """Three students whose images are of one colour each, but for some noise."""
    prompts = [Prompt(f"some/{k}", "some", f"<b>prompt</b> & {k}") for k in range(num_prompts)]
    generator, students = np.random.default_rng(0), {}
    for c, name in enumerate(STUDENTS):
        images = {}
        for prompt in prompts:
            pixels = generator.integers(0, 60, (size, size, 3), dtype=np.uint8)
            pixels[..., c] += 190
            path = folder / "drawn" / f"{name}{prompt.prompt_id[5:]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            images[prompt.prompt_id, 0] = path
        students[name] = {0: StudentFiles("", images=images)}
    suite = Suite.model_validate(
        {
            "name": "made", "title": "Made", "backend": "shapes", "baseline": "red",
            "prompts": {"some": {"source": "shapes/seen", "num_prompts": num_prompts}},
            "students": {n: {"method": "dmd"} for n in STUDENTS},
            "metrics": ["mean"],
        }
    )  # fmt: skip
    return RunFiles(
        suite, {p.prompt_id: p.text for p in prompts}, {}, {}, "f", students, {}
    ), prompts


def make(folder: Path, form: str = "ranking", num_prompts: int = 12, *, ties: bool = False) -> Key:
    """A study of them, for two people who see every set."""
    run, prompts = drawn_run(folder, num_prompts)
    asked = Asked(STUDENTS, num_prompts, 2, 2, form, ties, 0, None)
    make_study(run, prompts, asked, words_of([]), folder / "study", lambda done, total: None)
    return read_key(folder / "study")
