"""Values from the literature: what the data say, and how a report shows them beside its own."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_run import IMAGE_METRICS, make_run, make_suite
from pydantic import ValidationError

import ddmd_bench
from ddmd_bench.errors import BenchError
from ddmd_bench.literature.values import (
    PATH,
    PROTOCOL_FIELDS,
    Stated,
    Table,
    literature_tables,
    load_tables,
)
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.reporting.literature import literature_beside
from ddmd_bench.reporting.literature_view import TITLES
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import RunFiles, load_run
from ddmd_bench.scorers import METRICS, Metric
from ddmd_bench.stages.report import report
from ddmd_bench.stats.frechet import RealFeatures, gaussian_of
from ddmd_bench.stats.moments import factored
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import Reference, Suite

TABLES = literature_tables()
CELLS = [
    (table, row, column)
    for table in TABLES.values()
    for row in table.rows
    for column in table.columns
    if table.value(row, column)
]
# Raw values that a metric can have at all: a scale that is off by 100 falls out.
RANGES = {
    "dpg_bench": (0.7, 1),
    "fid": (5, 40),
    "fid_dmd2": (5, 40),
    "patch_fid": (15, 40),
    "fid_teacher": (5, 40),
    "patch_fid_teacher": (15, 40),
    "clip_score": (0.3, 0.35),
    "clip_score_vit_g_14": (0.3, 0.35),
    "image_reward": (0.1, 1.3),
    "hps_v2": (0.24, 0.36),
    "hps_v21": (0.24, 0.36),
    "hps_v3": (-1, 14),
    "pick_score": (20, 25),
}
HPS_V21 = Metric("HPS v2.1", "image", "higher", None, 100, "", 2, "Human preference.")


# The data.


def test_data_lie_in_the_package() -> None:
    assert PATH.is_relative_to(Path(ddmd_bench.__file__).parent)


def test_every_value_has_a_source_and_a_possible_size() -> None:
    assert len(CELLS) > 300
    for table, row, column in CELLS:
        value = table.value(row, column)
        assert value is not None
        assert value.source.work
        assert value.source.place
        low, high = RANGES[table.metric(column)]
        assert low < value.raw < high, (table.id, row, column)


def test_columns_of_metrics_that_are_measured_here_have_their_names() -> None:
    named = {table.metric(column) for table in TABLES.values() for column in table.columns}
    known = named & METRICS.keys()
    for table in TABLES.values():
        for key, column in table.columns.items():
            if table.metric(key) in known:
                # A raw value is one of ours: scaled for display, or printed as it is.
                assert column.scale in (1, METRICS[table.metric(key)].scale)
    assert named - known <= RANGES.keys()


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_raw_and_printed_are_one_number(table: Table) -> None:
    for row in table.rows:
        for key, column in table.columns.items():
            if value := table.value(row, key):
                again = f"{value.raw * column.scale:.{column.decimals}f}"
                assert again == value.printed.replace("\u2212", "-")
                assert float(value.printed.replace("\u2212", "-")) / column.scale == pytest.approx(
                    value.raw, rel=1e-12
                )


@pytest.mark.parametrize(
    ("by_part", "overall", "column"),
    [
        ("decoupled_dmd_tab6", "decoupled_dmd_tab1", "hps_v21"),
        ("decoupled_dmd_tab6", "decoupled_dmd_tab6", "hps_v21"),
        ("decoupled_dmd_tab7", "decoupled_dmd_tab1", "hps_v3"),
        ("hpsv2_readme", "hpsv2_readme", "hps_v21"),
        ("hpsv2_odeval", "hpsv2_odeval", "hps_v21"),
    ],
)
def test_overall_values_are_plain_means_of_the_parts(
    by_part: str, overall: str, column: str
) -> None:
    parts, whole = TABLES[by_part], TABLES[overall]
    checked = 0
    for row in parts.rows:
        values = [parts.value(row, k) for k, c in parts.columns.items() if c.category]
        raw = [value.raw for value in values if value]
        expected = whole.value(row, column)
        assert expected is not None
        if raw:
            assert len(raw) == len(values)
            # To the printed digit: 30.105 is printed as 30.10 or as 30.11.
            unit = 10 ** -whole.columns[column].decimals / whole.columns[column].scale
            assert abs(math.fsum(raw) / len(raw) - expected.raw) <= 0.501 * unit
            checked += 1
    assert checked >= 1
    assert checked == len(parts.rows) or by_part.startswith("hpsv2")


def test_85_85_is_no_hps() -> None:
    table = TABLES["decoupled_dmd_tab1"]
    overall, hps = (table.value("decoupled_hybrid", c) for c in ("dpg_bench", "hps_v21"))
    assert overall is not None
    assert hps is not None
    assert (overall.printed, overall.raw) == ("85.85", 0.8585)
    assert overall.note.startswith("DPG-Bench overall, not HPS v2.1")
    assert "32.29" in overall.note
    assert (hps.printed, hps.raw) == ("32.29", 0.3229)
    hps_cells = [(t, r, c) for t, r, c in CELLS if t.metric(c).startswith("hps")]
    assert not [r for t, r, c in hps_cells if t.value(r, c).printed == "85.85"]  # type: ignore[union-attr]


def test_sdxl_table_keeps_the_gan_of_dmd2() -> None:
    table = TABLES["decoupled_dmd_tab2"]
    gan = {row: table.protocol_of(row, "fid").get("gan") for row in table.rows}
    assert {row for row, stated in gan.items() if stated == Stated(True, False)} == {
        "dmd2",
        "decoupled_hybrid",
    }
    assert "GAN included" in table.notes[0]
    without = TABLES["dmd2_tab4"].protocol_of("dmd2_without_gan", "fid")
    assert without["gan"] == Stated(False, False)


def test_what_was_read_second_hand_or_is_uncertain_says_so() -> None:
    how = {(t.id, t.value(r, c).source.how) for t, r, c in CELLS}  # type: ignore[union-attr]
    assert {table for table, read in how if read == "notes"} == {
        "flash_dmd", "tdm", "hpsv2_odeval", "dmd2_in_four_sources",
    }  # fmt: skip
    assert "rows" not in {read for _, read in how}
    assert ("senseflow_readme", "readme") in how
    assert ("hpsv2_readme", "issue") in how
    uncertain = [(t.id, r) for t, r, c in CELLS if t.value(r, c).uncertain]  # type: ignore[union-attr]
    assert uncertain == [("tdm", "tdm_sdxl")]


def test_one_checkpoint_in_four_sources() -> None:
    spread = TABLES["dmd2_in_four_sources"]
    own = {
        "decoupled_dmd": "decoupled_dmd_tab2",
        "flash_dmd": "flash_dmd",
        "senseflow": "senseflow_readme",
        "dmd2": "dmd2_readme",
    }
    assert {row.student or name for name, row in spread.rows.items()} == {"dmd2"}
    for row, table in own.items():
        for column in spread.columns:
            if here := spread.value(row, column):
                there = TABLES[table].value("dmd2", column)
                assert there is not None
                assert (here.raw, here.source) == (there.raw, there.source)
    rewards = [v.raw for row in own if (v := spread.value(row, "image_reward"))]
    assert max(rewards) - min(rewards) == pytest.approx(0.22, abs=0.005)
    for name in ("decoupled_dmd_tab2", "flash_dmd", "senseflow_readme"):
        table = TABLES[name]
        within = sorted(v.raw for row in table.rows if (v := table.value(row, "image_reward")))
        assert max(b - a for a, b in itertools.pairwise(within)) < max(rewards) - min(rewards)


# Strictness.


def table_data(**changes: Any) -> dict[str, Any]:
    return {
        "id": "one",
        "title": "One",
        "source": {"work": "A paper", "place": "Tab. 1", "how": "paper"},
        "protocol": {"num_prompts": 10},
        "columns": {"fid": {"label": "FID", "decimals": 2}},
        "rows": {"dmd": {"label": "DMD", "values": [18.95]}},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "x"}, "reference"),
        ({"source": {"work": "A paper", "place": "", "how": "paper"}}, "source.place"),
        ({"rows": {"dmd": {"label": "DMD", "values": [18.95, 1.0]}}}, "2 values for 1 columns"),
        ({"rows": {"dmd": {"label": "DMD", "values": [18.951]}}}, "more than the column's 2"),
        ({"rows": {"dmd": {"label": "DMD", "values": ["18.95"]}}}, "rows.dmd.values.0"),
        ({"protocol": {"num_prompts": None, "inferred": ["num_prompts"]}}, "have no value here"),
    ],
)
def test_data_are_strict(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump([table_data(**changes)]))
    with pytest.raises(BenchError, match=re.escape(message)):
        load_tables(path)


def test_nothing_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump([table_data(), table_data()]))
    with pytest.raises(BenchError, match="more than once"):
        load_tables(path)
    again = tmp_path / "again.yaml"
    row = "    dmd: {label: DMD, values: [19.32]}\n"
    again.write_text(yaml.safe_dump([table_data()]).replace("  rows:\n", f"  rows:\n{row}"))
    with pytest.raises(BenchError, match="'dmd' stands twice, first in line"):
        load_tables(again)


def test_the_nearest_protocol_counts() -> None:
    table = Table.model_validate(
        table_data(
            protocol={"num_prompts": 1, "resolution": 1, "prompts": "x", "inferred": ["prompts"]},
            columns={
                "fid": {
                    "label": "FID",
                    "decimals": 2,
                    "protocol": {"num_prompts": 2, "resolution": 2, "resize": None},
                }
            },
            rows={"dmd": {"label": "DMD", "values": [18.95], "protocol": {"num_prompts": 3}}},
        )
    )
    assert table.protocol_of("dmd", "fid") == {
        "prompts": Stated("x", True),
        "num_prompts": Stated(3, False),
        "resolution": Stated(2, False),
        "resize": Stated(None, False),
    }


def test_records_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TABLES["tdm"].title = "another"  # type: ignore[misc]


# In a suite.


def test_plan_names_the_nearest_table_and_row(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["literature"] = [
        {"table": "decoupled_dmd_tab22", "rows": {"dmd": "dmd2"}},
        {"table": "decoupled_dmd_tab1", "rows": {"dmd": "dmd", "ca_only": "decoupled_hibrid"}},
    ]
    with pytest.raises(BenchError) as error:
        make_plan(Suite.model_validate(tiny), tmp_path, tmp_path)
    first, second = str(error.value).splitlines()
    assert "literature[0].table: unknown published table 'decoupled_dmd_tab22'" in first
    assert first.endswith("Did you mean 'decoupled_dmd_tab2'?")
    assert "literature[1].rows.ca_only: unknown row of decoupled_dmd_tab1" in second
    assert second.endswith("Did you mean 'decoupled_hybrid'?")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"table": "tdm", "rows": {"dmx": "dmd2"}}], "Did you mean 'dmd'?"),
        ([{"table": "tdm", "rows": {"dmd": "dmd2"}}] * 2, "'tdm' named more than once"),
        ([{"table": "tdm", "row": {"dmd": "dmd2"}}], "Did you mean 'rows'?"),
        ([{"table": "tdm", "rows": {}}], "literature.0.rows"),
    ],
)
def test_suite_is_strict(
    tiny: dict[str, Any], write_suite: Any, entries: list[Any], message: str
) -> None:
    with pytest.raises(BenchError, match=re.escape(message)):
        load_suite(write_suite({**tiny, "literature": entries}))


def test_a_suite_without_published_values_is_as_before(tmp_path: Path) -> None:
    suite = make_suite()
    assert "literature" not in suite.model_dump(mode="json")
    plan = make_run(tmp_path, suite)
    assert "literature" not in report(plan)
    for path in plan.report_folder.iterdir():
        said = path.read_text().lower()
        assert "values from the literature" not in said
        assert "decoupled_dmd_tab" not in said


def test_the_data_are_part_of_the_reports_key(tiny: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"table": "tdm", "rows": {"dmd": "dmd2"}}]
    without = make_plan(Suite.model_validate(tiny), tmp_path, tmp_path)
    beside = make_plan(Suite.model_validate({**tiny, "literature": rows}), tmp_path, tmp_path)
    assert "literature" not in without.report_inputs
    assert "literature" in beside.report_inputs
    assert [t.key for t in without.tasks.values()] == [t.key for t in beside.tasks.values()]


# In a report.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A report with three students beside two tables, HPS v2.1 being measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, "hps_v21", HPS_V21)
        suite = make_suite(
            prompts={
                "seen": {"source": "hpdv2", "num_prompts": 20},
                "new": {"source": "x", "num_prompts": 20},
            },
            metrics=[*IMAGE_METRICS, "hps_v21", "diversity", "frechet_attributes"],
            literature=[
                {
                    "table": "decoupled_dmd_tab1",
                    "rows": {"teacher": "teacher", "dmd": "dmd",
                             "decoupled_hybrid": "decoupled_hybrid"},
                },
                {"table": "senseflow_readme", "rows": {"dmd": "dmd2"}},
            ],
        )  # fmt: skip
        plan = make_run(tmp_path_factory.mktemp("run"), suite)
        (plan.task("score", "decoupled_hybrid", 0).folder / "done.json").unlink()
        yield plan.report_folder, report(plan)


def test_record_holds_both_sides(made: tuple[Path, dict[str, Any]]) -> None:
    folder, record = made
    tab1, _ = record["literature"]
    assert json.loads((folder / "report.json").read_text())["literature"] == record["literature"]
    assert tab1["source"].startswith("Decoupled DMD, arXiv:2511.22677v1, Tab. 1 (transcription")
    cell = tab1["rows"][1]["cells"]["hps_v21"]
    # The prompts of its source are one of our two prompt sets: that part is compared.
    assert cell["group"] == "seen"
    assert cell["ours"]["value"] == record["table"]["dmd"]["hps_v21"]["seen"]["value"]
    assert (cell["theirs"], cell["printed"]) == (0.3061, "30.61")
    missing = {k: c["ours"]["missing"] for k, c in tab1["rows"][1]["cells"].items()}
    assert missing["dpg_bench"] == "not measured by ddmd_bench"
    assert missing["hps_v3"] == "not among this suite's metrics"
    lost = tab1["rows"][2]["cells"]["hps_v21"]["ours"]
    assert (lost["value"], lost["missing"]) == (None, "was not scored")


def test_differences_are_those_of_what_both_measured(made: tuple[Path, dict[str, Any]]) -> None:
    tab1, senseflow = made[1]["literature"]
    assert tab1["compared"] == 2
    found = {d["field"]: d for d in tab1["differences"] if d["field"] != "num_inference_steps"}
    # The prompts are those of the HPSv2 benchmark on both sides, so they are not listed.
    assert {k: (d["theirs"], d["ours"]) for k, d in found.items()} == {
        "num_prompts": ("3200", "20"),
        "images_per_prompt": ("not stated", "2"),
        "resolution": ("not stated", "32"),
        "gan": ("not stated", "no"),
    }
    assert found["num_prompts"]["students"] == []  # true of all
    assert found["gan"]["students"] == ["dmd"]  # the teacher is not trained
    steps = [d for d in tab1["differences"] if d["field"] == "num_inference_steps"]
    assert [(d["theirs"], d["ours"], d["students"]) for d in steps] == [("50", "4", ["teacher"])]
    # Which HPS v2 that is is not stated, so nothing is compared; general fields are listed alone.
    assert senseflow["compared"] == 0
    assert {d["field"] for d in senseflow["differences"]} == {
        "prompts", "num_prompts", "images_per_prompt", "resolution", "gan",
    }  # fmt: skip


def test_page_shows_both_the_dashes_and_what_differs(made: tuple[Path, dict[str, Any]]) -> None:
    folder, record = made
    page = (folder / "index.html").read_text()
    section = page[page.index('<section class="literature"') :]
    section = section[: section.index("</section>")]
    ours = record["table"]["dmd"]["hps_v21"]["seen"]["value"]
    assert f'<td class="num">{100 * ours:.2f}<small>' in section
    assert '<td class="num">30.61</td>' in section
    reason = "not measured by ddmd_bench"
    # A column that nobody here has says so once, in its head.
    assert f'<small class="why">here {reason}</small></th>' in section
    assert f"{reason}</small></td>" not in section
    assert '<td class="num muted">-<small class="why">was not scored</small></td>' in section
    assert "HPS v2.1 ↑<small>printed × 100</small>" in section
    assert "<dt>Steps</dt><dd>published 50, here 4 (teacher)</dd>" in section
    assert "context, never a gate" in section
    assert "DPG Overall 85.85: DPG-Bench overall, not HPS v2.1" in section
    assert not re.search(r"https?:|src=\"(?!data:)", section)


def test_each_field_has_a_title_of_words() -> None:
    assert TITLES.keys() == set(PROTOCOL_FIELDS)
    assert not [title for title in TITLES.values() if re.search("[a-z][A-Z]", title)]


def test_markdown_shows_both_the_dashes_and_what_differs(
    made: tuple[Path, dict[str, Any]],
) -> None:
    text = (made[0] / "report.md").read_text()
    section = text[text.index("## Values from the literature") : text.index("## Limits")]
    assert "context, never a gate" in section
    rows = [line for line in section.splitlines() if line.startswith("| DMD")]
    (hps,) = [r for r in rows if "| HPS v2.1 ↑ (printed × 100) |" in r]
    assert hps.endswith("| 30.61 |")
    assert any("| - (not measured by ddmd_bench) | 83.90 |" in r for r in rows)
    assert "- Steps: published 50, here 4 (teacher)" in section
    assert "- Number of prompts: published 3200, here 20" in section
    assert "No value of that table was measured here." in section


def test_same_protocol_leaves_only_what_was_inferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric("CLIP", "image", "higher", None, 1, "", 4, "Text and image.")
    monkeypatch.setitem(METRICS, "clip_score_vit_g_14", metric)
    suite = make_suite(
        prompts={"seen": {"source": "coco2014_10k", "num_prompts": 10000, "images_per_prompt": 1},
                 "new": {"source": "x", "num_prompts": 20}},
        metrics=["clip_score_vit_g_14"],
        claim_rows=[],
        literature=[{"table": "dmd2_readme", "rows": {"dmd": "dmd2"}},
                          {"table": "dmd2_tab2", "rows": {"dmd": "dmd2"}},
                          {"table": "decoupled_dmd_tab2", "rows": {"dmd": "dmd2"}}],
    )  # fmt: skip
    plan = make_run(tmp_path, suite)
    clip = {"version": "open_clip ViT-g-14 laion2b_s12b_b42k", "text_prefix": ""}
    plan.protocol.update(resolution=1024, metrics={"clip_score_vit_g_14": clip})
    record = report(plan)
    fid_alone, same, inferred = record["literature"]
    assert fid_alone["compared"] == 0
    assert [(d["field"], d["theirs"], d["ours"]) for d in same["differences"]] == [
        ("gan", "yes", "no"),
        ("text_prefix", "A photo depicts", "none"),
    ]
    row = same["rows"][0]["cells"]["clip_score_vit_g_14"]
    found = record["table"]["dmd"]["clip_score_vit_g_14"]["seen"]
    assert row["ours"]["value"] == found["value"] is not None
    differences = {d["field"]: (d["theirs"], d["ours"]) for d in inferred["differences"]}
    assert differences["prompts"] == ("coco2014_10k (inferred, not stated)", "coco2014_10k")
    assert differences["gan"] == ("yes", "no")
    assert "num_prompts" not in differences
    page = (plan.report_folder / "index.html").read_text()
    # Printed x 100, shown here as it is stored: both are there.
    assert '<td class="num">33.14<small>= 0.3314</small></td>' in page


def test_what_is_said_of_this_run_is_true_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real images that statistics are of, and the size that a student is drawn at."""
    fid = replace(METRICS["fid_dmd2"], extractor="attributes")
    monkeypatch.setitem(METRICS, "fid_dmd2", fid)
    beside = [{"table": "dmd2_tab2", "rows": {"dmd": "dmd2", "teacher": "lcm", "ca_only": "lcm"}}]
    suite = make_suite(metrics=["std", "fid_dmd2"], claim_rows=[], literature=beside)
    run = load_run(make_run(tmp_path, suite))
    record = build_record(run)
    students = record["students"]
    students["dmd"]["facts"]["resolution"] = [512, 512]
    students["ca_only"]["facts"]["resolution"] = [512, 768]

    def ours(field: str, run: RunFiles = run) -> dict[str, list[str]]:
        (found,) = literature_beside(run, record["table"], students)
        return {d["ours"]: d["students"] for d in found["differences"] if d["field"] == field}

    assert ours("resolution") == {"32": ["teacher"], "512": ["dmd"], "768 x 512": ["ca_only"]}
    assert ours("num_reference") == {"400": []}  # of 40 prompts 10 each, as the backend draws them
    named = Reference(statistics="coco")
    run = replace(run, suite=suite.model_copy(update={"reference": named}))
    features = np.random.default_rng(0).normal(size=(7, 2))
    real = RealFeatures(features, np.array([]), factored(gaussian_of(features)))
    for kept, said in (
        (real, "7"),
        (real._replace(features=features[:0], num_stated=30_000), "30000"),
        (real._replace(features=features[:0]), "not recorded"),
    ):
        assert ours("num_reference", replace(run, reference={"attributes": kept})) == {said: []}
