"""Texts that prompts quote: found in the prompt, read on the image with the published weights."""

from __future__ import annotations

import random
import sys
import tomllib
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import rapidocr
import torch
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import decoded
from ddmd_bench.files.records import content_key
from ddmd_bench.measuring.doctor import examine
from ddmd_bench.measuring.measure import Images, measure
from ddmd_bench.measuring.one_pass import OnePass
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.scorers import SCORERS, needs_of, ocr, weights_sha256
from ddmd_bench.scorers.ocr import OcrScorer
from ddmd_bench.scorers.ocr_score import accuracy, fewest_edits
from ddmd_bench.scorers.quoted import SIGNS, quoted_texts, sign, words_of
from ddmd_bench.scorers.weights import RAPIDOCR, files_sha256, missing_sentence
from ddmd_bench.suite.files import load_suite

# what a prompt quotes


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign that says "OPEN"', ["OPEN"]),
        ("a sign that says 'OPEN'", ["OPEN"]),
        ("a dog's sign that says 'Hello'", ["Hello"]),
        ("the dogs' sign says 'Hello', the cat's 'Bye'.", ["Hello", "Bye"]),
        ("a poster with 'It's OPEN' on it", ["It's OPEN"]),
        ("a sign from the '90s that says 'OPEN'", ["OPEN"]),
        ("a rock 'n' roll poster, 'LIVE' in red", ["LIVE"]),
        ("a dog's bone, the cats' milk and a bird's nest", []),
        ("a cafe called 'Dogs' Home'", ["Dogs"]),  # as is said: double marks tell it
        ('a cafe called "Dogs\' Home"', ["Dogs' Home"]),
        ('"A" above "B 2"', ["A", "B 2"]),
        ('a 5" tall sign that says "5 INCHES", 3" wide', ["5 INCHES"]),
        ("a man 6'2\" tall", []),
        ("\"say 'Hi' to us\"", ["say 'Hi' to us"]),
        ("“It’s OPEN” in neon", ["It’s OPEN"]),
        ("‘It’s OPEN’ in a dog’s mouth", ["It’s OPEN"]),
        ("a dog’s bone", []),
        ("ein Schild mit „Hallo“ und „Welt“", ["Hallo", "Welt"]),
        ("une affiche « Bonjour »", ["Bonjour"]),
        ("写着“开放”的牌子，旁边是「営業中」和『东京』", ["开放", "営業中", "东京"]),
        ('写着"开放"的牌子', ["开放"]),
        ('a sign that says "OPEN', []),
        ('a sign that says "" and "..."', []),
        ("two lines: 'HAPPY\nDAY'", ["HAPPY\nDAY"]),
        ("a sign that says OPEN", []),
    ],
)
def test_what_stands_between_quotation_marks(prompt: str, texts: list[str]) -> None:
    assert quoted_texts(prompt) == tuple(texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,  World!", ["hello", "world"]),
        ("It’s 5:00", ["it", "s", "5", "00"]),
        ("24-HOUR\tcafe\n", ["24", "hour", "cafe"]),
        ("$5 + 1", ["$5", "+", "1"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("ＯＰＥＮ ﬁsh ①", ["open", "fish", "1"]),
        ("Cafe\u0301 CAFÉ", ["café", "café"]),
        ("营业，中", ["营业", "中"]),
        ("...", []),
    ],
)
def test_case_spaces_and_punctuation_do_not_matter(text: str, words: list[str]) -> None:
    assert words_of(text) == words


# edits


def levenshtein(a: str, b: str) -> int:
    """By its definition."""
    if not a or not b:
        return len(a) + len(b)
    replaced = levenshtein(a[1:], b[1:]) + (a[0] != b[0])
    return min(replaced, levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1)


def test_the_nearest_run_of_words_is_the_nearest_of_all() -> None:
    draws = random.Random(0)
    for _ in range(60):
        text, *words = ("".join(draws.choices("ab", k=draws.randint(1, 3))) for _ in range(4))
        bounds = combinations(range(len(words) + 1), 2)
        runs = ["", *("".join(words[i:j]) for i, j in bounds)]
        assert fewest_edits(text, words) == min(levenshtein(text, run) for run in runs)


@pytest.mark.parametrize(
    ("text", "words", "edits"),
    [
        ("sale", ["sale"], 0),
        ("sale", ["summer", "sale", "now"], 0),
        ("sale", ["salee"], 1),  # contained, and not what was asked for
        ("sale", ["wholesale"], 4),
        ("bigsale", ["big", "sale"], 0),
        ("bigsale", ["sale", "big"], 3),
        ("sale", ["xyz" * 9], 4),  # no more than there are characters
        ("sale", [], 4),
    ],
)
def test_edits(text: str, words: list[str], edits: int) -> None:
    assert fewest_edits(text, words) == edits


def test_one_text_alone_on_its_image_has_flow_grpos_value() -> None:
    """max(1 - edits / characters, 0) of the texts in lower case without spaces."""
    draws = random.Random(0)
    for _ in range(60):
        text, read = ("".join(draws.choices("abc", k=draws.randint(1, 4))) for _ in range(2))
        expected = max(1 - levenshtein(text, read) / len(text), 0)
        assert accuracy([text], [read]) == pytest.approx(expected)
    assert accuracy(["abcd", "ef"], ["abcx", "ef"]) == pytest.approx(1 - 1 / 6)


# with the published weights


@pytest.fixture(scope="module")
def model() -> OcrScorer:
    found = SCORERS["ocr"].load("ocr", "cpu", torch.float32)
    assert isinstance(found, OcrScorer)
    return found


def values(model: OcrScorer, images: Sequence[Image.Image], prompts: list[str]) -> list[float]:
    """OCR accuracy of each; that it is exact is said with it."""
    inputs = [model.preprocess(image)[None] for image in images]
    encoded = model.encode_prompts(prompts)
    found = [model.score_batch(x, [e]) for x, e in zip(inputs, encoded, strict=True)]
    for one in found:
        assert one.columns["ocr_exact"].tolist() == [one.columns["ocr_accuracy"].item() == 1]
    return [one.columns["ocr_accuracy"].item() for one in found]


def two_lines(first: str, second: str) -> Image.Image:
    """Yellow on blue."""
    image = Image.new("RGB", (320, 256), "navy")
    font = ImageFont.load_default(size=28)
    for text, y in ((first, 40), (second, 150)):
        ImageDraw.Draw(image).text((20, y), text, fill="yellow", font=font)
    return image


@pytest.mark.long
def test_a_drawn_text_is_read_exactly(model: OcrScorer) -> None:
    texts = [*SIGNS, "It's 5:00!", "Happy Birthday"]
    prompts = [f'a sign that says "{text}"' for text in texts]
    assert values(model, [sign(text) for text in texts], prompts) == [1] * len(texts)
    # Neither case, spaces nor punctuation matter.
    assert values(model, [sign("Open, 24-hours")], prompts[:1]) == [1]


def test_accents_are_read(model: OcrScorer) -> None:
    """In a font that has them; without its accent a letter is another one."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 30)
    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).text((16, 90), "Über café", fill="black", font=font)
    prompts = ["ein Schild: „Über Café“", "a sign that says 'Uber Cafe'"]
    assert values(model, [image] * 2, prompts) == [1, pytest.approx(1 - 2 / 8)]


def test_a_wrong_letter_costs_its_share(model: OcrScorer) -> None:
    images = [sign("HELLO WORD"), sign("HELLO WORLDS"), sign("HELLO")]
    assert values(model, images, ["'HELLO WORLD' in neon"] * 3) == pytest.approx(
        [1 - 1 / 10, 1 - 1 / 10, 1 - 5 / 10]
    )


def test_two_texts_in_whatever_order_and_others_beside_them(model: OcrScorer) -> None:
    prompt = "a door with 'STREET MARKET' and 'OPEN'"
    images = [two_lines("STREET MARKET", "OPEN"), two_lines("NOW OPEN", "STREET MARKET")]
    assert values(model, images, [prompt] * 2) == [1, 1]
    # Of 16 characters 4 are not there; or there is one too many.
    assert values(model, [sign("STREET MARKET")], [prompt]) == [pytest.approx(1 - 4 / 16)]
    assert values(model, [two_lines("STREET MARKET", "OPENN")], [prompt]) == [
        pytest.approx(1 - 1 / 16)
    ]


def test_images_without_a_text_have_0(tmp_path: Path) -> None:
    """Those of one colour too, of which most scorers have no value; a prompt without one has none.

    That no image of a student shows a text is a result, and stops no run.
    """
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.png")
    Image.new("RGB", (64, 64), "white").save(tmp_path / "1.png")
    items = [
        Item(str(k), prompt, lambda k=k: decoded(tmp_path / f"{k}.png"))
        for k, prompt in ((0, "'OPEN'"), (1, "'OPEN'"), (1, "no text"))
    ]
    (found,) = OnePass(["ocr"]).over([items])
    assert found["ocr"].missing == {2: "the prompt has no text in quotation marks"}
    for column in ("ocr_accuracy", "ocr_exact"):
        assert found["ocr"].columns[column][:2].tolist() == [0, 0]
    rows = [
        {"prompt_id": str(k), "prompt_set": "s", "image_index": 0, "out_of_range": None,
         "prompt": items[k].prompt}
        for k in range(2)
    ]  # fmt: skip
    source = Images(rows, ["0", "1"], lambda k: items[k].open())
    assert measure(source, ["ocr_exact"], "x").table["ocr_exact"].tolist() == [0, 0]


@pytest.mark.long
def test_what_is_read_is_what_rapidocr_reads(model: OcrScorer, tmp_path: Path) -> None:
    """From the file, at its own settings; twice the same."""
    images = [two_lines("Good morning", "2 + 2 = 4"), sign("turned").rotate(180)]
    engine = rapidocr.RapidOCR(params={"Global.log_level": "critical"})
    for k, image in enumerate(images):
        image.save(tmp_path / f"{k}.png")
        levels = np.ascontiguousarray(model.preprocess(image).numpy()[..., ::-1])
        lines = [*model.read(levels)]
        assert lines
        assert lines == [*engine(str(tmp_path / f"{k}.png")).txts] == [*model.read(levels)]


def test_it_computes_with_the_threads_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Kept(rapidocr.RapidOCR):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(rapidocr, "RapidOCR", Kept)
    values(SCORERS["ocr"].load("ocr", "cpu", torch.float32), [sign("OPEN")], ["'OPEN'"])
    (engine,) = made
    for network in (engine.text_det, engine.text_cls, engine.text_rec):
        options = network.session.session.get_session_options()
        assert options.intra_op_num_threads == torch.get_num_threads()
        assert options.inter_op_num_threads == 1


@pytest.mark.long
def test_the_doctor_finds_it_well() -> None:
    findings = examine(["ocr"])
    assert [finding.passed for finding in findings] == [True] * 3, findings


def test_keys_hold_each_of_its_networks() -> None:
    hashes: dict[str, str] = {}
    for weights in SCORERS["ocr"].weights:
        hashes |= files_sha256(weights)
    assert len({*hashes.values()}) == len(hashes) == 3
    assert all(len(sha256) == 64 for sha256 in hashes.values())
    assert weights_sha256(["ocr"]) == {"ocr": content_key(hashes)}
    assert needs_of("ocr_exact") == ["prompts", "the extra ocr"]


def test_it_reads_with_the_version_that_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["ocr"]
    assert f"rapidocr=={RAPIDOCR}" in extra
    assert {*extra} < {*project["dependency-groups"]["tests"]}
    monkeypatch.setattr(ocr, "version", lambda package: "3.9.1")
    with pytest.raises(
        BenchError, match=f"3.9.1 is installed, and OCR is measured with {RAPIDOCR}"
    ):
        ocr.load("ocr", "cpu", torch.float32)


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BenchError, match=r"'onnxruntime': pip install 'ddmd_bench\[ocr\]'"):
        SCORERS["ocr"].load("ocr", "cpu", torch.float32)
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    told = missing_sentence(SCORERS["ocr"].weights[0])
    assert "PP-OCRv6_det_small.onnx comes with a package: pip install 'ddmd_bench[ocr]'" in told
    (finding,) = examine(["ocr"])
    assert finding.passed is None
    with pytest.raises(BenchError, match="comes with a package"):
        SCORERS["ocr"].load("ocr", "cpu", torch.float32)


# refused before any work


def test_a_suite_whose_prompts_quote_no_text_is_refused(
    tiny: dict[str, Any], write_suite: Callable[[Any], str], tmp_path: Path
) -> None:
    suite = load_suite(write_suite(tiny), ("metrics=[prompt_accuracy, ocr_exact]",))
    told = r"metrics: ocr_exact: none of \d+ prompts can have a value; the first: the prompt has no"
    with pytest.raises(BenchError, match=told):
        make_plan(suite, tmp_path / "runs", tmp_path / "reports")
    evaluated = "evaluation={at: [1], num_prompts: 2, metrics: [ocr_accuracy]}"
    suite = load_suite(write_suite(tiny), (evaluated,))
    with pytest.raises(BenchError, match=r"evaluation.metrics: ocr_accuracy: none of 2 prompts"):
        make_plan(suite, tmp_path / "runs", tmp_path / "reports")


def test_a_folder_whose_prompts_quote_no_text_is_refused(tmp_path: Path) -> None:
    sign("OPEN").save(tmp_path / "0.png")
    (tmp_path / "prompts.txt").write_text("a sign that says OPEN\n")
    command = ["score", str(tmp_path), "--prompts", str(tmp_path / "prompts.txt"), "--metrics"]
    output = ["--output", str(tmp_path / "scores")]
    result = CliRunner().invoke(app, [*command, "ocr_exact", *output])
    assert result.exit_code == 2
    assert "prompts.txt: ocr_exact: none of 1 prompts can have a value" in " ".join(
        result.output.split()
    )
    (tmp_path / "prompts.txt").write_text("a sign that says 'OPEN'\n")
    result = CliRunner().invoke(app, [*command, "ocr_exact", *output])
    assert result.exit_code == 0, result.output
    assert "OCR exact" in result.output
