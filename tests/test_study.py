"""A study from its making to its tally: balanced, blind, and what the paper's own answers give."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from study_answers import STUDENTS, drawn_run, make, write_answers, write_study
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_json
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.study.answers import read_answers
from ddmd_bench.study.design import blocks_of, orders_of, screens_of, shares_of
from ddmd_bench.study.key import JUDGED, OBVIOUS, Key, read_key
from ddmd_bench.study.making import Asked, make_study
from ddmd_bench.study.pages import words_of
from ddmd_bench.study.pictures import opened, size_of
from ddmd_bench.study.power import answers_needed
from ddmd_bench.study.report import write_tally
from ddmd_bench.study.tally import tally
from ddmd_bench.study.view import summary_of

# The paper's 500 rankings of its models (2), (3), (4): of each order as many as its first, second
# and third places and all its pairwise shares leave possible.
PAPER = {"234": 28, "243": 4, "324": 51, "342": 118, "423": 11, "432": 288}


@given(
    num_sets=st.integers(1, 60),
    num_people=st.integers(1, 12),
    seen_by=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_each_set_is_seen_by_as_many_as_asked(
    num_sets: int, num_people: int, seen_by: int, seed: int
) -> None:
    seen_by = min(seen_by, num_people)
    shares = shares_of(num_sets, num_people, seen_by, np.random.default_rng(seed))
    assert Counter(n for share in shares for n in share) == dict.fromkeys(range(num_sets), seen_by)
    assert all(len(share) == len(set(share)) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(num=st.integers(1, 40), size=st.integers(2, 4), seed=st.integers(0, 9))
def test_each_place_holds_each_image_equally_often(num: int, size: int, seed: int) -> None:
    orders = orders_of(num, size, np.random.default_rng(seed))
    assert orders.shape == (num, size)
    whole = orders[: num - num % size]
    for place in range(size):
        counts = np.bincount(whole[:, place], minlength=size)
        assert (counts == len(whole) // size).all()


def test_of_many_students_each_two_meet_equally_often() -> None:
    blocks = blocks_of(495, 12, 4, np.random.default_rng(0))
    met = Counter(pair for block in blocks for pair in combinations(block, 2))
    assert len(met) == 66
    assert max(met.values()) - min(met.values()) <= 2
    assert blocks_of(3, 3, 3, np.random.default_rng(0)) == [(0, 1, 2)] * 3


@given(num=st.integers(12, 60), num_checks=st.integers(1, 4), seed=st.integers(0, 20))
def test_repeated_sets_come_late_and_in_another_order(num: int, num_checks: int, seed: int) -> None:
    checks = [*range(100, 100 + num_checks)]
    screens = screens_of([*range(num)], checks, num_checks, 3, np.random.default_rng(seed))
    counts = Counter(screen.number for screen in screens)
    assert len(screens) == num + 2 * num_checks
    assert all(counts[number] == 1 for number in checks)
    again = [number for number, times in counts.items() if times == 2]
    assert len(again) == num_checks
    for number in again:
        first, second = (k for k, screen in enumerate(screens) if screen.number == number)
        assert second - first > num // 2
        assert screens[first].order != screens[second].order


def paper_study(folder: Path, num_people: int) -> Key:
    """The paper's rankings, a prompt each, in a random order of prompts."""
    key = write_study(folder, ["2", "3", "4"], 500, num_people)
    orders = [order for order, number in PAPER.items() for _ in range(number)]
    np.random.default_rng(0).shuffle(orders)

    def rank(key: Key, k: int, shown: list[str]) -> list[float]:
        return [float(current.index(student)) for student in shown]

    for person in range(1, num_people + 1):
        path = write_answers(key, folder / "answers", person, lambda key, k, s: [0.0, 1.0, 2.0])
        record = json.loads(path.read_text())
        for answer in record["answers"]:
            current = orders[answer["set"]]
            shown = [key.student_of(key.sets[answer["set"]].columns[c]) for c in answer["order"]]
            answer["ranks"] = [int(r) + 1 for r in rank(key, 0, shown)]
        path.write_text(json.dumps(record))
    return key


