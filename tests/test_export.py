"""An exported student, loaded and called as its card says, draws the harness's own image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from test_real_models import make_suite

from ddmd_bench.errors import BenchError
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.stages.encode import encode
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.train import train
from ddmd_bench.students.export import export
from ddmd_bench.suite.files import load_suite

STUDENTS = {
    "full": {"method": "ca_only"},
    "lora": {"method": "ca_only", "train": {"lora_rank": 2, "learning_rate": 0.01}},
}


def exported(plan: Plan, student: str, folder: Path) -> Path:
    backend = plan.prepared().opened(student)
    return export(plan.trained(student, 0), plan.suite, backend, folder)


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module", params=["sdxl", "lumina2"])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished training of each kind, and its images."""
    folder = tmp_path_factory.mktemp(request.param)
    suite = make_suite(request.param, folder)
    suite |= {"students": STUDENTS, "baseline": "full"}
    suite["train"] |= {"num_iterations": 2, "t_list": [1.0, 0.6], "batch_size": 2}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    made = make_plan(load_suite(str(folder / "suite.yaml")), folder / "runs", folder / "reports")
    shared = made.shared("encode")
    assert shared is not None
    encode(made, shared, quiet)
    for name in STUDENTS:
        train(made, made.task("train", name, 0), quiet)
        generate(made, made.task("generate", name, 0), quiet)
    return made


def run_card(folder: Path) -> Image.Image:
    """What the card's lines draw."""
    card = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder)), names)
    image = names["image"]
    assert isinstance(image, Image.Image)
    return image


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft and transformers while they load
@pytest.mark.parametrize("student", STUDENTS)
def test_the_card_draws_the_harness_s_image(plan: Plan, student: str, tmp_path: Path) -> None:
    found = run_card(exported(plan, student, tmp_path / "exported"))
    own = plan.task("generate", student, 0).folder / "images" / "00000.png"
    expected = np.asarray(Image.open(own)).astype(int)
    difference = np.abs(np.asarray(found).astype(int) - expected)
    assert difference.max() <= 1  # a level of 8 bits, where rounding falls either way
    # The weights made the image: another student's is another.
    other = plan.task("generate", "lora" if student == "full" else "full", 0)
    strange = np.asarray(Image.open(other.folder / "images" / "00000.png")).astype(int)
    assert np.abs(strange - expected).max() > 1


@pytest.mark.parametrize(
    ("student", "seed", "message"),
    [
        ("nobody", 0, "not trained by this suite. Trained: full, lora"),
        ("full", 7, r"seed 7: the suite has \[0\]"),
    ],
)
def test_what_cannot_be_exported_is_named(
    plan: Plan, student: str, seed: int, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        plan.trained(student, seed)


def test_nothing_is_written_over(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(BenchError, match="not empty"):
        exported(plan, "full", tmp_path)
