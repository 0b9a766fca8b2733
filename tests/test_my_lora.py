"""Did a LoRA break the few-step student? The suite for it, at tiny size, through a whole run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lora_styles import FAMILIES, new_keys, pairs_of
from PIL import Image
from safetensors.torch import save_file
from test_real_models import run_as_a_user
from tiny_sdxl import write_repository
from tiny_students import ATTENTION, TARGETS
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_json
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.suite.files import find_suite, load_suite
from ddmd_bench.suite.students import FILL_IN

PROMPTS = ["a red cat", "a small star on the left", "two dogs in the park", "a house", "one tree"]
# The student: the base's own weights at DMD2's four levels.
FEW_STEPS = {
    "format": "unet",
    "scheduler": "lcm",
    "num_inference_steps": 4,
    "timesteps": [999, 749, 499, 249],
}
SCORED = ("saturation", "high_frequency", "std", "mean", "diversity")  # by pixels alone


def tiny_of(text: str, folder: Path, lora: Path) -> dict[str, Any]:
    """The suite's own lines with another base, student and prompts; the scorers' networks go."""
    data: dict[str, Any] = yaml.safe_load(text.replace(FILL_IN, str(lora)))
    student = {"repository": str(folder / "repository" / "unet"), **FEW_STEPS}
    for row in data["students"].values():
        if row.pop("published", None):
            row |= {"source": "checkpoint", "checkpoint": student}
    data["model"] = {"repository": str(folder / "repository"), "resolution": 64}
    prompts = {"source": str(folder / "prompts.txt"), "num_prompts": len(PROMPTS)}
    data["prompts"] = {"some": {**prompts, "images_per_prompt": 4}}
    data["metrics"] = [name for name in data["metrics"] if name in SCORED]
    data["claims"] = [claim for claim in data["claims"] if claim["metric"] in SCORED]
    return data


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, prompts, and three LoRAs: of zeros, of a style, and one that is far too strong.

    The last takes the convolutions too, and the one that gives the network's output.
    """
    folder = tmp_path_factory.mktemp("world")
    write_repository(folder / "repository")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    unet = FAMILIES["sdxl"].network(FAMILIES["sdxl"].make_pipeline())
    pairs = pairs_of(unet, ATTENTION)
    strong = pairs_of(unet, TARGETS)
    draw, weight = torch.Generator().manual_seed(1), unet.conv_out.weight
    strong["conv_out"] = (
        torch.randn(4, *weight.shape[1:], generator=draw) * 0.1,
        torch.randn(weight.shape[0], 4, 1, 1, generator=draw) * 0.1,
    )
    for name, scale, some in (("zeros", 0, pairs), ("style", 1, pairs), ("strong", 40, strong)):
        state = new_keys(unet, "unet", {k: (a, b * scale) for k, (a, b) in some.items()})
        save_file(state, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    """A finished run of the suite with the strong LoRA, and with the two others beside it."""
    suite = tiny_of(find_suite("my_lora").read_text(), world, world / "strong.safetensors")
    plain = suite["students"]["plain"]
    for name in ("zeros", "style"):
        place = {"repository": str(world / f"{name}.safetensors")}
        suite["students"][name] = {**plain, "adapters": [place]}
    (world / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    places = ("--runs", str(world / "runs"), "--reports", str(world / "reports"))
    run_as_a_user("run", str(world / "suite.yaml"), "--workers", "1", *places)
    return world


def images_of(run: Path, student: str) -> np.ndarray[Any, Any]:
    """Levels [n, H, W, 3], in the suite's order."""
    plan = make_plan(load_suite(str(run / "suite.yaml")), run / "runs", run / "reports")
    folder = plan.task("generate", student, 0).folder / "images"
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


@pytest.mark.long
def test_a_lora_of_zeros_draws_the_very_images(run: Path) -> None:
    plain = images_of(run, "plain")
    assert len(plain) == 4 * len(PROMPTS)
    assert np.array_equal(images_of(run, "zeros"), plain)
    table = read_json(run / "reports" / "my_lora" / "report.json")["table"]
    assert table["zeros"] == table["plain"]


@pytest.mark.long
def test_a_lora_draws_others_from_the_same_noise(run: Path) -> None:
    """Each image is nearer to the plain student's of its own noise than to those of other noise."""
    plain, styled = (images_of(run, name).astype(float) for name in ("plain", "style"))
    apart = np.abs(styled[:, None] - plain[None]).mean((2, 3, 4))
    assert (np.diag(apart) > 0).all()
    assert (apart.argmin(axis=1) == np.arange(len(plain))).all()


@pytest.mark.long
def test_the_claims_name_what_a_lora_has_broken(run: Path) -> None:
    record = read_json(run / "reports" / "my_lora" / "report.json")
    found = {row["metric"]: row["verdict"] for row in record["claims"]}
    assert found.keys() == {"saturation", "high_frequency", "diversity", "std"}
    # What it does to these random weights: blur, and images of a prompt that are more alike.
    assert (found["high_frequency"], found["diversity"]) == ("supported", "supported")
    table = record["table"]
    for metric in ("high_frequency", "diversity"):
        plain, strong, zeros = (
            table[name][metric]["all"]["value"] for name in ("plain", "with_lora", "zeros")
        )
        assert strong < plain == zeros
    page = (run / "reports" / "my_lora" / "index.html").read_text()
    assert page.count("is drawn with LoRAs on top of its weights") == 3


# ---- What a user reads before the line is filled in, and what can be written there.


def test_the_plan_says_what_to_write() -> None:
    told = CliRunner().invoke(app, ["plan", "my_lora"])
    assert told.exit_code == 2
    said = " ".join(told.output.split())
    assert "students.with_lora: adapters[0].repository: FILL_IN stands where" in said
    assert "--set 'students.with_lora.adapters=[{repository: ./my_lora.safetensors}]'" in said
    listed = CliRunner().invoke(app, ["list", "suites"])
    assert "my_lora" in listed.output


@pytest.mark.parametrize("place", ["file", "folder", "hub"])
def test_the_line_takes_a_file_a_folder_or_a_place_on_the_hub(
    place: str, world: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy(world / "style.safetensors", tmp_path / "mine")
    given = {
        "file": f"{{repository: {tmp_path}/mine/style.safetensors, scale: 0.8}}",
        "folder": f"{{repository: {tmp_path}/mine}}",
        "hub": "{repository: owner/style, file: style.safetensors}",
    }[place]
    suite = load_suite("my_lora", [f"students.with_lora.adapters=[{given}]"])
    with pytest.raises(BenchError) as refused:
        make_plan(suite, tmp_path / "runs", tmp_path / "reports")
    assert "students.with_lora" not in str(refused.value)  # only its prompts are not here


def test_the_base_beside_it_takes_the_same_line(world: Path) -> None:
    """The commented students, with their marks taken away, are a suite too."""
    lines = find_suite("my_lora").read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("  # base:"))
    assert [line.strip()[:6] for line in lines[first : first + 4]] == [
        "# base", "# base", "#   so", "#   ch",
    ]  # fmt: skip
    lines[first : first + 4] = [line.replace("# ", "", 1) for line in lines[first : first + 4]]
    suite = tiny_of("\n".join(lines), world, world / "style.safetensors")
    (world / "base.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    plan = make_plan(load_suite(str(world / "base.yaml")), world / "runs", world / "reports")
    names = ("plain", "with_lora", "base", "base_with_lora")
    assert {task.student for task in plan.of_stage("generate")} == set(names)
    assert not plan.unfit
    unfilled = tiny_of("\n".join(lines), world, Path(FILL_IN))
    (world / "base.yaml").write_text(yaml.safe_dump(unfilled, sort_keys=False))
    with pytest.raises(BenchError) as refused:
        make_plan(load_suite(str(world / "base.yaml")), world / "runs", world / "reports")
    assert "students.base_with_lora: checkpoint.repository: FILL_IN" in str(refused.value)
    assert "students.with_lora: adapters[0].repository: FILL_IN" in str(refused.value)
