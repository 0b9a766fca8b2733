"""`score` on a folder of images, and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from ddmd_bench.backends.shapes import scenes
from ddmd_bench.commands.cli import app
from ddmd_bench.commands.measuring import OF_A_FOLDER, OF_A_SUITE
from ddmd_bench.data.images import save_png
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import write_jsonl
from ddmd_bench.measuring import doctor
from ddmd_bench.measuring.folder import read_folder
from ddmd_bench.scorers import SCORERS, loaded
from ddmd_bench.scorers.attributes import AttributeReader
from ddmd_bench.scorers.weights import OWN_FOLDER

METRICS = "prompt_accuracy,std,diversity"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six scenes of three prompts, and a table of them."""
    labels = scenes.seen_labels()[:3].repeat_interleave(2, 0)
    images = scenes.render(labels, torch.Generator().manual_seed(1))
    folder = tmp_path / "drawn"
    (folder / "deep").mkdir(parents=True)
    lines = []
    for k, (image, row) in enumerate(zip(images, labels, strict=True)):
        name = f"{'deep/' if k % 2 else ''}{k}.png"
        save_png(folder / name, image)
        lines.append({"file_name": name, "prompt": scenes.prompt_of(row)})
    write_jsonl(folder / "metadata.jsonl", lines)
    return folder


def run(*arguments: Any) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])


