"""A run's files with made-up numbers, and the plan that points at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.files.records import mark_done, write_json, write_jsonl
from ddmd_bench.planning.part import Downloads
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import NO_SEED, Task, TaskName
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.intervals import mean_interval
from ddmd_bench.suite.schema import Suite

MALICIOUS = '<img src=x onerror="alert(1)"> | <script>alert(2)</script>'
IMAGE_METRICS = ["prompt_accuracy", "saturation", "std"]
QUALITY = {"real": 0.95, "teacher": 0.85, "dmd": 0.6, "decoupled_hybrid": 0.8, "ca_only": 0.1}
DIM = 5


def make_suite(
    claim_rows: list[dict[str, Any]] | None = None, seeds: tuple[int, ...] = (0,), **changes: Any
) -> Suite:
    return Suite.model_validate(
        {
            "name": "fake",
            "title": "A <fake> suite",
            "description": "Numbers made up & drawn from a seed.",
            "backend": "shapes",
            "seeds": list(seeds),
            "prompts": {
                "seen": {"source": "x", "num_prompts": 20},
                "new": {"source": "x", "num_prompts": 20},
            },
            "students": {
                "real": {"source": "real", "title": "Real scenes"},
                "teacher": {"source": "teacher", "num_inference_steps": 4, "guidance_scale": 4},
                "dmd": {"method": "dmd"},
                "decoupled_hybrid": {"method": "decoupled_hybrid"},
                "ca_only": {"method": "ca_only"},
            },
            "baseline": "dmd",
            "metrics": [*IMAGE_METRICS, "diversity", "frechet_attributes"],
            "claims": claim_rows
            if claim_rows is not None
            else [
                {"claim": "rises", "student": "ca_only", "series": "x0_std", "paper": "Fig. 3"},
                {"claim": "worst", "student": "ca_only", "metric": "prompt_accuracy"},
                {
                    "claim": "beats",
                    "student": "decoupled_hybrid",
                    "other": "dmd",
                    "metric": "frechet_attributes",
                    "paper": "Tab. 2",
                },
                {"claim": "bounded", "student": "dmd", "series": "x0_std", "margin": 1.2},
                {
                    "claim": "same",
                    "student": "dmd",
                    "other": "decoupled_hybrid",
                    "metric": "prompt_accuracy",
                    "margin": 0.01,
                },
            ],
            **changes,
        }
    )


def make_run(folder: Path, suite: Suite) -> Plan:
    """A whole run's files with made-up numbers, and the plan that points at them."""
    texts = [MALICIOUS, *(f"a red star number {k}" for k in range(39))]
    sets = ["seen"] * 20 + ["new"] * 20
    prompts = tuple(
        Prompt(f"{s}/{k:04d}", s, t) for k, (s, t) in enumerate(zip(sets, texts, strict=True))
    )
    tasks: dict[TaskName, Task] = {}

    def add(stage: str, student: str, seed: int, key: str) -> Path:
        label = f"{student}-{seed}" if student else ""
        where = folder / stage / label
        tasks[stage, student, seed] = Task(stage, student, seed, label, key, where, {})
        where.mkdir(parents=True)
        return where

    add("reference", "", NO_SEED, "r")
    draws = np.random.default_rng(0)
    np.save(folder / "reference/features_attributes.npy", draws.normal(size=(200, DIM)))
    rows = [
        {"prompt_id": p.prompt_id, "prompt_set": p.prompt_set} for p in prompts for _ in "five!"
    ]
    write_jsonl(folder / "reference/metadata.jsonl", rows)
    mark_done(folder / "reference", {"key": "r"})
    ids = [(p, k) for p in prompts for k in range(2)]
    for number, (name, student) in enumerate(suite.students.items()):
        for seed in suite.seeds:
            draws = np.random.default_rng(number + 100 * seed)
            if student.source == "train":
                write_train(add("train", name, seed, "t"), name, draws)
            write_images(add("generate", name, seed, "g"), ids, draws)
            write_scores(add("score", name, seed, "s"), name, ids, draws, suite)
    return Plan(
        suite=suite,
        prompts=prompts,
        tasks=tasks,
        protocol={"resolution": [32, 32], "seed_rule": "by image"},
        fingerprint="0123456789ab",
        prompt_lists={},
        loaded={},
        unfit={},
        downloads=Downloads(),
        runs=folder,
        report_folder=folder / "report",
        report_inputs={},
    )