def test_the_papers_rankings_give_its_table(tmp_path: Path) -> None:
    """Paper, App. C: every share, and that 500 rankings were counted, not 5,000."""
    key = paper_study(tmp_path, 10)
    record = tally(key, read_answers(key, [tmp_path / "answers"]))
    found = record["counted"]
    rows = found["students"]
    expected = {"2": (2.748, 6.4, 12.4, 81.2), "3": (1.692, 33.8, 63.2, 3.0)}
    expected["4"] = (1.560, 59.8, 24.4, 15.8)
    for name, (mean_rank, *places) in expected.items():
        assert rows[name]["mean_rank"]["value"] == pytest.approx(mean_rank, abs=1e-9)
        assert [100 * share for share in rows[name]["places"]] == pytest.approx(places, abs=1e-9)
        assert 100 * rows[name]["first"]["value"] == pytest.approx(places[0], abs=1e-9)
    shares = {(row["student"], row["other"]): 100 * row["value"] for row in found["pairs"]}
    assert shares == pytest.approx({("2", "3"): 8.6, ("2", "4"): 16.6, ("3", "4"): 39.4})
    first = rows["4"]["first"]
    assert 100 * (first["high"] - first["low"]) / 2 == pytest.approx(4.3, abs=0.7)
    assert all(row["p_holm"] < 0.001 for row in found["pairs"])
    summary = " ".join(summary_of(record))
    assert "500 rankings of 500 prompts by 10 people" in summary
    assert "500 answers are counted, not the 5,000" in summary
    assert "It comes last in 15.8 % of its sets" in summary
    assert "(3.0 %)" in summary
    # A person for each ranking: nothing is left to their habits.
    alone = paper_study(tmp_path / "alone", 500)
    found = tally(alone, read_answers(alone, [tmp_path / "alone" / "answers"]))["counted"]
    first = found["students"]["4"]["first"]
    assert 100 * (first["high"] - first["low"]) / 2 == pytest.approx(4.3, abs=0.05)


STRENGTHS = {"a": 1.2, "b": 0.3, "c": -0.6}


def people_with(strengths: dict[str, float], generator: np.random.Generator) -> Any:
    def rank(key: Key, k: int, shown: list[str]) -> list[float]:
        return [-strengths.get(s, 0.0) - float(generator.gumbel()) for s in shown]

    return rank


def left_first(key: Key, k: int, shown: list[str]) -> list[float]:
    return [0.0, 1.0, 2.0]


def test_simulated_people_give_their_strengths_and_odd_ones_are_found(tmp_path: Path) -> None:
    """Nine who judge by known strengths; one chooses the left, one anything, one tires."""
    generator = np.random.default_rng(2)
    honest = people_with(STRENGTHS, generator)
    random = people_with({}, generator)

    def careless(key: Key, k: int, shown: list[str]) -> Any:
        return None if k < 0 else random(key, k, shown)  # None: wrong where it is obvious

    def tired(key: Key, k: int, shown: list[str]) -> list[float]:
        return honest(key, k, shown) if k < 75 else random(key, k, shown)

    key = write_study(tmp_path, [*STRENGTHS], 300, 12, 6, num_checks=5)
    kinds = {10: left_first, 11: careless, 12: tired}
    for person in range(1, 13):
        write_answers(key, tmp_path / "answers", person, kinds.get(person, honest))
    record = tally(key, read_answers(key, [tmp_path / "answers"]))
    people = {row["person"]: row for row in record["people"]}
    for person in range(1, 10):
        assert not people[person]["left_out"], people[person]
        assert people[person]["habits"] == [], people[person]
        assert people[person]["obvious"] == [5, 5]
    assert any("place 1 has the first choice in 100 %" in h for h in people[10]["habits"])
    assert any("agrees with the others" in h for h in people[10]["habits"])
    assert people[11]["left_out"].startswith("0 of 5 obvious sets right")
    assert any("in the second half" in habit for habit in people[12]["habits"])
    # Both results are there; those of all are the weaker ones.
    counted, everybody = record["counted"], record["everybody"]
    assert counted["people"] == 11
    assert everybody["people"] == 12
    spread = [r["students"]["a"]["strength"]["value"] for r in (counted, everybody)]
    assert spread[0] > spread[1]
    assert counted["agreement"]["alpha"]["value"] > everybody["agreement"]["alpha"]["value"] > 0

    # Of the nine alone the strengths are those that they judged by.
    files = [tmp_path / "answers" / f"answers-{person}-x.json" for person in range(1, 10)]
    alone = tally(key, read_answers(key, files))["counted"]
    mean = np.mean([*STRENGTHS.values()])
    for name, strength in STRENGTHS.items():
        cell = alone["students"][name]["strength"]
        # How often the interval holds them is a test of its own.
        assert cell["value"] == pytest.approx(strength - mean, abs=0.15)
        assert 0.1 < cell["high"] - cell["low"] < 0.4