def test_a_folder_is_scored_with_its_own_metadata(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = run("score", folder, "--metrics", METRICS, "--output", output)
    assert result.exit_code == 0, result.output
    record = json.loads((output / "aggregates.json").read_text())
    assert record["metrics"]["prompt_accuracy"]["all"]["value"] == 1
    assert record["metrics"]["prompt_accuracy"]["all"]["n"] == 6
    assert record["metrics"]["diversity"]["all"]["n"] == 3
    table = pd.read_parquet(output / "per_image.parquet")
    assert sorted(table["file_name"]) == sorted(
        ["0.png", "deep/1.png", "2.png", "deep/3.png", "4.png", "deep/5.png"]
    )
    assert table["image_index"].tolist() == [0, 1] * 3
    assert "100.0" in result.output  # in the metric's display unit


def test_what_cannot_be_scored_is_counted_with_its_reason(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "2.png").unlink()
    Image.new("RGB", (32, 32)).save(folder / "4.png")
    Image.effect_noise((32, 32), 90).save(folder / "extra.png")
    output = tmp_path / "out"
    result = run("score", folder, "--metrics", METRICS, "--output", output)
    assert result.exit_code == 0, result.output
    record = json.loads((output / "aggregates.json").read_text())
    cell = record["metrics"]["prompt_accuracy"]["all"]
    assert (cell["value"], cell["n"], cell["n_expected"]) == (1, 3, 6)
    reasons = record["missing"]["attributes"]
    assert reasons["no such file"] == 1
    assert reasons["constant image: every pixel is (0, 0, 0)"] == 1
    assert any(reason.startswith("cannot be decoded") for reason in reasons)
    assert "1 images have no prompt and were not scored: extra.png" in result.output
    assert "3 of 6" in result.output
    # Mended, only what changed is looked at again.
    (folder / "0.png").write_bytes(whole)
    run("score", folder, "--metrics", METRICS, "--output", output)
    record = json.loads((output / "aggregates.json").read_text())
    assert record["metrics"]["prompt_accuracy"]["all"]["n"] == 4


def test_prompts_from_a_table_with_categories_and_from_lines(folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    table = pd.DataFrame(rows)
    table["category"] = ["near", "near", "near", "near", "far", "far"]
    table.to_csv(tmp_path / "prompts.csv", index=False)
    by_table = read_folder(folder, tmp_path / "prompts.csv", ["prompt_accuracy"])
    assert {row["prompt_set"] for row in by_table.rows} == {"near", "far"}
    result = run(
        "score", folder, "--prompts", tmp_path / "prompts.csv", "--metrics", METRICS,
        "--output", tmp_path / "out",
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "aggregates.json").read_text())
    assert list(record["metrics"]["std"]) == ["all", "near", "far"], result.output
    names = sorted(row["file_name"] for row in rows)
    texts = {row["file_name"]: row["prompt"] for row in rows}
    (tmp_path / "prompts.txt").write_text("\n".join(texts[name] for name in names))
    by_lines = read_folder(folder, tmp_path / "prompts.txt", ["prompt_accuracy"])
    assert {r["file_name"]: r["prompt"] for r in by_lines.rows} == texts


def test_a_metric_that_reads_no_prompt_needs_none(folder: Path) -> None:
    (folder / "metadata.jsonl").unlink()
    found = read_folder(folder, None, ["std"])
    assert len({row["prompt_id"] for row in found.rows}) == 6
    with pytest.raises(BenchError, match=r"attributes need each image's prompt. Give --prompts"):
        read_folder(folder, None, ["std", "prompt_accuracy"])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: f / "none.csv", "no such file of prompts"),
        (lambda f: _write(f / "p.txt", "one\ntwo"), "2 prompts, and there are 6 images"),
        (lambda f: _write(f / "p.csv", "name,prompt\na,b\n"), "expected the columns file_name"),
        (lambda f: _write(f / "p.csv", "file_name,prompt\na,b\na,c\n"), "a is named 2 times"),
        (lambda f: _write(f / "p.csv", "file_name,prompt,category\na,b,all\n"), "'all' stands"),
    ],
)
def test_prompts_that_cannot_be_paired_are_refused(
    folder: Path, break_it: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        read_folder(folder, break_it(folder), ["std"])


def test_prompts_are_stripped_and_lines_end_where_files_say(folder: Path) -> None:
    """Six lines stay six whatever characters they hold, and none is scored without a prompt."""
    texts = ["a\u2028b", "\u00a0c", "d\x0ce ", "NA", "1", "2024-01-01"]
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs/0.png").write_bytes(b"hidden")
    (folder / "p.txt").write_bytes("\r\n".join(texts).encode("utf-8-sig"))
    table = pd.DataFrame({"file_name": names, "prompt": texts, "category": ["1"] * 6})
    table.to_csv(folder / "p.csv", index=False)
    table.to_csv(folder / "p.tsv", index=False, sep="\t")
    for given in ("p.txt", "p.csv", "p.tsv"):
        found = read_folder(folder, folder / given, ["hps_v21"])
        by_name = {row["file_name"]: row["prompt"] for row in found.rows}
        assert by_name == dict(zip(names, (text.strip() for text in texts), strict=True))
        assert found.not_listed == ()
    table["category"] = [1, 1, 1, 2, 2, 2]
    table.to_parquet(folder / "p.parquet")
    found = read_folder(folder, folder / "p.parquet", ["hps_v21"])
    assert sorted(row["prompt_set"] for row in found.rows) == [*"111222"]
    table["prompt"] = [*texts[:5], " \u3000"]
    table.to_csv(folder / "p.csv", index=False)
    with pytest.raises(BenchError, match=r"1 of 6 images have an empty prompt, e\.g\. deep/5"):
        read_folder(folder, folder / "p.csv", ["hps_v21"])
    assert len(read_folder(folder, folder / "p.csv", ["std"]).rows) == 6


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.long
def test_a_distance_compares_with_statistics_that_were_built(tmp_path: Path) -> None:
    for name, seed in (("own", 1), ("real", 2)):
        labels = scenes.draw_labels(130, torch.Generator().manual_seed(seed))
        images = scenes.render(labels, torch.Generator().manual_seed(seed))
        (tmp_path / name).mkdir()
        for k, image in enumerate(images):
            save_png(tmp_path / name / f"{k:03d}.png", image)
    statistics = tmp_path / "statistics"
    result = run("stats", "build", tmp_path / "real", statistics, "--scorers", "efficientnet")
    assert result.exit_code == 0, result.output
    metrics = ("--metrics", "frechet_efficientnet")
    refused = run("score", tmp_path / "own", *metrics)
    assert refused.exit_code == 2
    assert "give --reference" in refused.output
    found = {}
    for name in ("own", "real"):
        output = tmp_path / f"scores_{name}"
        result = run(
            "score", tmp_path / name, *metrics, "--reference", statistics, "--output", output
        )
        assert result.exit_code == 0, result.output
        record = json.loads((output / "aggregates.json").read_text())
        found[name] = record["metrics"]["frechet_efficientnet"]["all"]
        assert found[name]["n"] == 130
    assert found["real"]["value"] == pytest.approx(0, abs=1e-4)
    assert found["own"]["low"] > 1
    assert "note" not in found["own"]
    # Small numbers speak: fewer than the real ones a note, too few a reason.
    notes = {120: "of 120 images, fewer than the 130 real images", 2: "needs 113 images, has 2"}
    for kept, said in notes.items():
        for path in sorted((tmp_path / "own").iterdir())[kept:]:
            path.unlink()
        output = tmp_path / f"scores_{kept}"
        result = run(
            "score", tmp_path / "own", *metrics, "--reference", statistics, "--output", output
        )
        record = json.loads((output / "aggregates.json").read_text())
        cell = record["metrics"]["frechet_efficientnet"]["all"]
        assert cell["missing" if kept == 2 else "note"].startswith(said)
        assert (cell["value"] is None) == (kept == 2)
        assert said in result.output


@pytest.mark.parametrize(
    ("target", "metrics"),
    # A slip; a suite, with its own metrics; a slip in a path, before any metric is named.
    [("drawings", ["--metrics", METRICS]), ("shapes", ["--metrics", METRICS]), ("my/drawings", [])],
)
def test_metrics_are_of_a_folder_that_exists(target: str, metrics: list[str]) -> None:
    result = run("score", target, *metrics)
    assert result.exit_code == 2
    assert f"{target}: no such folder of images" in result.output


OTHERS = {  # each option of `score` that is of folders alone, or of suites alone, with a value
    "--prompts": "prompts.txt", "--order": "plain", "--metrics": "std", "--reference": "coco",
    "--output": "out", "--dtype": "float32", "--set": "seeds=[0]", "--runs": "runs",
    "--reports": "reports", "--workers": "0", "--redo": None,
}  # fmt: skip


def test_each_option_of_score_is_of_one_kind() -> None:
    command = typer.main.get_command(app).commands["score"]  # type: ignore[attr-defined]
    named = {p.opts[0] for p in command.params if p.param_type_name == "option"}
    assert named - {"--help"} == OTHERS.keys() == OF_A_FOLDER.keys() | OF_A_SUITE.keys()


@pytest.mark.parametrize("option", OTHERS)
def test_an_option_of_the_other_kind_is_refused_and_what_to_do_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """Even with the value that it has anyhow: who names it expects something of it."""
    monkeypatch.chdir(tmp_path)
    given = [option] if OTHERS[option] is None else [option, OTHERS[option]]
    if option in OF_A_FOLDER:
        Path("own.yaml").write_text("no suite yet")
        for target in ("own.yaml", "shapes") if option != "--metrics" else ("own.yaml",):
            result = run("score", target, *given)
            assert result.exit_code == 2
            fact = f"{target} is no folder, and so taken as a suite"
            assert result.output == f"{fact}:\n{option}: {OF_A_FOLDER[option]}\n"
    else:
        result = run("score", folder, "--metrics", "std", *given)
        assert result.exit_code == 2
        assert f"{option}: {OF_A_SUITE[option]}" in result.output
    assert not Path("runs").exists()
    assert not Path("scores").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "stdd"], "Did you mean 'std'"),
        (["--metrics", "saturation"], "a file does not have it"),
        ([], "--metrics: name at least one. `python -m ddmd_bench list metrics`"),
        (["--metrics", "std", "--dtype", "float8"], "unknown dtype"),
    ],
)
def test_bad_options_end_before_any_work(folder: Path, arguments: list[str], message: str) -> None:
    result = run("score", folder, *arguments)
    assert result.exit_code == 2
    assert message in result.output


