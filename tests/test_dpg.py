"""BLIP-VQA's answers and the DPG-Bench scorer, on a tiny network in the published format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ddmd_bench.errors import BenchError
from ddmd_bench.literature.values import load_tables
from ddmd_bench.scorers import METRICS, SCORERS, ScorerModel
from ddmd_bench.scorers.blip_vqa import MAX_TOKENS, BlipVqa, load_network
from ddmd_bench.scorers.dpg_questions import CATEGORIES, read_questions
from ddmd_bench.scorers.dpg_score import after_dependencies
from ddmd_bench.scorers.vqa import VQA
from ddmd_bench.scorers.weights import OWN_FOLDER
from tests.test_dpg_score import TABLE, values_of, written
from tests.tiny_blip import IMAGE_FORMAT, SIZE, VOCABULARY, tiny_blip, write_repository

METRIC = "dpg_bench_blip_vqa"
FIELD, HORSES = "A vast, green field — ‘quiet’.", "Two horses"
QUESTIONS = [
    ["is there a field ?", "is the field green ?", "is it vast ?"],
    ["two horses ?", "is this the drawing"],
    ["are there two green horses this vast field ?"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What DDMD_BENCH_WEIGHTS names: the repository by its name, and the questions."""
    folder = tmp_path_factory.mktemp("weights")
    write_repository(folder / "blip-vqa-capfilt-large")
    written(folder, TABLE)
    return folder


@pytest.fixture
def blip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> BlipVqa:
    monkeypatch.setenv(OWN_FOLDER, str(folder))
    model = VQA["blip_vqa"].load("cpu", torch.float32)
    assert isinstance(model, BlipVqa)
    return model


@pytest.fixture
def scorer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ScorerModel:
    monkeypatch.setenv(OWN_FOLDER, str(folder))
    return SCORERS["dpg_blip_vqa"].load("dpg_blip_vqa", "cpu", torch.float32)


def pictures(num: int, seed: int = 0) -> list[Image.Image]:
    """Noise in blocks, of several shapes and modes."""
    generator = np.random.default_rng(seed)
    modes = ["RGB", "L", "RGBA", "P", "LA"]
    made = []
    for k in range(num):
        blocks = generator.integers(0, 256, (4, 3, 3), np.uint8)
        image = Image.fromarray(blocks).resize((40 + k, 30), Image.Resampling.NEAREST)
        made.append(image.convert(modes[k % len(modes)]))
    return made


# BLIP-VQA


def test_images_are_prepared_as_the_authors_do(blip: BlipVqa) -> None:
    """torchvision's transforms, as in BLIP's own evaluation, with the repository's numbers."""
    from torchvision import transforms

    authors: Any = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(IMAGE_FORMAT["image_mean"], IMAGE_FORMAT["image_std"]),
        ]
    )
    for image in pictures(5):
        torch.testing.assert_close(blip.preprocess(image), authors(image.convert("RGB")))


def test_a_question_is_read_between_its_own_start_and_the_end(blip: BlipVqa) -> None:
    rows = blip.encode_questions(["is there a field", "a zebra"])["input_ids"].tolist()
    start, end = len(VOCABULARY) + 1, VOCABULARY.index("[SEP]")
    words = [VOCABULARY.index(word) for word in ("is", "there", "a", "field")]
    assert rows[0] == [start, *words, end]
    assert rows[1] == [start, VOCABULARY.index("a"), VOCABULARY.index("[UNK]"), end, 0, 0]


def test_a_question_that_is_too_long_is_cut_and_told(blip: BlipVqa) -> None:
    fits, long = ("a " * (MAX_TOKENS - 2), "a " * 99)
    assert "truncated" not in blip.encode_questions([fits])
    cut = blip.encode_questions(["a", long])
    assert bool(cut["truncated"])
    torch.testing.assert_close(cut["input_ids"][1:], blip.encode_questions([fits])["input_ids"])


@torch.no_grad()
def test_answers_are_those_of_the_networks_own_loss(blip: BlipVqa) -> None:
    """Yes where transformers' loss of the answer "yes" is below that of "no"."""
    network = tiny_blip()
    inputs = torch.stack([blip.preprocess(image) for image in pictures(24)])
    asked = [blip.encode_questions(QUESTIONS[k % 3]) for k in range(24)]
    expected = []
    for image, encoded in zip(inputs, asked, strict=True):
        for ids in encoded["input_ids"]:
            question = ids[ids != 0][None]
            losses = [
                network(
                    input_ids=question,
                    attention_mask=torch.ones_like(question),
                    pixel_values=image[None],
                    labels=torch.tensor([[len(VOCABULARY), VOCABULARY.index(word)]]),
                ).loss
                for word in ("yes", "no")
            ]
            expected.append(bool(losses[0] < losses[1]))
    found = torch.cat(blip.says_yes(inputs, asked)).tolist()
    assert found == expected
    assert 5 < sum(found) < len(found) - 5  # both answers occur


