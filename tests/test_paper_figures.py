"""A report's figures for a paper: whole files, the same bytes each time, titles as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fake_run import make_run, make_suite

from ddmd_bench.errors import BenchError
from ddmd_bench.reporting.paper_figures import write_figures
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.trade import front

STUDENTS = {
    "real": {"source": "real", "title": "Real scenes"},
    "teacher": {"source": "teacher", "num_inference_steps": 4, "guidance_scale": 4},
    "dmd": {"method": "dmd", "title": "costs $5 & <less> than $x_1$"},
    "decoupled_hybrid": {"method": "decoupled_hybrid"},
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    suite = make_suite([], students=STUDENTS, metrics=["prompt_accuracy", "frechet_attributes"])
    return build_record(load_run(make_run(tmp_path_factory.mktemp("run"), suite)))


def words(path: Path) -> str:
    """All text of an SVG."""
    return " ".join(ElementTree.parse(path).getroot().itertext())


@pytest.mark.long
def test_each_is_there_as_svg_and_as_pdf(record: dict[str, Any], tmp_path: Path) -> None:
    written = write_figures(record, tmp_path)
    names = {path.stem for path in written}
    assert {"training_x0_std", "differences_prompt_accuracy", "cost_prompt_accuracy"} <= names
    assert {path.suffix for path in written if path.stem == "training_x0_std"} == {".svg", ".pdf"}
    for path in written:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
        else:
            assert STUDENTS["dmd"]["title"] in words(path), path.name
    assert "better →" in words(tmp_path / "differences_frechet_attributes.svg")
    again = write_figures(record, tmp_path / "again")
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in again]


def test_a_report_without_curves_says_what_to_do(record: dict[str, Any], tmp_path: Path) -> None:
    earlier = {key: value for key, value in record.items() if key != "dynamics"}
    with pytest.raises(BenchError, match=r"without dynamics.*Make the report again"):
        write_figures(earlier, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_front_has_whom_no_other_beats() -> None:
    points = [(4.0, 1.0), (4.0, 2.0), (8.0, 0.5), (16.0, 0.5), (2.0, 3.0), (2.0, 3.0)]
    assert front(points) == [0, 2, 4, 5]
