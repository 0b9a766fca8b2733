"""Small pictures of all prompts: each tile is its student's image, and nothing is made twice."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import make_run, make_suite
from PIL import Image

from ddmd_bench.planning.plan import Plan
from ddmd_bench.reporting.html.browsing import MISSING, RIGHT, UNJUDGED, browsing
from ddmd_bench.reporting.html.sheets import FOLDER, Layout, sheet, sheet_name, sheets_key
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.scorers import METRICS
from ddmd_bench.stages.report import report


def sheets_of(plan: Plan) -> list[Path]:
    return sorted((plan.report_folder / FOLDER).glob("*/*"))


def test_each_tile_is_its_students_image(tmp_path: Path) -> None:
    """To the pixel where images are small; centred in a tile where one is smaller."""
    plan = make_run(tmp_path, make_suite([]))
    lost = plan.task("generate", "dmd", 0).folder / "images" / "00003.png"
    lost.write_bytes(b"no image")
    small = plan.task("generate", "ca_only", 0).folder / "images" / "00002.png"
    Image.new("RGB", (16, 32), (250, 0, 0)).save(small)
    run = load_run(plan)
    layout = Layout.of(run, 256)
    assert (layout.num_images, layout.tile) == (2, (32, 32))
    prompt_id = plan.prompts[1].prompt_id
    found = np.array(Image.open(io.BytesIO(sheet(run, layout, prompt_id))).convert("RGB"))
    assert found.shape == (64, 5 * 32, 3)
    for column, name in enumerate(run.suite.students):
        for row in range(2):
            tile = found[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            path = run.first_seed(name).images[prompt_id, row]
            if path == lost:
                assert (tile == 127).all()
            elif path == small:
                assert (tile[:, 8:24] == (250, 0, 0)).all()
                assert (tile[:, [0, 7, 24, 31]] == 127).all()
            else:
                assert np.array_equal(tile, np.array(Image.open(path)))


def test_large_images_become_small_tiles(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite([]))
    for name in plan.suite.students:
        for path in (plan.task("generate", name, 0).folder / "images").glob("0000[01].png"):
            Image.new("RGB", (400, 200), (10, 200, 30)).save(path)
    run = load_run(plan)
    layout = Layout.of(run, 96)
    assert layout.tile == (96, 48)
    whole = Image.open(io.BytesIO(sheet(run, layout, plan.prompts[0].prompt_id)))
    assert whole.size == (5 * 96, 2 * 48)
    assert np.abs(np.array(whole.convert("RGB")).astype(int) - (10, 200, 30)).max() < 8
    assert max(Layout.of(run, 10**6).tile) <= 400  # never larger than they are


@pytest.mark.long
def test_what_is_there_is_kept_and_other_images_go(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite([]))
    seen: list[tuple[int, int]] = []
    report(plan, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40)
    first = sheets_of(plan)
    assert [path.name for path in first] == [sheet_name(k) for k in range(40)]
    before = {path: path.stat().st_mtime_ns for path in first}
    first[7].unlink()
    seen.clear()
    report(plan, lambda done, total: seen.append((done, total)))
    assert seen == [(40, 40)]
    changed = [path for path in sheets_of(plan) if before[path] != path.stat().st_mtime_ns]
    assert changed == [first[7]]
    stale = plan.report_folder / FOLDER / "0123456789ab"
    stale.mkdir()
    report(plan)  # nobody waits for pictures: none are made, and none go
    assert stale.exists()
    report(plan, lambda done, total: None)
    assert not stale.exists()  # of other images
    assert sheets_of(plan) == first


def test_while_a_student_is_not_drawn_there_are_none(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite([]))
    (plan.task("generate", "dmd", 0).folder / "done.json").unlink()
    assert sheets_key(load_run(plan)) is None
    report(plan, lambda done, total: None)
    assert sheets_of(plan) == []


def unpacked(found: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """As the page's script does it."""
    data = gzip.decompress(base64.b64decode(found["packed"].partition(",")[2]))
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    shape = len(header["students"]), len(header["metrics"]), len(header["prompts"])
    codes = np.frombuffer(data, "<u2", shape[0] * shape[1] * shape[2], 4 + length).reshape(shape)
    marks = np.frombuffer(data, np.uint8, offset=4 + length + codes.nbytes)
    return header, codes, marks.reshape(shape[0], shape[2], header["num_images"])


def test_the_page_never_opens_with_the_baseline_beside_itself(tmp_path: Path) -> None:
    """Nor where no metric says who is ahead, and the baseline comes first."""
    steps = {"source": "teacher", "num_inference_steps": 4, "guidance_scale": 4}
    students = {"plain": steps, "with_lora": steps}
    suite = make_suite([], students=students, baseline="plain", metrics=["std"])
    run = load_run(make_run(tmp_path, suite))
    header = unpacked(browsing(build_record(run), run, None))[0]
    assert (header["a"], header["b"]) == ("with_lora", "plain")


def test_values_in_the_page_are_the_runs(tmp_path: Path) -> None:
    """Each mean over a prompt's images to a step of its range; what lacks is told apart."""
    plan = make_run(tmp_path, make_suite([]))
    run = load_run(plan)
    table = run.first_seed("teacher").per_image
    assert table is not None
    table.loc[table["prompt_id"] == plan.prompts[3].prompt_id, "std"] = np.nan
    header, codes, marks = unpacked(browsing(build_record(run), run, plan.report_folder))
    assert header["ids"] == [prompt.prompt_id for prompt in plan.prompts]
    assert "frechet_attributes" not in [row["name"] for row in header["metrics"]]
    for s, student in enumerate(header["students"]):
        own = run.first_seed(student["name"]).per_image
        assert own is not None
        for m, row in enumerate(header["metrics"]):
            means = own.groupby("prompt_id", sort=False)[row["name"]].mean().to_numpy()
            step = (row["high"] - row["low"]) / (MISSING - 1)
            shown = row["low"] + codes[s, m] * step
            known = codes[s, m] != MISSING
            assert np.array_equal(known, ~np.isnan(means))
            assert shown[known] == pytest.approx(means[known], abs=step)
        assert [len(names) for names in student["files"]] == [2] * 40
    judged = run.first_seed("dmd").per_image
    assert judged is not None
    right = judged["prompt_accuracy"].to_numpy().reshape(40, 2)
    assert np.array_equal(marks[2] == RIGHT, right > 0)
    assert UNJUDGED not in marks
    assert METRICS[header["metric"]].judges


def test_whole_images_are_named_only_where_page_and_run_share_a_place(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite([]))
    run = load_run(plan)
    record = build_record(run)
    header, *_ = unpacked(browsing(record, run, plan.report_folder))
    assert header["students"][2]["folder"] == "../generate/dmd-0/images"
    for folder in (None, Path("/somewhere/else")):
        header, *_ = unpacked(browsing(record, run, folder))
        assert {one["folder"] for one in header["students"]} == {None}
