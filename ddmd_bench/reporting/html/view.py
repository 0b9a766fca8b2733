"""What the HTML page shows, made ready: text, positions and pictures, no markup."""

from __future__ import annotations

from typing import Any

import yaml

from ddmd_bench.reporting import notes
from ddmd_bench.reporting.agreement import RULE, correlation_table, sentences
from ddmd_bench.reporting.claims.judging import rules_of
from ddmd_bench.reporting.claims.words import claim_result
from ddmd_bench.reporting.figures import dynamics_curves, evaluation_curves, figures, styles_in
from ddmd_bench.reporting.html.cards import cards
from ddmd_bench.reporting.html.course_pictures import course_pictures
from ddmd_bench.reporting.html.forest import Axis
from ddmd_bench.reporting.html.ranked import ranked
from ddmd_bench.reporting.html.set_values import set_values
from ddmd_bench.reporting.literature_view import literature_view
from ddmd_bench.reporting.numbers import interval_shown, metric_shown
from ddmd_bench.reporting.pictures import pictures_of
from ddmd_bench.reporting.ranking import headline_metric
from ddmd_bench.reporting.runfiles import RunFiles, real_in
from ddmd_bench.reporting.seeds import shortfall
from ddmd_bench.reporting.sequential import TITLE, limits, said
from ddmd_bench.reporting.sequential import rows as rows_settled
from ddmd_bench.reporting.summary import summary
from ddmd_bench.reporting.trade import trade
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.metrics import GROUPS, group_of
from ddmd_bench.suite.schema import Suite

# The page's parts by their ids.
CONTENTS = {
    "glance": "At a glance", "values": "All values", "differences": "Differences",
    "claims": "Claims", "training": "Training", "evaluations": "Values during the training",
    "pictures": "Pictures", "students": "Students", "cost": "Cost",
    "literature": "Literature", "limits": "Limits", "provenance": "Provenance",
}  # fmt: skip
# What `texts.texts_of` writes beside it.
FILES = (
    "report.md", "table.csv", "differences.csv", "claims.csv", "agreement.csv", "table.tex",
    "methods.tex", "references.bib", "report.json",
)  # fmt: skip
_MAY_LACK = {"claims": "claims", "training": "dynamics", "evaluations": "evaluations"}


def _has(record: dict[str, Any], part: str) -> bool:
    if part == "literature":
        return "literature" in record
    return part not in _MAY_LACK or bool(record[_MAY_LACK[part]])


def headlines(suite: Suite) -> list[str]:
    """The two metrics beside the pictures: the first for images, the first for distributions."""
    return [m for kind in ("image", "distribution") if (m := headline_metric(suite, kind))]


def page_view(record: dict[str, Any], run: RunFiles) -> dict[str, Any]:
    """Everything that the template interpolates."""
    suite = run.suite
    headline = record["wins"]["metric"]
    marked = headline if headline and METRICS[headline].judges else None
    return {
        "record": record,
        "suite": suite,
        "contents": {name: title for name, title in CONTENTS.items() if _has(record, name)},
        "files": FILES,
        "metrics": {m: METRICS[m] for m in suite.metrics},
        "metric_groups": _metric_groups(suite),
        "headlines": headlines(suite),
        "marked": marked,
        "summary": summary(record),
        "unfinished": sum(bool(student["missing"]) for student in record["students"].values()),
        "styles": styles_in(record),
        "several": len(suite.seeds) > 1,
        "has_real": real_in(suite) is not None,
        "notes": {
            **said(record),
            "agreement": RULE,
            "bands": notes.BANDS,
            "gating": notes.gating(record["suite"]),
            "wins": notes.WINS,
            "limits": limits(record),
            "literature": notes.LITERATURE,
        },
        "prompts": run.prompts,
        "strips": {
            name: [
                {**picture, "prompt": run.prompts[p]}
                for p in record["pictures"]["strip"]
                for picture in pictures_of(run.first_seed(name), p, 1, marked)
            ]
            for name in run.students
        },
        "bars": {name: _share_bar(record["table"][name], marked) for name in run.students},
        "sets": list(suite.prompts),
        "heat": {m: _heat(record, m) for m in suite.metrics},
        "differences": {m: _differences(record, m) for m in suite.metrics},
        "settled": (TITLE, *rows_settled(record)),
        "agreement": (*correlation_table(record), sentences(record)),
        "claims": [
            {**claim, "result": claim_result(claim, len(suite.seeds))} for claim in record["claims"]
        ],
        "rules": rules_of({c.claim for c in suite.claims}, len(suite.seeds)),
        "figures": figures(record, dynamics_curves(record)),
        "evaluation_figures": figures(record, evaluation_curves(record)),
        "course": course_pictures(run),
        "legend": _legend(record),
        "trade": trade(record),
        "ranked": ranked(record, headline),
        "cards": cards(record, suite),
        "set_values": set_values(suite),
        "literature": literature_view(record),
        "suite_text": yaml.safe_dump(record["suite"], sort_keys=False, allow_unicode=True),
    }


