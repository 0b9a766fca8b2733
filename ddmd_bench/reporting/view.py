"""What the HTML page shows, made ready: text, positions and pictures, no markup."""

from __future__ import annotations

from statistics import median
from typing import Any

import yaml

from ddmd_bench.reporting import notes
from ddmd_bench.reporting.agreement import RULE, correlation_table, sentences
from ddmd_bench.reporting.claims import rules_of
from ddmd_bench.reporting.figures import dynamics_figures, evaluation_figures, styles_in
from ddmd_bench.reporting.literature_view import literature_view
from ddmd_bench.reporting.numbers import interval_shown, metric_shown, shown, significant, unit_of
from ddmd_bench.reporting.pictures import pictures_of
from ddmd_bench.reporting.ranking import headline_metric
from ddmd_bench.reporting.runfiles import RunFiles, real_in
from ddmd_bench.reporting.seeds import shortfall
from ddmd_bench.reporting.sequential import TITLE, limits, said
from ddmd_bench.reporting.sequential import rows as rows_settled
from ddmd_bench.reporting.summary import summary
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.schema import Suite

CLIP = 4.0  # a bar this many times longer than the median one is cut, so that others stay visible


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
        "metrics": {m: METRICS[m] for m in suite.metrics},
        "headlines": headlines(suite),
        "marked": marked,
        "summary": summary(record),
        "styles": styles_in(record),
        "several": len(suite.seeds) > 1,
        "has_real": real_in(suite) is not None,
        "notes": {
            **said(record),
            "agreement": RULE,
            "bands": notes.BANDS,
            "gating": notes.gating(record["suite"]),
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
        "groups": ["all", *suite.prompts],
        "differences": {m: _differences(record, m) for m in suite.metrics},
        "settled": (TITLE, *rows_settled(record)),
        "agreement": (*correlation_table(record), sentences(record)),
        "claims": [
            {**claim, "result": claim_result(claim, len(suite.seeds))} for claim in record["claims"]
        ],
        "rules": rules_of({c.claim for c in suite.claims}, len(suite.seeds)),
        "figures": dynamics_figures(record),
        "evaluation_figures": evaluation_figures(record),
        "legend": _legend(record),
        "literature": literature_view(record),
        "suite_text": yaml.safe_dump(record["suite"], sort_keys=False, allow_unicode=True),
    }


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


def _differences(record: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    """Rows of one metric with the positions of their bars, in percent of the bar's box."""
    rows = [d for d in record["differences"] if d["metric"] == metric]
    reach = [max(abs(d["low"]), abs(d["high"])) for d in rows if not d["missing"]]
    # Where more than half are zero the median says nothing.
    limit = min(max(reach), CLIP * median(reach) or max(reach)) if reach else 0.0

    def place(value: float) -> float:
        return 50 + 48 * max(-1.0, min(1.0, value / limit)) if limit else 50.0

    return [
        {
            **d,
            "title": record["students"][d["student"]]["title"],
            "shown": metric_shown(metric, d["value"], sign=True),
            "interval": interval_shown(metric, d["low"], d["high"], sign=True),
            "could_show": metric_shown(metric, d["least"]),
            "shortfall": shortfall(d["n_seeds"], d["n_seeds_expected"]),
            "bar": None
            if d["missing"]
            else {
                "value": place(d["value"]),
                "low": place(d["low"]),
                "width": place(d["high"]) - place(d["low"]),
            },
        }
        for d in rows
    ]


def claim_result(claim: dict[str, Any], num_seeds: int) -> str:
    """The numbers a verdict rests on, in words."""
    value, low, high, metric = (claim[k] for k in ("value", "low", "high", "metric"))
    note: str = claim["note"]
    if value is None:
        return note
    if claim["claim"] == "bounded":
        text = (
            f"between {significant(low)} and {significant(high)} times its start, "
            f"{significant(value)} times at the end"
        )
    elif claim["claim"] == "rises":
        interval = f"{significant(low)} to {significant(high)}"
        which = "95 % interval" if num_seeds == 1 else "the seeds' 95 % intervals lie within"
        text = f"rise over the training {significant(value)} ({which} {interval})"
    elif claim["claim"] == "preferred":
        interval = f"{shown(100 * low, 1)} to {shown(100 * high, 1)}"
        text = f"above in {shown(100 * value, 1)} % (95 % interval {interval})"
    else:
        amount = metric_shown(metric, value, sign=True) + unit_of(metric, difference=True)
        interval = interval_shown(metric, low, high, sign=True)
        which = "95 % interval" + (f" over {claim['over']}" if num_seeds > 1 else "")
        better = "" if claim["claim"] == "same" else "; positive is in favour of the claim"
        text = f"difference {amount} ({which} {interval}{better})"
    return "; ".join(filter(None, [text, claim["why"], note]))