def write_train(folder: Path, name: str, draws: np.random.Generator, num: int = 120) -> None:
    k = np.arange(1, num + 1)
    rise = np.exp(k / 25) if name == "ca_only" else np.ones(num)
    table = pd.DataFrame(
        {
            "iteration": k,
            "x0_std": 0.5 * rise + draws.normal(size=num) * 0.01,
            "x0_mean": draws.normal(size=num) * 0.1,
            "x0_beyond_1": 0.01 * rise,
            "dm_norm": np.full(num, np.nan) if name == "ca_only" else 1 / k + 0.2,
            "ca_norm": 0.5 + draws.random(num),
            "loss_student": draws.random(num),
            "loss_fake_score": np.full(num, np.nan) if name == "ca_only" else 1 / k,
        }
    )
    table.to_parquet(folder / "diagnostics.parquet")
    forwards = {"teacher": 240, "fake_score": 480, "student": 120}
    clock = {"seconds": 12.5, "peak_memory_gib": 1.25}
    mark_done(
        folder,
        {"key": "t", "num_iterations": num, "forwards": forwards, **clock,
         "provenance": {"commit": "abc", "packages": {"torch": "2"}}},
    )  # fmt: skip


def write_images(folder: Path, ids: list[Any], draws: np.random.Generator) -> None:
    (folder / "images").mkdir()
    rows = []
    for n, (prompt, k) in enumerate(ids):
        name = f"{n:05d}.png"
        pixels = draws.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        rows.append({"file_name": name, "prompt_id": prompt.prompt_id, "image_index": k})
    write_jsonl(folder / "images/metadata.jsonl", rows)
    facts = {"n": len(ids), "num_inference_steps": 4, "network_evaluations": 4}
    mark_done(folder, {"key": "g", **facts, "seconds": 2.0, "images_per_s": 40.0})


def write_scores(
    folder: Path, name: str, ids: list[Any], draws: np.random.Generator, suite: Suite
) -> None:
    n, quality = len(ids), QUALITY.get(name, 0.7)
    table = pd.DataFrame(
        {
            "prompt_id": [p.prompt_id for p, _ in ids],
            "prompt_set": [p.prompt_set for p, _ in ids],
            "image_index": [k for _, k in ids],
            "prompt_accuracy": (draws.random(n) < quality).astype(float),
            "saturation": draws.random(n) * (1 - quality),
            "std": 0.5 + 0.1 * draws.random(n),
            "diversity": np.repeat(draws.random(n // 2), 2),
        }
    )
    for metric in suite.metrics:
        if metric not in table and METRICS[metric].kind == "image":
            table[metric] = 0.3 * quality + 0.02 * draws.random(n)
        if (counts := METRICS[metric].counts) is not None:
            table[counts] = 2.0
    table.to_parquet(folder / "per_image.parquet")
    features = draws.normal(size=(n, DIM)) + (1 - quality)
    np.save(folder / "features_attributes.npy", features.astype(np.float32))
    aggregates: dict[str, dict[str, Any]] = {m: {} for m in suite.metrics}
    for group in ("all", *suite.prompts):
        rows = table if group == "all" else table[table["prompt_set"] == group]
        for metric in suite.metrics:
            kind = METRICS[metric].kind
            values = np.zeros(n) if kind == "distribution" else rows[metric].to_numpy()
            ids_ = rows["prompt_id"].to_numpy()
            value = mean_interval(values[: len(ids_)], ids_, METRICS[metric].bounds)
            cell = value._asdict() if kind != "distribution" else None
            cell = cell or {"value": 1 - quality, "low": None, "high": None, "n": len(rows)}
            aggregates[metric][group] = {**cell, "n_expected": len(rows)}
    write_json(folder / "aggregates.json", aggregates)
    mark_done(folder, {"key": "s", "n": n, "seconds": 1.0, "weights_sha256": {"attributes": "ff"}})
