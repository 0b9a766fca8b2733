"""What a report says in its first sentences, made from its numbers alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ddmd_bench.reporting.differences import ALIKE, TOO_FEW
from ddmd_bench.reporting.numbers import interval_shown, metric_shown, unit_of
from ddmd_bench.reporting.sequential import sentence
from ddmd_bench.scorers import METRICS


def summary(record: dict[str, Any]) -> list[str]:
    """Who leads, by how much over the baseline, what the claims came to, what is missing."""
    sentences = [*_leader(record), *filter(None, [sentence(record)]), *_claims(record)]
    lost = [f"{s['title']} {s['missing']}" for s in record["students"].values() if s["missing"]]
    if lost:
        sentences.append("Missing: " + "; ".join(lost) + ".")
    return sentences


def _leader(record: dict[str, Any]) -> list[str]:
    metric, students = record["wins"]["metric"], record["students"]
    best = record["best"].get(metric) if metric else None
    if best is None:
        return ["No trained student has been scored on an image metric yet."]
    cell = record["table"][best][metric]["all"]
    values = {name: row[metric]["all"]["value"] for name, row in record["table"].items()}
    trained = [n for n, s in students.items() if s["source"] == "train" and values[n] is not None]
    seeds = _seeds(record)
    which = f"95 % interval over {seeds}" if seeds else "95 % interval"
    name = METRICS[metric].title
    if name.split()[0][1:].islower():  # a word, not a name such as ImageReward
        name = name[:1].lower() + name[1:]
    sentences = [
        (
            f"Of {len(trained)} trained students, {students[best]['title']} has the best {name}: "
            f"{metric_shown(metric, cell['value'])}{unit_of(metric)} "
            f"({which} {interval_shown(metric, cell['low'], cell['high'])})."
        )
    ]
    baseline = record["suite"]["baseline"]
    rival = best if best != baseline else record["pictures"]["challenger"]
    rows = [d for d in record["differences"] if (d["student"], d["metric"]) == (rival, metric)]
    if rival in trained and rows and rows[0]["value"] is not None:
        told = _sure_in_sequence if "sequential" in record else _sure
        sentences.append(_against_baseline(students, best, baseline, rows[0], told(rows[0], seeds)))
    return sentences


def _seeds(record: dict[str, Any]) -> str:
    """ "3 seeds" where intervals are over the seeds, '' where they are over the prompts of one."""
    num = len(record["suite"]["seeds"])
    return f"{num} seeds" if num > 1 else ""


def _against_baseline(
    students: dict[str, Any], best: str, baseline: str, row: dict[str, Any], tail: str
) -> str:
    metric, value = row["metric"], row["value"]
    amount = metric_shown(metric, abs(value)) + unit_of(metric, difference=True)
    amount += " more" if value > 0 else " less"
    nothing = metric_shown(metric, abs(value)) == metric_shown(metric, 0.0)
    interval = interval_shown(metric, row["low"], row["high"], sign=True)
    title, other = students[row["student"]]["title"], students[baseline]["title"]
    if best == baseline:
        has = "the same" if nothing else amount
        head = f"{other} is the baseline itself; the next, {title}, has {has}"
    elif nothing:
        head = f"That is the same as of the baseline, {other}"
    else:
        head = f"That is {amount} than the baseline, {other}"
    return f"{head} (difference {interval}), {tail}."


def _sure(row: dict[str, Any], seeds: str) -> str:
    if row["outcome"] in ("better", "worse"):
        return "and the difference holds after correction for all comparisons"
    return (
        f"which the {seeds or 'prompts'} of this run do not tell from chance after correction "
        "for all comparisons"
    )


def _sure_in_sequence(row: dict[str, Any], seeds: str) -> str:
    """Where drawing ended when comparisons were settled; one seed."""
    if row["outcome"] in ("better", "worse"):
        return "and the difference was settled as its images were drawn"
    if row["outcome"] == "alike":
        return "alike within the margin, as was settled while images were drawn"
    return "which was not settled"


def _claims(record: dict[str, Any]) -> list[str]:
    if not record["claims"]:
        return []
    counts = Counter(claim["verdict"] for claim in record["claims"])
    parts = [f"{counts[v]} {v}" for v in ("supported", "refuted", "undecided")]
    why = Counter(claim.get("why") for claim in record["claims"])
    split = ", ".join(f"{why[w]} {w}" for w in (TOO_FEW, ALIKE) if why[w])
    parts[2] += f" ({split})" if split else ""
    total = f"The suite's claims: {', '.join(parts)}."
    # What went the other way stands in the first paragraph, not only in the list of claims.
    refuted = [claim["text"] for claim in record["claims"] if claim["verdict"] == "refuted"]
    return [total, f"Refuted: {'; '.join(refuted)}."] if refuted else [total]
