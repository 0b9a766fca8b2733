"""The words and cells of the section on the literature's values, for the page and for Markdown."""

from __future__ import annotations

from typing import Any

from ddmd_bench.reporting import notes
from ddmd_bench.reporting.numbers import MISSING, heading, interval_shown, metric_shown
from ddmd_bench.scorers import METRICS

TITLES = {
    "prompts": "Prompts",
    "num_prompts": "Number of prompts",
    "images_per_prompt": "Images per prompt",
    "resolution": "Pixels per side",
    "num_inference_steps": "Steps",
    "gan": "Trained with a GAN",
    "reference": "Reference",
    "num_reference": "Number of reference images",
    "resize": "Resize",
    "version": "Measured by",
    "text_prefix": "Text before each prompt",
}


def literature_view(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry for each published table; empty where the suite names none."""
    return [_table(entry, record["students"]) for entry in record.get("literature", [])]


def _table(entry: dict[str, Any], students: dict[str, Any]) -> dict[str, Any]:
    columns = entry["columns"]
    return {
        "title": entry["title"],
        "source": entry["source"],
        "header": {
            key: {**_header(column), "lacking": _lacking(entry, key)}
            for key, column in columns.items()
        },
        "rows": [
            {
                "student": row["student"],
                "title": students[row["student"]]["title"],
                "label": row["label"],
                "cells": [_cell(columns[key], cell) for key, cell in row["cells"].items()],
            }
            for row in entry["rows"]
        ],
        "notes": [*entry["notes"], *_row_notes(entry)],
        "differences": [_sentence(d, columns, students) for d in entry["differences"]],
        "differences_title": notes.LITERATURE_DIFFERENCES
        if entry["compared"]
        else notes.LITERATURE_NOTHING_SHARED,
    }


def _header(column: dict[str, Any]) -> dict[str, str]:
    metric, scale = column["metric"], column["scale"]
    title = column["label"]
    if metric in METRICS:
        part = f", {column['label']}" if column["category"] else ""
        title = heading(metric, part)
    return {"title": title, "note": f"printed × {scale:g}" if scale != 1 else ""}


def _lacking(entry: dict[str, Any], key: str) -> str:
    """Why this run has no value in a whole column, said once; '' where it has one, or many whys."""
    reasons = {row["cells"][key]["ours"]["missing"] for row in entry["rows"]}
    return str(reasons.pop() or "") if len(reasons) == 1 else ""


def _cell(column: dict[str, Any], cell: dict[str, Any]) -> dict[str, str]:
    """ours, its interval or why it is missing; theirs as printed, and in our display unit where
    that is another."""
    metric, ours = column["metric"], cell["ours"]
    known = ours["value"] is not None
    theirs, in_our_unit = MISSING, ""
    if cell["printed"] is not None:
        theirs = cell["printed"] + ("?" if cell["uncertain"] else "")
        if metric in METRICS and METRICS[metric].scale != column["scale"]:
            in_our_unit = f"= {metric_shown(metric, cell['theirs'])}"
    interval = interval_shown(metric, ours["low"], ours["high"]) if known else MISSING
    return {
        "ours": metric_shown(metric, ours["value"]) if known else MISSING,
        "ours_note": ours["missing"] or ("" if interval == MISSING else interval),
        "theirs": theirs,
        "theirs_note": in_our_unit if cell["printed"] is not None else "not printed",
    }


def _row_notes(entry: dict[str, Any]) -> list[str]:
    """What a source says, or must be said, of single rows and values."""
    found = []
    for row in entry["rows"]:
        if row["source"]:
            found.append(f"{row['label']}: {row['source']}.")
        if row["note"]:
            found.append(f"{row['label']}: {row['note']}")
        for key, cell in row["cells"].items():
            where = f"{row['label']}, {entry['columns'][key]['label']} {cell['printed']}"
            if cell["uncertain"]:
                found.append(f"{where}: uncertain where it was read.")
            if cell["note"]:
                found.append(f"{where}: {cell['note']}")
    return found


def _sentence(
    difference: dict[str, Any], columns: dict[str, Any], students: dict[str, Any]
) -> dict[str, str]:
    """A difference as {title, text}: what it is about, both sides, and of whom it is true."""
    scope = [
        ", ".join(students[name]["title"] for name in difference["students"]),
        ", ".join(columns[key]["label"] for key in difference["columns"]),
    ]
    where = "; ".join(filter(None, scope))
    text = f"published {difference['theirs']}, here {difference['ours']}"
    return {
        "title": TITLES[difference["field"]],
        "text": text + (f" ({where})" if where else ""),
    }
