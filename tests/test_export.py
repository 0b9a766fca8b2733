"""An exported student, loaded and called as its card says, draws the harness's own image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lumina2
import tiny_sd15
import tiny_sdxl
import yaml
from PIL import Image

from ddmd_bench.errors import BenchError
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.stages.encode import encode
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.train import train
from ddmd_bench.students.export import export
from ddmd_bench.suite.files import load_suite

FAMILIES = {
    "sdxl": tiny_sdxl.write_repository,
    "sd15": tiny_sd15.write_repository,
    "lumina2": tiny_lumina2.write_repository,
}
PROMPTS = ["a red cat", "a small star on the left of a tree", "five letters"]
STUDENTS = {
    "full": {"method": "ca_only", "train": {"learning_rate": 0.01}},
    "lora": {"method": "ca_only", "train": {"lora_rank": 2, "learning_rate": 0.01}},
}


def exported(plan: Plan, student: str, folder: Path) -> Path:
    backend = plan.prepared().opened(student)
    return export(plan.trained(student, 0), plan.suite, backend, folder)


def quiet(done: int, total: int) -> None:
    pass


def finished(suite: dict[str, Any], folder: Path) -> Plan:
    """A plan whose students have their images; what is trained is trained."""
    path = folder / f"{suite['name']}.yaml"
    path.write_text(yaml.safe_dump(suite))
    made = make_plan(load_suite(str(path)), folder / "runs", folder / "reports")
    for stage, run in {"encode": encode, "train": train, "generate": generate}.items():
        for task in made.of_stage(stage):
            run(made, task, quiet)
    return made


def suite_of(backend: str, folder: Path, **model: Any) -> dict[str, Any]:
    repository = FAMILIES[backend](folder / "repository")
    for name, texts in {"prompts": PROMPTS, "captions": ["a cat", "two dogs"]}.items():
        (folder / f"{name}.txt").write_text("\n".join(texts))
    return {
        "name": "trains",
        "title": "Tiny",
        "backend": backend,
        "model": {"repository": str(repository), "resolution": 64, "images_at_once": 4, **model},
        "prompts": {
            "some": {
                "source": str(folder / "prompts.txt"),
                "num_prompts": len(PROMPTS),
                # Text is encoded in batches of four, here as in a pipeline: a product's last bits
                # depend on their number.
                "images_per_prompt": 4,
            }
        },
        "train_data": {"prompts": {"source": str(folder / "captions.txt"), "num_prompts": 2}},
        "train": {"num_iterations": 2, "t_list": [1.0, 0.6, 0.35], "batch_size": 3},
        "students": STUDENTS,
        "baseline": "full",
        "metrics": ["mean", "std"],
    }


def trained(backend: str, folder: Path, **model: Any) -> Plan:
    return finished(suite_of(backend, folder, **model), folder)


@pytest.fixture(scope="module", params=FAMILIES)
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished training of each kind, and its images."""
    return trained(request.param, tmp_path_factory.mktemp(request.param))


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


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_best_weights_are_exported_as_they_are_drawn(tmp_path: Path) -> None:
    """They are the untrained ones here, which alone are evaluated."""
    suite = suite_of("sd15", tmp_path)
    kept = {"at": [0], "num_prompts": 1, "metrics": ["std", "saturation"]}
    suite["evaluation"] = kept | {"keep_best": "saturation"}
    suite["students"] = {"full": STUDENTS["full"], "best": {**STUDENTS["full"], "weights": "best"}}
    plan = finished(suite, tmp_path)
    folder = exported(plan, "best", tmp_path / "exported")
    card = (folder / "README.md").read_text()
    assert "seed 0, 0 of 2 updates (its best by saturation on the way)" in card
    (tmp_path / "later").mkdir()
    back = brought_back(plan, snippets(card)["unet"], tmp_path / "later", folder)
    assert back == pngs(plan, "best") != pngs(plan, "full")


# ---- Back into a suite.


def snippets(card: str) -> dict[str, dict[str, Any]]:
    """The card's lines of a suite by the format that they name."""
    found = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)]
    return {
        row["checkpoint"]["format"]: lines for lines in found for row in lines["students"].values()
    }


def brought_back(plan: Plan, lines: dict[str, Any], folder: Path, exported: Path) -> list[bytes]:
    """The PNG files of a student that a card's lines bring into a suite of their own."""
    (name,) = lines["students"]
    suite = {
        **plan.suite.model_dump(mode="json", include={"title", "prompts", "metrics"}),
        **yaml.safe_load(yaml.safe_dump(lines).replace("path/to/this/folder", str(exported))),
        "name": "later",
        "baseline": name,
    }
    return pngs(finished(suite, folder), name)


def pngs(plan: Plan, student: str) -> list[bytes]:
    images = plan.task("generate", student, 0).folder / "images"
    return [path.read_bytes() for path in sorted(images.glob("*.png"))]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_comes_back_as_it_was(plan: Plan, student: str, tmp_path: Path) -> None:
    """The card's lines, in a later suite, give the same files to the byte."""
    folder = exported(plan, student, tmp_path / "exported")
    found = snippets((folder / "README.md").read_text())
    network = plan.prepared().backend().pipeline.network
    alone = {"full": network, "lora": "lora"}[student]
    assert found.keys() == {"full": {"pipeline", alone}, "lora": {alone}}[student]
    own = pngs(plan, student)
    assert len(own) == 4 * len(PROMPTS)
    for kind, lines in found.items():
        (tmp_path / kind).mkdir()
        assert brought_back(plan, lines, tmp_path / kind, folder) == own, kind


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_half_precision_comes_back_by_its_network_alone(tmp_path: Path) -> None:
    """A pipeline rounds its latents between the steps, which no student of a suite does."""
    plan = trained("sd15", tmp_path, dtype="bfloat16")
    for student in STUDENTS:
        folder = exported(plan, student, tmp_path / f"exported_{student}")
        own = pngs(plan, student)
        for kind, lines in snippets((folder / "README.md").read_text()).items():
            (tmp_path / f"{student}_{kind}").mkdir()
            back = brought_back(plan, lines, tmp_path / f"{student}_{kind}", folder)
            assert (back == own) == (kind != "pipeline"), kind