def test_a_metric_that_orders_as_people_do_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    qualities = {(s, k): STRENGTHS[s] + generator.normal() for s in STRENGTHS for k in range(200)}
    values = {f"{s}|p/{k:04d}": q for (s, k), q in qualities.items()}
    noise = {name: float(generator.normal()) for name in values}
    metrics = {"hps_v21": values, "image_reward": noise}
    key = write_study(tmp_path, [*STRENGTHS], 200, 4, 2, metrics=metrics)

    def write(person: int) -> None:
        numbers = iter(screen["set"] for screen in key.record["screens"][person - 1])

        def rank(key: Key, k: int, shown: list[str]) -> list[float]:
            number = next(numbers)
            return [-qualities[s, number] for s in shown]

        write_answers(key, tmp_path / "answers", person, rank)

    for person in range(1, 5):
        write(person)
    found = tally(key, read_answers(key, [tmp_path / "answers"]))["counted"]["metrics"]
    assert found["hps_v21"]["value"] == 1
    assert found["image_reward"]["low"] < 0.5 < found["image_reward"]["high"]


def test_answers_that_cannot_be_placed_are_refused(tmp_path: Path) -> None:
    key = write_study(tmp_path, ["a", "b", "c"], 12, 2)
    path = write_answers(key, tmp_path / "answers", 1, left_first)
    whole = path.read_text()
    record = json.loads(whole)

    def said(change: Callable[[Any], None] | str, *more: Path) -> str:
        if isinstance(change, str):
            path.write_text(change)
        else:
            changed = copy.deepcopy(record)
            change(changed)
            path.write_text(json.dumps(changed))
        with pytest.raises(BenchError) as raised:
            read_answers(key, [path, *more])
        path.write_text(whole)
        return str(raised.value)

    assert "study other; expected answers to abc" in said(
        lambda r: r.update(study="other")
    ).replace("answers to study", "study")
    assert "cut, or no JSON" in said(whole[:-20])
    assert "person 9; expected 1 to 2" in said(lambda r: r.update(person=9))
    assert "rank" in said(lambda r: r["answers"][0]["ranks"].pop())
    assert "no equal ranks" in said(lambda r: r["answers"][0].update(ranks=[1, 1, 2]))
    assert "another screen" in said(lambda r: r["answers"].reverse())
    assert "completion code" in said(lambda r: r["answers"].pop())
    assert "schema 2" in said(lambda r: r.update(schema=2))
    assert "named twice" in said(whole, path)
    twin = tmp_path / "twin.json"
    twin.write_text(whole)
    assert "the same answers as" in said(whole, twin)
    # A session that was saved on its way counts once, by its end.
    early = write_answers(key, tmp_path / "early", 1, left_first, num=3)
    (person,) = read_answers(key, [early, path])
    assert len(person.judgments) == len(record["answers"])
    other = write_answers(key, tmp_path / "other", 1, lambda key, k, s: [2.0, 1.0, 0.0], num=3)
    assert "other answers than" in said(whole, other)
    with pytest.raises(BenchError, match="no answers"):
        read_answers(key, [tmp_path / "none"] if (tmp_path / "none").mkdir() else [])


