"""The record of a report: everything that the pages show, as one JSON value.

What a clock or a memory gauge measured lies under "clock"; the rest depends on the run's results
alone and is the same for two runs with the same results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ddmd_bench.methods import METHODS
from ddmd_bench.records import SCHEMA, finite_or_none
from ddmd_bench.reporting.claims import judged
from ddmd_bench.reporting.differences import against_baseline, make_compare, win_rates
from ddmd_bench.reporting.dynamics import first_updates, real_levels, thinned
from ddmd_bench.reporting.pictures import PICTURE_RULE, chosen_prompts
from ddmd_bench.reporting.ranking import best_students, headline_metric
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, real_in, title_of
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite import Suite

DIGITS = 10  # significant; the last bits of a sum are noise
CLOCKS = {
    "train": {"seconds": "train_seconds", "peak_memory_gib": "peak_memory_gib"},
    "generate": {"seconds": "generate_seconds", "images_per_s": "images_per_s"},
    "score": {"seconds": "score_seconds"},
}
FACTS = {
    "train": ("num_iterations", "forwards"),
    "generate": ("n", "num_inference_steps", "network_evaluations"),
}


def build_record(run: RunFiles) -> dict[str, Any]:
    """The record of a run. Pure: the same files give the same value."""
    suite, compare = run.suite, make_compare(run)
    real = real_in(suite)
    metric = headline_metric(suite, "image")
    trained = {n: d for n, f in run.students.items() if (d := f.diagnostics) is not None}
    record = {
        "schema": SCHEMA,
        "fingerprint": run.fingerprint,
        "suite": suite.model_dump(mode="json"),
        "protocol": run.protocol,
        "students": {name: _student(suite, name, f) for name, f in run.students.items()},
        "table": {name: _cells(suite, f) for name, f in run.students.items()},
        "best": best_students(run),
        "differences": against_baseline(run, compare),
        "wins": {"metric": metric, "rates": win_rates(run, compare, metric) if metric else {}},
        "claims": judged(run, compare),
        "dynamics": {name: thinned(d) for name, d in trained.items()},
        "real_levels": real_levels(run.students[real].per_image) if real else {},
        "first_updates": {name: first_updates(d) for name, d in trained.items()},
        "pictures": {"rule": PICTURE_RULE, **chosen_prompts(run)},
        "provenance": _provenance(run),
        "clock": {name: _clock(f) for name, f in run.students.items()},
    }
    result: dict[str, Any] = plain(record)
    return result


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


def _student(suite: Suite, name: str, files: StudentFiles) -> dict[str, Any]:
    student = suite.students[name]
    facts = {
        key: files.done[stage][key]
        for stage, keys in FACTS.items()
        for key in keys
        if key in files.done.get(stage, {})
    }
    return {
        "title": title_of(name, student),
        "source": student.source,
        "method": student.method,
        "method_title": METHODS[student.method].title if student.method else None,
        "missing": files.missing,
        "facts": facts,
    }


def _cells(suite: Suite, files: StudentFiles) -> dict[str, dict[str, Any]]:
    """The student's aggregates; a student without any has every cell, empty and counted."""
    groups = {"all": list(suite.prompts.values())} | {n: [p] for n, p in suite.prompts.items()}

    def empty(metric: str, group: str) -> dict[str, Any]:
        once = METRICS[metric].kind == "prompt"
        per_set = (p.num_prompts * (1 if once else p.images_per_prompt) for p in groups[group])
        return {"value": None, "low": None, "high": None, "n": 0, "n_expected": sum(per_set)}

    return {
        metric: files.aggregates.get(metric) or {group: empty(metric, group) for group in groups}
        for metric in suite.metrics
    }


def _clock(files: StudentFiles) -> dict[str, Any]:
    return {
        ours: files.done[stage][theirs]
        for stage, names in CLOCKS.items()
        for theirs, ours in names.items()
        if theirs in files.done.get(stage, {})
    }


def _provenance(run: RunFiles) -> dict[str, Any]:
    """Fields that all stages share stand once under "common"; others by student and stage."""
    seen: dict[str, dict[str, Any]] = {}
    for name, files in run.students.items():
        for stage, done in files.done.items():
            fields = {k: done[k] for k in ("weights_sha256",) if k in done}
            for key, value in {**done.get("provenance", {}), **fields}.items():
                seen.setdefault(key, {})[f"{name}/{stage}"] = value
    alike = {k: all(v == next(iter(vs.values())) for v in vs.values()) for k, vs in seen.items()}
    return {
        "common": {k: next(iter(vs.values())) for k, vs in seen.items() if alike[k]},
        "varying": {k: vs for k, vs in seen.items() if not alike[k]},
    }
