"""What a report could have shown, against closed forms and against simulated suites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import make_run, make_suite
from scipy import stats
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.planning.outlook import duration
from ddmd_bench.planning.part import Asked
from ddmd_bench.reporting.budget import budget_lines
from ddmd_bench.reporting.claims.of_differences import beats, with_why
from ddmd_bench.reporting.differences import ALIKE, TOO_FEW, Difference
from ddmd_bench.stages.report import report
from ddmd_bench.stats.intervals import paired_difference
from ddmd_bench.stats.power import Spreads, least_difference, needed, spreads_of
from ddmd_bench.stats.seeds import by_prompt, of_prompts, paired_t
from ddmd_bench.suite.claims import Claim

SPREADS = Spreads(0.01, 1.0, 0.5, 2.0, num_seeds=4, num_prompts=200, num_images=2)
PROMPTS = np.arange(200).repeat(2)


def drawn(generator: np.random.Generator, s: Spreads, difference: float = 0.0) -> list[Any]:
    """Differences and prompts of each seed."""
    k, n, m = s.num_seeds, s.num_prompts, int(s.num_images)
    parts = ((s.seeds, (k, 1, 1)), (s.prompts, (1, n, 1)), (s.both, (k, n, 1)))
    values = difference + generator.normal(0, s.images**0.5, (k, n, m))
    for variance, shape in parts:
        values = values + generator.normal(0, variance**0.5, shape)
    return [(of_seed.ravel(), np.arange(n).repeat(m)) for of_seed in values]


def test_with_one_seed_it_is_the_textbook_s() -> None:
    one = SPREADS._replace(seeds=0.0, both=0.0, num_seeds=1)
    reach = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert least_difference(one) == pytest.approx(reach * ((1.0 + 2.0 / 2) / 200) ** 0.5)


def test_spreads_are_found_again() -> None:
    generator = np.random.default_rng(0)
    found = [spreads_of(*by_prompt(drawn(generator, SPREADS))) for _ in range(150)]
    means = np.array(found, np.float64).mean(0)
    assert means[1:4] == pytest.approx(SPREADS[1:4], rel=0.05)
    assert means[0] == pytest.approx(SPREADS.seeds, rel=0.35)  # of four seeds, and never below 0
    assert tuple(means[4:]) == SPREADS[4:]


@pytest.mark.parametrize("unit", ["prompts", "images", "seeds"])
def test_the_least_number_that_shows_a_difference(unit: Any) -> None:
    difference = 0.98 * least_difference(SPREADS)
    number = needed(SPREADS, difference, unit)
    assert number is not None
    field = f"num_{unit}"
    assert number > getattr(SPREADS, field)
    assert least_difference(SPREADS._replace(**{field: number})) <= difference
    assert least_difference(SPREADS._replace(**{field: number - 1})) > difference


def test_what_others_add_no_number_takes_away() -> None:
    assert needed(SPREADS, 0.1, "prompts") is None  # the seeds' part alone is more
    assert needed(SPREADS._replace(num_seeds=1), 0.001, "seeds") is None  # unknown of one seed


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_the_power_is_about_80_percent(seeds: int) -> None:
    generator, spreads = np.random.default_rng(seeds), SPREADS._replace(num_seeds=seeds)
    if seeds == 1:
        spreads = spreads._replace(seeds=0.0, both=0.0)
    least, shown = least_difference(spreads), 0
    for _ in range(300):
        pairs = drawn(generator, spreads, least)
        if seeds == 1:
            values, groups = pairs[0]
            shown += paired_difference(values, 0 * values, groups, seed=0).low > 0
        else:
            means = by_prompt(pairs)[0]
            shown += paired_t(means.mean(1).tolist(), of_prompts(means))[1] > 0
    assert 0.72 < shown / 300 < 0.9


def test_a_report_holds_what_it_could_have_shown(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    record = report(plan)
    for row in record["differences"]:
        assert row["least"] > 0
        half = (row["high"] - row["low"]) / 2
        assert row["least"] == pytest.approx(1.43 * half, rel=0.35), row["metric"]
    arguments = ["power", str(plan.report_folder), "--metric", "prompt_accuracy"]
    result = CliRunner().invoke(app, [*arguments, "--difference", "3"])
    assert result.exit_code == 0, result.output
    assert "what shows a difference of 3.0 points" in result.output
    assert "(40)" in result.output
    wrong = CliRunner().invoke(app, ["power", str(plan.report_folder), "--metric", "hps_v21",
                                     "--difference", "1"])  # fmt: skip
    assert wrong.exit_code == 2
    assert "unknown metric 'hps_v21'" in wrong.output
    stored = json.loads((plan.report_folder / "report.json").read_text())
    for row in stored["differences"]:
        del row["spreads"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(stored))
    result = CliRunner().invoke(app, ["power", str(old), "--metric", "std", "--difference", "1"])
    assert "made before reports had spreads" in result.output


@pytest.mark.parametrize(
    ("margin", "low", "high", "why"),
    [(None, -0.1, 0.1, TOO_FEW), (0.2, -0.1, 0.1, ALIKE),
     (0.05, -0.1, 0.02, TOO_FEW), (0.2, 0.1, 0.3, "")],
)  # fmt: skip
def test_undecided_is_too_few_or_alike(
    margin: float | None, low: float, high: float, why: str
) -> None:
    claim = Claim(claim="beats", student="a", other="b", metric="std", margin=margin)
    d = Difference((low + high) / 2, low, high, 0.5, 10, 0.5)
    assert with_why(claim, beats(d), d).why == why


def test_a_plan_tells_what_a_difference_takes(tmp_path: Path) -> None:
    suite = make_suite(seeds=(0,))
    record = report(make_run(tmp_path, suite))
    lines = budget_lines(Asked.of(suite), record, "prompt_accuracy=3")
    known = [Spreads(**d["spreads"]) for d in record["differences"]
             if d["metric"] == "prompt_accuracy"]  # fmt: skip
    most = max(needed(s, 0.03, "prompts") or 0 for s in known)
    images = most * Asked.of(suite).num_images // Asked.of(suite).num_prompts
    text = "\n".join(lines)
    assert f"all of them: {most:,} prompts, {images:,} images a student" in text
    # Two seconds for 80 images, of each of five students.
    assert f"drawing: {duration(images * 5 * 2.0 / 80)} by the report's own" in text
    assert " operations, counted from the networks" in text
    twice = make_suite(seeds=(0, 1))
    text = "\n".join(budget_lines(Asked.of(twice), record, "prompt_accuracy=3"))
    assert f"{2 * 5 * images:,} of 5 students with 2 seeds" in text


@pytest.mark.parametrize("wanted", ["prompt_accuracy", "prompt_accuracy=much", "=1", "std=-1"])
def test_what_is_no_metric_with_a_size_is_refused(tmp_path: Path, wanted: str) -> None:
    suite = make_suite([])
    record = report(make_run(tmp_path, suite))
    with pytest.raises(BenchError, match="expected"):
        budget_lines(Asked.of(suite), record, wanted)