def test_equal_ranks_share_their_places_where_they_were_offered(tmp_path: Path) -> None:
    key = write_study(tmp_path, ["a", "b", "c"], 12, 1, ties=True)
    write_answers(key, tmp_path / "answers", 1, lambda key, k, shown: [0.0, 0.0, 1.0])
    (person,) = read_answers(key, [tmp_path / "answers"])
    assert all(sorted(one.ranks) == [1.5, 1.5, 3] for one in person.judgments)
    found = tally(key, [person])["counted"]
    assert sum(row["first"]["value"] for row in found["students"].values()) == pytest.approx(1)


def test_power_is_what_a_simulation_shows() -> None:
    num = answers_needed(0.6)
    assert num == pytest.approx(194, abs=1)
    generator = np.random.default_rng(0)
    shares = generator.binomial(num, 0.6, 20_000) / num
    error = math.sqrt(0.25 / num)
    assert np.mean(np.abs(shares - 0.5) > 1.96 * error) == pytest.approx(0.8, abs=0.03)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A suite that was run, and its folder of runs."""
    folder = tmp_path_factory.mktemp("study")
    data = {**copy.deepcopy(TINY), "title": "Decoupled and others"}
    suite = folder / "tiny.yaml"
    suite.write_text(yaml.safe_dump(data, sort_keys=False))
    given = [
        "run",
        str(suite),
        "--runs",
        str(folder / "runs"),
        "--reports",
        str(folder / "reports"),
    ]
    assert CliRunner().invoke(app, given).exit_code == 0
    return str(suite), folder / "runs"


def made(tiny_run: tuple[str, Path], output: Path, *more: str) -> Any:
    suite, runs = tiny_run
    given = ["study", "make", suite, "--runs", str(runs), "--output", str(output), *more]
    return CliRunner().invoke(app, given)


SMALL = ("--prompts", "5", "--annotators", "2", "--seen-by", "2")


def test_nothing_that_is_handed_out_says_whose_an_image_is(
    tiny_run: tuple[str, Path], tmp_path: Path
) -> None:
    result = made(tiny_run, tmp_path / "study", *SMALL)
    assert result.exit_code == 0, result.output
    key = read_key(tmp_path / "study")
    assert key.students == ["teacher_2", "dmd", "ca_only"]
    page = tmp_path / "study" / "page"
    words = {w for n, m in METHODS.items() for w in (n, m.title)} | {
        "teacher",
        "student",
        "Decoupled",
    }
    words |= {*TINY["students"], *(row["title"] for row in key.record["students"].values())}
    files = [path for path in page.rglob("*") if path.is_file()]
    assert len(files) == 1 + 3 * 5
    text = (page / "index.html").read_text()
    for word in words:
        assert all(word not in str(path.relative_to(page)) for path in files)
        assert f'"{word}"' not in text, word
        if word not in ("real", "teacher", "dmd"):  # words that stand within others
            assert word not in text, word
    times = {path.stat().st_mtime for path in files}
    assert len(times) == 1
    for path in files[1:] if files[0].suffix == ".html" else files:
        if path.suffix == ".webp":
            with Image.open(path) as image:
                assert image.info.keys() <= {"loop", "background", "timestamp", "duration"}
                assert image.size == (32, 32)
    # Each image is its student's own, to the pixel.
    images = key.record["images"]
    for name, facts in images.items():
        (own,) = tiny_run[1].glob(f"tiny/generate/{facts['student']}-*/images")
        rows = [json.loads(line) for line in (own / "metadata.jsonl").read_text().splitlines()]
        (file,) = [
            row["file_name"] for row in rows
            if row["prompt_id"] == facts["prompt_id"] and row["image_index"] == 0
        ]  # fmt: skip
        with Image.open(own / file) as expected, Image.open(page / "images" / name) as shown:
            assert np.array_equal(np.array(expected.convert("RGB")), np.array(shown.convert("RGB")))


def test_the_same_study_is_finished_and_another_is_refused(
    tiny_run: tuple[str, Path], tmp_path: Path
) -> None:
    assert made(tiny_run, tmp_path / "study", *SMALL).exit_code == 0
    before = (tmp_path / "study" / "key.json").read_bytes()
    lost = next((tmp_path / "study" / "page" / "images").iterdir())
    pixels = lost.read_bytes()
    lost.unlink()
    assert made(tiny_run, tmp_path / "study", *SMALL).exit_code == 0
    assert (tmp_path / "study" / "key.json").read_bytes() == before
    assert lost.read_bytes() == pixels
    other = made(tiny_run, tmp_path / "study", *SMALL, "--seed", "1")
    assert other.exit_code == 2
    assert "holds another study" in other.output
    again = read_json(tmp_path / "study" / "key.json")
    assert again["study"] == json.loads(before)["study"]


def test_a_study_of_images_that_were_drawn_anew_is_another(tmp_path: Path) -> None:
    """The pictures of the page stay, so does the key that says what they are."""
    asked = Asked(STUDENTS, 4, 2, 2, "ranking", False, 0, None)
    run, prompts = drawn_run(tmp_path, 4)

    def make_again(drawn: str) -> None:
        run.students["green"][0].done["generate"] = {"key": drawn}
        make_study(run, prompts, asked, words_of([]), tmp_path / "study", lambda d, t: None)

    make_again("before")
    before = (tmp_path / "study" / "key.json").read_bytes()
    make_again("before")
    with pytest.raises(BenchError, match="holds another study, of earlier images of green"):
        make_again("after a retraining")
    assert (tmp_path / "study" / "key.json").read_bytes() == before


def test_a_study_is_made_of_a_report_too(tiny_run: tuple[str, Path], tmp_path: Path) -> None:
    """Of the images that it shows, and of no others."""
    report = tiny_run[1].parent / "reports" / "tiny"
    result = made((str(report), tiny_run[1]), tmp_path / "study", *SMALL)
    assert result.exit_code == 0, result.output
    assert made(tiny_run, tmp_path / "of_suite", *SMALL).exit_code == 0
    keys = [read_key(tmp_path / name).record for name in ("study", "of_suite")]
    assert keys[0]["study"] == keys[1]["study"]
    record = read_json(report / "report.json")
    record["folders"] |= {"generate/dmd/seed 0": "elsewhere"}
    changed = tmp_path / "changed" / "report.json"
    changed.parent.mkdir()
    changed.write_text(json.dumps(record))
    other = made((str(changed), tiny_run[1]), tmp_path / "other", *SMALL)
    assert other.exit_code == 2
    assert "shows other images than" in other.output


def test_bad_wishes_are_said_before_anything_is_written(
    tiny_run: tuple[str, Path], tmp_path: Path
) -> None:
    wishes = {
        ("--prompts", "6"): "--prompts 6: the suite has 5",
        ("--students", "dmd,cat"): "unknown student 'cat'",
        ("--students", "dmd"): "two students or more",
        ("--seen-by", "11"): "--seen-by 11: there are 10 people",
        ("--design", "circle"): "unknown design 'circle'",
    }
    for wish, expected in wishes.items():
        result = made(tiny_run, tmp_path / "study", "--prompts", "5", *wish)
        assert result.exit_code == 2
        assert expected in result.output
        assert not (tmp_path / "study" / "page").exists()
    words = tmp_path / "fr.yaml"
    words.write_text("language: Français\n")
    result = made(tiny_run, tmp_path / "study", "--prompts", "5", "--words", str(words))
    assert result.exit_code == 2
    assert "has no 'title'" in result.output


def test_students_who_cannot_be_shown_side_by_side_are_refused(tmp_path: Path) -> None:
    """One image lacks; one student's images are larger: either would be seen."""
    asked = Asked(STUDENTS, 4, 2, 2, "ranking", False, 0, None)

    def said(run: RunFiles, prompts: list[Prompt]) -> str:
        with pytest.raises(BenchError) as raised:
            make_study(run, prompts, asked, words_of([]), tmp_path / "study", lambda d, t: None)
        assert not (tmp_path / "study" / "page").exists()
        return str(raised.value)

    run, prompts = drawn_run(tmp_path / "a", 4)
    run.students["green"][0].images.pop(("some/2", 0))
    assert "green lacks images of 1 prompts, e.g. some/2" in said(run, prompts)
    run, prompts = drawn_run(tmp_path / "b", 4)
    larger, _ = drawn_run(tmp_path / "c", 4, size=20)
    run.students["blue"] = larger.students["blue"]
    assert "several sizes" in (text := said(run, prompts))
    assert "red some/0 16 x 16 px, blue some/0 20 x 20 px" in text
    run, prompts = drawn_run(tmp_path / "d", 4)
    run.students["blue"][0].images["some/3", 0] = larger.students["red"][0].images["some/3", 0]
    assert "blue some/3 20 x 20 px" in said(run, prompts)
    # On its side a picture of 16 x 20 px is one of 20 x 16.
    turned = Image.new("RGB", (16, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert size_of(tmp_path / "turned.jpg") == opened(tmp_path / "turned.jpg").size == (20, 16)


def test_obvious_sets_show_one_image_whole_and_its_tiles_in_disorder(tmp_path: Path) -> None:
    key = make(tmp_path)
    (obvious,) = (one for one in key.sets if one.kind == OBVIOUS)
    folder = tmp_path / "study" / "page" / "images"
    whole, *broken = (np.array(Image.open(folder / name)) for (name,) in obvious.columns)
    assert len(broken) == 2
    for image in broken:
        assert sorted(map(tuple, image.reshape(-1, 3))) == sorted(map(tuple, whole.reshape(-1, 3)))
        tiles = [(y, x) for y in range(0, 16, 4) for x in range(0, 16, 4)]
        assert not any(
            np.array_equal(image[y : y + 4, x : x + 4], whole[y : y + 4, x : x + 4])
            for y, x in tiles
        )
    assert not np.array_equal(*broken)


def test_a_tally_writes_every_form_of_its_report(
    tiny_run: tuple[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    assert made(tiny_run, folder, *SMALL).exit_code == 0
    key = read_key(folder)
    for person in (1, 2):
        write_answers(key, tmp_path / "answers", person, left_first, code="<b>|=1")
    result = CliRunner().invoke(app, ["study", "tally", str(folder), str(tmp_path / "answers")])
    assert result.exit_code == 0, result.output
    assert "10 rankings of 5 prompts by 2 people" in result.output
    page = (folder / "tally" / "index.html").read_text()
    assert "&lt;b&gt;|=1" in page
    assert "<b>|" not in page
    assert "Which metrics order as people do" in page
    assert "Prompt accuracy" in page
    for name in ("tally.md", "tally.csv", "tally.tex", "tally.json"):
        assert (folder / "tally" / name).stat().st_size > 100
    assert "<b>" not in (folder / "tally" / "tally.md").read_text()
    power = CliRunner().invoke(app, ["study", "power", "60", "--study", str(folder)])
    assert power.exit_code == 0, power.output
    assert "194 answers" in power.output or "193 answers" in power.output
    none = CliRunner().invoke(app, ["study", "tally", str(tmp_path), str(tmp_path / "answers")])
    assert none.exit_code == 2
    assert "no study" in none.output


def test_whole_models_are_voted_on_by_people_alone(
    tiny_run: tuple[str, Path], tmp_path: Path
) -> None:
    """Fifteen votes for one: the paper's form, where 100 % of 15 leaves 78 to 100 %."""
    folder = tmp_path / "study"
    result = made(
        tiny_run, folder, "--prompts", "5", "--annotators", "15", "--design", "side-by-side",
        "--students", "dmd,ca_only",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    key = read_key(folder)
    assert len(key.sets) == 1
    sides = Counter(tuple(person[0]["order"]) for person in key.record["screens"])
    assert {*sides.values()} == {7, 8}

    def for_dmd(key: Key, k: int, shown: list[str]) -> list[float]:
        return [float(student != "dmd") for student in shown]

    for person in range(1, 16):
        write_answers(key, tmp_path / "answers", person, for_dmd)
    record = tally(key, read_answers(key, [tmp_path / "answers"]))
    write_tally(record, folder)
    first = record["counted"]["students"]["dmd"]["first"]
    assert (first["value"], first["high"], first["n"]) == (1, 1, 15)
    assert first["low"] == pytest.approx(0.025 ** (1 / 15))
    assert "15 votes of 15 people over 5 prompts" in summary_of(record)[0]
    assert {one.kind for one in key.sets} == {JUDGED} != {OBVIOUS}


@pytest.mark.long
def test_a_suite_claims_what_people_prefer(tmp_path: Path) -> None:
    """Undecided without a tally, then by it; a pack holds it; other images are not judged by it."""
    data = copy.deepcopy(TINY)
    data["prompts"]["seen"]["num_prompts"] = 6
    folder = tmp_path / "study"
    preferred = {"claim": "preferred", "student": "dmd", "study": str(folder)}
    data["claims"] = [{**preferred, "other": other} for other in ("ca_only", "teacher_2")]
    suite = tmp_path / "tiny.yaml"
    suite.write_text(yaml.safe_dump(data, sort_keys=False))
    where = ["--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports")]

    def invoked(*given: str) -> str:
        result = CliRunner().invoke(app, [*given])
        assert result.exit_code == 0, result.output
        return result.output

    def verdicts() -> list[tuple[str, str]]:
        record = read_json(tmp_path / "reports" / "tiny" / "report.json")
        return [(claim["verdict"], claim["note"]) for claim in record["claims"]]

    invoked("run", str(suite), *where)
    assert verdicts() == [("undecided", f"study {folder} is not tallied yet")] * 2
    given = ["--prompts", "8", "--annotators", "4", "--seen-by", "4", "--students", "dmd,ca_only"]
    invoked("study", "make", str(suite), *where, "--output", str(folder), *given)
    key = read_key(folder)

    def for_dmd(key: Key, k: int, shown: list[str]) -> list[float]:
        return [float(student != "dmd") for student in shown]

    for person in range(1, 5):
        write_answers(key, tmp_path / "answers", person, for_dmd)
    invoked("study", "tally", str(folder), str(tmp_path / "answers"))
    invoked("run", str(suite), *where)
    other = f"study {folder} shows other images of teacher_2"
    assert verdicts() == [("supported", "32 judgments of 4 people"), ("undecided", other)]
    page = (tmp_path / "reports" / "tiny" / "index.html").read_text()
    assert "People prefer this training of" in page
    assert "above in 100.0 % (95 % interval" in page
    assert "(unchanged)" in invoked("run", str(suite), *where)

    archive = str(tmp_path / "tiny.tar")
    invoked("pack", str(suite), *where, "--output", archive)
    (folder / "tally" / "tally.json").unlink()
    invoked("verify", archive)
    # The tally is gone: the run's own report says so, the pack's does not hang on it.
    invoked("report", str(suite), *where)
    assert verdicts()[0][0] == "undecided"