# doctor


def test_the_doctor_finds_the_carried_scorers_well() -> None:
    result = run("doctor", "attributes", "efficientnet")
    assert result.exit_code == 0, result.output
    assert result.output.count(": ok (") == 5


class Blind(AttributeReader):
    """Sees every image alike."""

    def score_batch(self, inputs: Any, text: Any) -> Any:
        return super().score_batch(inputs[:1].expand_as(inputs).clone() * 0, text)


class Social(AttributeReader):
    """An image's answer depends on those beside it."""

    def score_batch(self, inputs: Any, text: Any) -> Any:
        scored = super().score_batch(inputs, text)
        assert scored.features is not None
        return scored._replace(features=scored.features + 0.1 * scored.features.mean(0))


class Deaf(AttributeReader):
    """Reads no prompt."""

    def score_batch(self, inputs: Any, text: Any) -> Any:
        return super().score_batch(inputs, [text[0] | self.encode_prompts([PROMPT])[0]] * len(text))


PROMPT = SCORERS["attributes"].example_prompts[0]


@pytest.mark.parametrize(
    ("ill", "check"),
    [
        (Blind, "different images have different scores"),
        (Social, "batch size and batch mates do not matter"),
        (Deaf, "prompts matter"),
    ],
)
def test_the_doctor_finds_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, ill: type[AttributeReader], check: str
) -> None:
    network = loaded("attributes", "cpu", torch.float32).network  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "ddmd_bench.scorers.attributes.load", lambda name, device, dtype: ill(network)
    )
    loaded.cache_clear()
    try:
        wrong = [f for f in doctor.examine(["attributes"]) if f.passed is False]
        assert [finding.check for finding in wrong] == [check]
        result = run("doctor", "attributes")
        assert result.exit_code == 1
        assert f"{check}: WRONG" in result.output
        with pytest.raises(BenchError, match=f"scorer attributes: {check}"):
            doctor.require_healthy(["attributes"])
    finally:
        loaded.cache_clear()


