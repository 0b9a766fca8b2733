"""The record of a report: everything that the pages show, as one JSON value.

What a clock or a memory gauge measured lies under "clock"; the rest depends on the run's results
alone and is the same for two runs with the same results. "by_seed" holds what each seed gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.files.records import SCHEMA, finite_or_none
from ddmd_bench.measuring.aggregates import counted, values_of
from ddmd_bench.measuring.few_images import told_of_few
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.reporting.agreement import agreement
from ddmd_bench.reporting.claims.judging import judged
from ddmd_bench.reporting.differences import against_baseline, make_compare, win_rates
from ddmd_bench.reporting.dynamics import evaluated, first_updates, real_levels, thinned
from ddmd_bench.reporting.literature import literature_beside
from ddmd_bench.reporting.notes import BLANK
from ddmd_bench.reporting.pictures import NUM_EMBEDDED, chosen_prompts
from ddmd_bench.reporting.ranking import best_students, headline_metric
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, real_in, titles_of
from ddmd_bench.reporting.seeds import joined_cell, joined_reason
from ddmd_bench.reporting.sequential import sequential
from ddmd_bench.reporting.spreads import numbered, shared_prompts
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.seeds import NO_PROMPTS, OfPrompts
from ddmd_bench.suite.schema import Suite

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 10  # significant; the last bits of a sum are noise
CLOCKS = {
    "train": {"seconds": "train_seconds", "peak_memory_gib": "peak_memory_gib"},
    "generate": {"seconds": "generate_seconds", "images_per_s": "images_per_s"},
    "score": {"seconds": "score_seconds"},
}
FACTS = {
    "train": ("num_iterations", "samples", "forwards", "backwards"),
    "generate": ("n", "num_inference_steps", "network_evaluations", "sampled", "resolution"),
}


def build_record(run: RunFiles, embedded: int = NUM_EMBEDDED) -> dict[str, Any]:
    """The record of a run, whose page has pictures of so many prompts inside.

    Pure: the same files give the same value.
    """
    suite, compare = run.suite, make_compare(run)
    real = real_in(suite)
    metric = headline_metric(suite, "image")
    signs = make_compare(run, resampled=False)  # all that the shares of wins need
    table = {name: _cells(run, files) for name, files in run.students.items()}
    trained = _frames(run, "diagnostics")
    scenes = _frames(run, "per_image").get(real or "", {})
    students = {name: _student(suite, name, f) for name, f in run.students.items()}
    record = {
        "schema": SCHEMA,
        "fingerprint": run.fingerprint,
        "suite": suite.model_dump(mode="json"),
        "asked": suite.model_dump(mode="json", exclude_unset=True),  # what its file says
        "protocol": run.protocol,
        "prompt_lists": run.prompt_lists,
        "students": students,
        "table": table,
        "best": best_students(suite, table),
        "differences": against_baseline(run, compare),
        "agreement": agreement(run),
        "wins": {"metric": metric, "rates": win_rates(run, signs, metric) if metric else {}},
        "claims": judged(run, compare),
        "dynamics": {name: thinned(d) for name, d in trained.items()},
        "evaluations": {n: evaluated(e) for n, e in _frames(run, "evaluations").items()},
        "real_levels": real_levels(scenes.values()),
        "first_updates": {
            seed: {name: first_updates(d[seed]) for name, d in trained.items() if seed in d}
            for seed in suite.seeds
        },
        "pictures": chosen_prompts(run, table, embedded),
        "provenance": _provenance(run),
        "clock": {name: _clock(f) for name, f in run.students.items()},
    }
    if run.imported:
        record["imported_reference"] = run.imported
    if found := sequential(run):
        record["sequential"] = found
    if suite.literature:
        record["literature"] = literature_beside(run, table, students)
    result: dict[str, Any] = plain(record)
    return result


def _frames(run: RunFiles, kind: str) -> dict[str, dict[int, pd.DataFrame]]:
    """The data frames of one kind by student and seed, those that are there."""
    found = {
        name: {seed: t for seed, f in files.items() if (t := getattr(f, kind)) is not None}
        for name, files in run.students.items()
    }
    return {name: tables for name, tables in found.items() if tables}


def plain(value: Any) -> Any:
    """JSON values only: floats rounded to 10 significant digits, what is not finite null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        finite = finite_or_none(value)
        return None if finite is None else float(f"{finite:.{DIGITS}g}")
    return value


def _student(suite: Suite, name: str, files: dict[int, StudentFiles]) -> dict[str, Any]:
    student = suite.students[name]
    facts = {
        key: one.done[stage][key]
        for one in reversed(files.values())  # alike for all seeds: the first that has them
        for stage, keys in FACTS.items()
        for key in keys
        if key in one.done.get(stage, {})
    }
    best = {"best": _best(files)} if student.weights == "best" else {}
    repeats = max(one.repeats for one in files.values())
    return {
        **best,
        "title": titles_of(suite)[name],
        "source": student.source,
        "method": student.method,
        "method_title": METHODS[student.method].title if student.method else None,
        "missing": joined_reason({seed: one.missing for seed, one in files.items()}),
        "not_scored": _counted(files, "missing"),
        "truncated_prompts": _counted(files, "truncated_prompts"),
        **({"equal_images": repeats} if repeats else {}),
        **({"blank_images": blank} if (blank := _blank(files)) else {}),
        "facts": facts,
    }


