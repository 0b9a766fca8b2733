"""What a report says where drawing ended when the comparisons were settled."""

from __future__ import annotations

from typing import Any

from ddmd_bench.measuring.looks import compared_students, outcome_named, rule_of
from ddmd_bench.reporting import notes
from ddmd_bench.reporting.differences import last_look
from ddmd_bench.reporting.numbers import metric_shown, unit_of
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.scorers import METRICS

TITLE = "Drawn until settled"
_VALUES = (
    "Mean over the prompts that were drawn of a student and its 95 % interval over prompts, as if "
    "their number had been fixed beforehand: it ended by what was seen, and students may differ "
    "in it. Read comparisons among the differences."
)
_DIFFERENCES = (
    "Student minus baseline on the prompts that both have, on the same noise, with the interval of "
    "a confidence sequence: it holds however often one looked (Waudby-Smith and others 2024, "
    "Theorem 2.2)."
)
_CLAIM = (
    "A claim rests on its own 95 % confidence sequence, over the prompts that both students have."
)
_LIMIT = (
    "Drawing ended when comparisons were settled: no p-value of a fixed number of prompts is "
    "given, and distances of sets are not compared, since they hang on the number of images."
)


def sequential(run: RunFiles) -> dict[str, Any]:
    """The rule, the looks, and how much was drawn; {} of a suite that draws all."""
    suite, rule = run.suite, rule_of(run.suite)
    if rule is None:
        return {}
    files = {name: run.first_seed(name) for name in suite.students}
    comparisons = []
    for name in compared_students(suite):
        for metric in rule.metrics:
            last = last_look(run, rule, metric, name)
            answer = last.answer if last else None
            comparisons.append(
                {
                    "student": name,
                    "metric": metric,
                    "outcome": outcome_named(metric, answer) if answer else "undecided",
                    "prompts": last.num_prompts if last else 0,
                }
            )
    num_prompts = {
        name: one.per_image["prompt_id"].nunique() if one.per_image is not None else 0
        for name, one in files.items()
    }
    num_looks = -(-max(num_prompts.values(), default=0) // rule.block)
    whole = sum(p.num_prompts * p.images_per_prompt for p in suite.prompts.values())
    return {
        "order": rule.order,
        "metrics": list(rule.metrics),
        "margins": dict(rule.margins),
        "block": rule.block,
        "looks": num_looks,
        "level": rule.level,
        "num_comparisons": rule.num_comparisons,
        "num_prompts": num_prompts,
        "images": {
            name: 0 if one.per_image is None else len(one.per_image) for name, one in files.items()
        },
        "images_of_all_prompts": whole,
        "comparisons": comparisons,
    }


def said(record: dict[str, Any]) -> dict[str, str]:
    """What stands above values, differences and claims, and what the last rests on."""
    num_seeds = len(record["suite"]["seeds"])
    if "sequential" not in record:
        return {
            "values": notes.values(num_seeds),
            "differences": notes.differences(num_seeds),
            "could_show": notes.COULD_SHOW,
            "family": notes.family(record),
            "claim": notes.CLAIM,
        }
    return {
        "values": _VALUES,
        "differences": _DIFFERENCES,
        "could_show": "",
        "family": _family(record["sequential"]),
        "claim": _CLAIM,
    }


def limits(record: dict[str, Any]) -> list[str]:
    """What such numbers do not say, before what no report says."""
    return [*([_LIMIT] if "sequential" in record else []), *notes.limits(record)]


def _family(found: dict[str, Any]) -> str:
    num, metrics = found["num_comparisons"], _titles(found["metrics"])
    told = (
        f"{num} comparisons were to be settled, on {metrics}: they hold together with 95 % "
        f"({100 * found['level']:.4g} % each), looked at every {found['block']} prompts. Other "
        "metrics have 95 % each and no outcome."
    )
    margins = ", ".join(
        f"{METRICS[m].title} {metric_shown(m, size)}{unit_of(m, difference=True)}"
        for m, size in found["margins"].items()
    )
    return told + (
        f" Alike is within {margins}." if margins else " Without a margin none is alike."
    )


def _titles(metrics: list[str]) -> str:
    return " and ".join(METRICS[m].title for m in metrics)


def sentence(record: dict[str, Any]) -> str:
    """How many images were drawn of how many, and how many comparisons that settled; '' of all."""
    found = record.get("sequential")
    if not found:
        return ""
    students = {name for name, num in found["images"].items() if num}
    drawn = sum(found["images"].values())
    whole = found["images_of_all_prompts"] * len(students)
    settled = sum(one["outcome"] != "undecided" for one in found["comparisons"])
    saved = f" ({100 * (1 - drawn / whole):.0f} % saved)" if whole else ""
    return (
        f"{TITLE}: {drawn:,} of {whole:,} images{saved}; {settled} of {len(found['comparisons'])} "
        f"comparisons with the baseline were settled, in {found['looks']} looks at most."
    )


def rows(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: of each student what was drawn, and what each metric came to."""
    found = record.get("sequential")
    if not found:
        return [], []
    total = sum(p["num_prompts"] for p in record["suite"]["prompts"].values())
    outcomes = {(one["student"], one["metric"]): one for one in found["comparisons"]}
    header = ["student", "prompts", "images", *(METRICS[m].title for m in found["metrics"])]
    body = []
    for name, student in record["students"].items():
        cells = [student["title"], f"{found['num_prompts'][name]:,} of {total:,}"]
        cells.append(f"{found['images'][name]:,} of {found['images_of_all_prompts']:,}")
        for metric in found["metrics"]:
            one = outcomes.get((name, metric))
            cells.append(f"{one['outcome']} after {one['prompts']:,} prompts" if one else "")
        body.append(cells)
    return header, body