def _metric_groups(suite: Suite) -> dict[str, list[str]]:
    """The suite's metrics by the titles of their groups."""
    found = {title: [m for m in suite.metrics if group_of(m) == g] for g, title in GROUPS.items()}
    return {title: members for title, members in found.items() if members}


def _share_bar(cells: dict[str, Any], metric: str | None) -> dict[str, float] | None:
    """Positions in percent for a metric that is a share of images, None for any other."""
    if metric is None or METRICS[metric].unit != "%":
        return None
    cell = cells[metric].get("all", {})
    if cell.get("value") is None:
        return None
    low, high = (cell[k] if cell.get(k) is not None else cell["value"] for k in ("low", "high"))
    low, high = max(0.0, low), min(1.0, high)
    return {"value": 100 * cell["value"], "low": 100 * low, "width": 100 * (high - low)}


def _legend(record: dict[str, Any]) -> dict[str, str]:
    """The students with curves, and how many seeds are in them where some are missing."""
    seeds = record["first_updates"]
    return {
        n: shortfall(sum(n in row for row in seeds.values()), len(seeds))
        for n in record["dynamics"]
    }


def _differences(record: dict[str, Any], metric: str) -> dict[str, Any]:
    """A metric's axis and its rows."""
    rows = [d for d in record["differences"] if d["metric"] == metric]
    axis = Axis.of(metric, rows)
    return {
        "ticks": axis.ticks(),
        "ends": ("less", "more") if METRICS[metric].better == "reference" else ("worse", "better"),
        "rows": [
            {
                **d,
                "title": record["students"][d["student"]]["title"],
                "shown": metric_shown(metric, d["value"], sign=True),
                "interval": interval_shown(metric, d["low"], d["high"], sign=True),
                "could_show": metric_shown(metric, d["least"]),
                "shortfall": shortfall(d["n_seeds"], d["n_seeds_expected"]),
                "bar": axis.bar(d),
            }
            for d in rows
        ],
    }


def _heat(record: dict[str, Any], metric: str) -> dict[str, dict[str, float]]:
    """How far each student is ahead of the baseline on each prompt set, in parts of the most."""
    table, baseline = record["table"], record["suite"]["baseline"]
    sign = {"higher": 1, "lower": -1, "reference": 0}[METRICS[metric].better]
    ahead: dict[str, dict[str, float]] = {}
    for name, row in table.items():
        for group, cell in row.get(metric, {}).items():
            mark = table[baseline].get(metric, {}).get(group, {}).get("value")
            if group != "all" and cell.get("value") is not None and mark is not None:
                ahead.setdefault(name, {})[group] = sign * (cell["value"] - mark)
    most = max((abs(v) for own in ahead.values() for v in own.values()), default=0.0) or 1.0
    return {name: {group: v / most for group, v in own.items()} for name, own in ahead.items()}