def test_published_values_are_asked_for_and_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels = scenes.seen_labels()[:1]
    (tmp_path / "golden").mkdir()
    image = scenes.render(labels, torch.Generator().manual_seed(1))[0]
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    for value, passed in ((1.0, True), (0.2876, False)):
        golden = doctor.Golden(
            "attributes",
            "prompt_accuracy",
            ("a.png",),
            scenes.prompt_of(labels[0]),
            (value,),
            1e-3,
            "here",
        )
        monkeypatch.setattr(doctor, "GOLDEN", (golden,))
        (tmp_path / "golden" / "a.png").unlink(missing_ok=True)
        absent = doctor.examine(["attributes"])[-1]
        assert absent.passed is None
        assert "put a.png into $DDMD_BENCH_WEIGHTS/golden (here)" in absent.text
        save_png(tmp_path / "golden" / "a.png", image)
        assert doctor.examine(["attributes"])[-1].passed is passed


def test_lines_are_paired_with_images_only_where_their_order_is_beyond_doubt(
    tmp_path: Path,
) -> None:
    """img10 stands before img2 in one order and behind it in another."""
    images = tmp_path / "images"
    images.mkdir()
    names = [f"img{k}.png" for k in range(12)]
    for name in names:
        Image.new("RGB", (8, 8)).save(images / name)
    texts = [f"prompt {k}" for k in range(12)]
    lines = _write(tmp_path / "p.txt", "\n".join(texts))
    with pytest.raises(BenchError) as refused:
        read_folder(images, lines, ["std"])
    assert "from image 3 on: natural: img1.png, img2.png, img3.png, img4.png" in str(refused.value)
    assert "plain: img1.png, img10.png, img11.png, img2.png" in str(refused.value)
    for order, meant in {"natural": names, "plain": sorted(names)}.items():
        found = read_folder(images, lines, ["std"], order)
        paired = {str(row["file_name"]): row["prompt"] for row in found.rows}
        assert paired == dict(zip(meant, texts, strict=True))
    table = pd.DataFrame({"file_name": names, "prompt": texts})
    table.to_csv(tmp_path / "p.csv", index=False)
    for unordered in (tmp_path / "p.csv", None):  # where an order says nothing
        with pytest.raises(BenchError, match="--order: of a text file's lines, and none is given"):
            read_folder(images, unordered, ["std"], "plain")
    for name in names:
        (images / name).rename(images / f"img{int(name[3:-4]):02d}.png")
    assert read_folder(images, lines, ["std"]).rows[10]["file_name"] == "img10.png"


def test_what_is_repeated_missing_or_extra_is_named(folder: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints/0-checkpoint.png").write_bytes((folder / "0.png").read_bytes())
    lines[1]["file_name"] = "gone.png"
    write_jsonl(folder / "metadata.jsonl", lines)
    result = run("score", folder, "--metrics", "std", "--output", tmp_path / "out")
    said = " ".join(result.output.split())
    assert "1 images have no prompt and were not scored: deep/1.png" in said
    assert "1 listed images are not there: gone.png" in said
    assert "1 images repeat another of the set, byte for byte" in said
    record = json.loads((tmp_path / "out/aggregates.json").read_text())
    assert [record[k] for k in ("equal_images", "not_there", "not_listed")] == [1, 1, 1]
    table = _write(tmp_path / "p.csv", "file_name,prompt\na,b\na,c\nd,b\nd,b\n")
    with pytest.raises(BenchError, match="a is named 2 times, d is named 2 times; name each"):
        read_folder(folder, table, ["std"])
    table = _write(tmp_path / "p.csv", "file_name,prompt\n../a.png,b\n")
    with pytest.raises(BenchError, match=r"row 0: \.\./a\.png leads out of the folder"):
        read_folder(folder, table, ["std"])