def test_answers_do_not_depend_on_the_batch(blip: BlipVqa, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.stack([blip.preprocess(image) for image in pictures(9)])
    asked = [blip.encode_questions(QUESTIONS[k % 3]) for k in range(9)]
    together = blip.says_yes(inputs, asked)
    assert [len(yes) for yes in together] == [3, 2, 1] * 3
    alone = [blip.says_yes(inputs[k : k + 1], asked[k : k + 1])[0] for k in range(9)]
    monkeypatch.setattr("ddmd_bench.scorers.blip_vqa.QUESTIONS_AT_ONCE", 4)
    in_parts = blip.says_yes(inputs, asked)
    for k in range(9):
        assert together[k].tolist() == alone[k].tolist() == in_parts[k].tolist()


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    network = write_repository(tmp_path)
    path, config = tmp_path / "pytorch_model.bin", tmp_path / "config.json"
    loaded = load_network(path, config)
    assert not any(value.requires_grad for value in loaded.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    stored = dict(network.state_dict())
    stored["extra"] = stored.pop("vision_model.post_layernorm.bias")
    stored["text_encoder.embeddings.LayerNorm.weight"] = torch.zeros(5)
    torch.save(stored, path)
    with pytest.raises(
        BenchError,
        match=r"1 missing: vision_model\.post_layernorm\.bias; 1 unexpected: extra; "
        r"1 of another shape: text_encoder\.embeddings\.LayerNorm\.weight",
    ):
        load_network(path, config)


def test_a_file_of_weights_runs_no_program(tmp_path: Path) -> None:
    write_repository(tmp_path)
    torch.save({"a": Path.touch}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BenchError, match=r"pytorch_model\.bin: cut, or no PyTorch file"):
        load_network(tmp_path / "pytorch_model.bin", tmp_path / "config.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BenchError, match=r"no PyTorch file of tensors \(EOFError"):
        load_network(tmp_path / "pytorch_model.bin", tmp_path / "config.json")


# the scorer


def test_an_image_is_scored_by_its_prompts_questions(scorer: ScorerModel, blip: BlipVqa) -> None:
    prompts = [FIELD, HORSES] * 12
    inputs = torch.stack([scorer.preprocess(image) for image in pictures(24)])
    columns = scorer.score_batch(inputs, scorer.encode_prompts(prompts)).columns
    assert all(c.dtype == torch.float64 and c.shape == (24,) for c in columns.values())
    texts = [
        ["Is there a field?", "Is it green?", "Is it vast?"],
        ["Is this a drawing?", "Are there two?"],
    ]
    yes = blip.says_yes(inputs, [blip.encode_questions(texts[k % 2]) for k in range(24)])
    trees = [[[], [0], [0, 1]], [[], [0]]]
    for k in range(24):
        passed = after_dependencies(yes[k].tolist(), trees[k % 2])
        assert columns[METRIC][k] == pytest.approx(sum(passed) / len(passed))
    assert columns[f"{METRIC}_entity"][0] == float(yes[0][0])
    assert columns[f"{METRIC}_attribute"][0] == pytest.approx(float(yes[0][1:].double().mean()))
    assert math.isnan(columns[f"{METRIC}_global"][0])
    assert [columns[f"{METRIC}_{c}_questions"][0] for c in CATEGORIES] == [0, 1, 2, 0, 0]
    assert len(columns[METRIC].unique()) > 2  # it looks at the images

    table = pd.DataFrame({"prompt_id": prompts} | {k: v.numpy() for k, v in columns.items()})
    values = values_of(table)
    assert values["overall"] == pytest.approx(float(columns[METRIC].mean()))
    attributes = torch.cat([yes[k][1:] for k in range(0, 24, 2)]).double()
    assert values["attribute"] == pytest.approx(float(attributes.mean()))


def test_another_prompt_is_refused_with_the_reason(scorer: ScorerModel) -> None:
    with pytest.raises(BenchError, match="'a cat' is not of DPG-Bench: none of its 2 prompts"):
        scorer.encode_prompts([FIELD, "a cat"])


def test_without_its_files_the_scorer_says_which(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    with pytest.raises(BenchError, match=r"DPG-Bench's questions: dpg_bench\.csv .*ELLA"):
        SCORERS["dpg_blip_vqa"].load("dpg_blip_vqa", "cpu", torch.float32)
    written(tmp_path)
    with pytest.raises(BenchError, match=r"BLIP-VQA: config\.json.*blip-vqa-capfilt-large"):
        SCORERS["dpg_blip_vqa"].load("dpg_blip_vqa", "cpu", torch.float32)


def test_the_model_is_named_and_no_published_value_is_set_beside_it() -> None:
    for name in VQA:
        columns = SCORERS[f"dpg_{name}"].columns
        assert all(column.startswith(f"dpg_bench_{name}") for column in columns)
        assert set(columns) <= METRICS.keys()
        assert "not comparable" in METRICS[f"dpg_bench_{name}"].description
    published = {t.metric(column) for t in load_tables() for column in t.columns}
    assert "dpg_bench" in published - METRICS.keys()
    assert not published & {f"dpg_bench_{name}" for name in VQA}


def test_the_questions_are_of_the_commit_of_the_prompts(tmp_path: Path) -> None:
    from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
    from ddmd_bench.scorers.dpg_questions import QUESTIONS as FILE

    row = PROMPT_SOURCES["dpg_bench"]
    assert f"{row.repository}/{row.revision}/dpg_bench/dpg_bench.csv" in str(FILE.url)
    assert len(read_questions(written(tmp_path))) == 2