def _blank(files: dict[int, StudentFiles]) -> dict[str, dict[str, int]]:
    """How many images of all seeds are black or of one colour; {} where none is known to be."""
    tables = [table for one in files.values() if (table := one.per_image) is not None]
    found = {}
    for metric in BLANK:
        values = [table[metric].dropna() for table in tables if metric in table]
        if number := int(sum(value.sum() for value in values)):
            found[metric] = {"n": number, "of": sum(map(len, values))}
    return found


def _best(files: dict[int, StudentFiles]) -> dict[str, Any]:
    """By which metric a student's weights are the best of its training, and after which updates."""
    rows = [row for one in files.values() if (row := one.done.get("train", {}).get("best"))]
    iterations = [row["iteration"] for row in rows]
    return {"metric": rows[0]["metric"], "iterations": iterations} if rows else {}


def _counted(files: dict[int, StudentFiles], key: str) -> dict[str, Any]:
    """What scoring noted beside its values, by seed where there are several; {} where nothing."""
    found = {seed: one.done.get("score", {}).get(key) for seed, one in files.items()}
    noted = {str(seed): value for seed, value in found.items() if value}
    return noted if len(files) > 1 else next(iter(noted.values()), {})


def _cells(run: RunFiles, files: dict[int, StudentFiles]) -> dict[str, dict[str, Any]]:
    """The student's aggregates over the seeds; what is not there is an empty cell, and counted."""
    suite = run.suite
    groups = {"all": list(suite.prompts.values())} | {n: [p] for n, p in suite.prompts.items()}

    def empty(metric: str, group: str) -> dict[str, Any]:
        once = METRICS[metric].kind == "prompt"
        per_set = (
            p.num_prompts * (1 if once else p.images_per_prompt)
            for p in groups[group]
            if p.metrics is None or metric in p.metrics
        )
        return {"value": None, "low": None, "high": None, "n": 0, "n_expected": sum(per_set)}

    return {
        metric: {
            group: joined_cell(
                {
                    seed: one.aggregates.get(metric, {}).get(group) or empty(metric, group)
                    for seed, one in files.items()
                },
                _of_prompts(suite, files, metric, group),
                METRICS[metric].bounds,
            )
            | _told_of_few(run, files, metric, group)
            for group in groups
        }
        for metric in suite.metrics
    }


def _told_of_few(
    run: RunFiles, files: dict[int, StudentFiles], metric: str, group: str
) -> dict[str, str]:
    """Why a distance is missing, or what its images, those of one seed, are too few for."""
    extractor = METRICS[metric].extractor
    real = run.reference.get(extractor or "")
    scored = [
        f
        for f in files.values()
        if extractor in f.features and group in f.aggregates.get(metric, {})
    ]
    if real is None or extractor is None or not scored:
        return {}
    num_real = real.num_images
    if real.fixed is None:  # those of the group's prompts
        table = scored[0].per_image
        assert table is not None, "of what has features"
        prompts = table["prompt_id"][counted(metric, table, group, run.suite.metrics_of())]
        num_real = int(np.isin(real.groups.astype(str), prompts.to_numpy(str)).sum())
    n = min(f.aggregates[metric][group]["n"] for f in scored)
    return told_of_few(metric, n, scored[0].features[extractor].shape[1], num_real)


def _of_prompts(suite: Suite, files: dict[int, StudentFiles], metric: str, group: str) -> OfPrompts:
    """What the choice of prompts adds to the seeds' spread, of metrics that each image has."""
    if len(files) == 1 or METRICS[metric].kind == "distribution":
        return NO_PROMPTS
    tables = [t for one in files.values() if (t := one.per_image) is not None and metric in t]
    asked = suite.metrics_of()
    images = (values_of(metric, t, counted(metric, t, group, asked)) for t in tables)
    numbers: dict[str, int] = {}
    return shared_prompts([(values, numbered(prompts, numbers)) for values, prompts in images])


def _clock(files: dict[int, StudentFiles]) -> dict[str, Any]:
    """Means over the seeds."""
    clock = {}
    for stage, names in CLOCKS.items():
        for theirs, ours in names.items():
            done = [one.done[stage] for one in files.values() if theirs in one.done.get(stage, {})]
            if done:
                clock[ours] = sum(record[theirs] for record in done) / len(done)
    return clock


def _provenance(run: RunFiles) -> dict[str, Any]:
    """Fields that all stages share stand once under "common"; others by student and stage."""
    seen: dict[str, dict[str, Any]] = {}
    for name, by_seed in run.students.items():
        for seed, files in by_seed.items():
            for stage, done in files.done.items():
                where = f"{name}/{stage}" + (f"/{seed}" if len(by_seed) > 1 else "")
                fields = {k: done[k] for k in ("weights_sha256",) if k in done}
                for key, value in {**done.get("provenance", {}), **fields}.items():
                    seen.setdefault(key, {})[where] = value
    alike = {k: all(v == next(iter(vs.values())) for v in vs.values()) for k, vs in seen.items()}
    return {
        "common": {k: next(iter(vs.values())) for k, vs in seen.items() if alike[k]},
        "varying": {k: vs for k, vs in seen.items() if not alike[k]},
    }
