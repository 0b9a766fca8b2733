"""Two people in front of a study's page, in a real browser: by keyboard and by touch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import needs_browser, started, violations, watched
from study_answers import STUDENTS, make

from ddmd_bench.study.answers import read_answers
from ddmd_bench.study.key import Key
from ddmd_bench.study.tally import tally

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


def opened(context: Any, folder: Path, person: int) -> Any:
    """The page, of which nothing leaves the machine and nothing fails."""
    page = watched(context)
    page.goto(f"{(folder / 'study' / 'page' / 'index.html').as_uri()}#{person}")
    return page


def students_shown(page: Any, key: Key) -> list[str]:
    """Whose image stands at each place, '' of an obvious set, as the key knows it."""
    sources = [image.get_attribute("src") for image in page.locator(".choice img").all()]
    return [key.record["images"][Path(source).name]["student"] for source in sources]


def saved(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click("#download")
    path = folder / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


@pytest.mark.long
def test_two_people_answer_and_one_is_interrupted(browser: Any, tmp_path: Path) -> None:
    """One by keys, who likes green, then red; one by touch, who likes blue, then green."""
    key = make(tmp_path)
    num = len(key.record["screens"][0])
    assert num == 12 + 2

    keys = opened(browser.new_context(), tmp_path, 1)
    assert "Which image do you prefer?" in keys.inner_text("main")
    keys.fill("#code", "anna")
    keys.keyboard.press("Enter")
    for k in range(num):
        shown = students_shown(keys, key)
        order = [shown.index(name) for name in ("green", "red")] if "" not in shown else None
        if order is None:  # an obvious set: the whole image is the first of its columns
            screen = key.record["screens"][0][k]
            order = [screen["order"].index(0), screen["order"].index(1)]
        if k == 1:  # a slip, taken back
            keys.keyboard.press(str(order[1] + 1))
            keys.keyboard.press("z")
            assert keys.locator("dialog#large").is_visible()
            keys.keyboard.press("Escape")
            keys.click("#clear")
        for place in order:
            keys.keyboard.press(str(place + 1))
        assert keys.locator(".rank").all_inner_texts().count("3") == 1  # the last has its place
        keys.keyboard.press("Enter")
        if k == 3:
            keys.keyboard.press("Backspace")
            for place in order:
                keys.keyboard.press(str(place + 1))
            keys.keyboard.press("Enter")
    first = saved(keys, tmp_path)

    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(**phone)
    touch = opened(context, tmp_path, 2)
    touch.select_option("#language", "zh")
    assert touch.title() == "您更喜欢哪张图片?"
    touch.fill("#code", "b 2/ü")
    touch.tap("form .first")
    for k in range(num):
        if k == 5:  # the browser is closed, and opened again later
            touch.wait_for_timeout(1_000)  # Chromium hands on what a page stored a moment later
            touch.close()
            touch = opened(context, tmp_path, 2)
            assert "b 2/ü" in touch.inner_text("main .first")
            touch.tap("main .first")
            assert touch.inner_text("header span") == f"5 / {num}"
        shown = students_shown(touch, key)
        wide = touch.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        places = [shown.index(n) for n in ("blue", "green")] if "" not in shown else [0, 1]
        for place in places:
            touch.tap(f".choice[data-place='{place}']")
        touch.tap("#next")
    second = saved(touch, tmp_path)
    assert keys.wrong == touch.wrong == []

    people = read_answers(key, [first, second])
    assert [person.code for person in people] == ["anna", "b 2/ü"]
    found = tally(key, people)
    (row, other) = found["people"]
    assert row["obvious"] == [1, 1]
    assert not row["left_out"]
    assert row["repeated"] == other["repeated"] == 1
    assert json.loads(second.read_text())["language"] == "zh"
    of_anna = tally(key, people[:1])["counted"]["students"]
    assert [of_anna[name]["mean_rank"]["value"] for name in STUDENTS] == [2, 1, 3]
    everybody = found.get("everybody") or found["counted"]
    assert everybody["students"]["blue"]["first"]["value"] == pytest.approx(0.5)


def test_a_pair_is_answered_by_one_key_and_ties_where_they_are_offered(
    browser: Any, tmp_path: Path
) -> None:
    key = make(tmp_path, "pairs", 4, ties=True)
    page = opened(browser.new_context(), tmp_path, 1)
    page.fill("#code", "c")
    page.keyboard.press("Enter")
    for pressed in ("1", "2", "=", "1"):
        assert page.locator(".choice").count() == 2
        page.wait_for_timeout(300)
        page.keyboard.press(pressed)
    (person,) = read_answers(key, [saved(page, tmp_path)])
    assert [sorted(one.ranks) for one in person.judgments] == [[1, 2], [1, 2], [1.5, 1.5], [1, 2]]
    assert page.wrong == []


def test_a_held_key_and_a_double_click_answer_one_pair(browser: Any, tmp_path: Path) -> None:
    """Nobody has seen the pair that comes next."""
    make(tmp_path, "pairs", 4, ties=True)
    page = opened(browser.new_context(), tmp_path, 1)
    page.fill("#code", "k")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    page.keyboard.down("1")
    for _ in range(3):  # as a keyboard says it of a key that is held
        page.wait_for_timeout(300)
        page.keyboard.down("1")
    page.keyboard.up("1")
    assert page.inner_text("header span") == "1 of 4"
    page.dblclick(".choice[data-place='1']")
    assert page.inner_text("header span") == "2 of 4"
    page.wait_for_timeout(300)
    page.dblclick("#equal")
    assert page.inner_text("header span") == "3 of 4"
    assert page.wrong == []


def test_a_vote_on_whole_models_needs_a_reason(browser: Any, tmp_path: Path) -> None:
    key = make(tmp_path, "side-by-side", 5)
    page = opened(browser.new_context(), tmp_path, 2)
    page.fill("#code", "d")
    page.keyboard.press("Enter")
    for _ in key.record["screens"][1]:
        assert page.locator(".models img").count() == 10
        page.click(".choice[data-place='1']")
        assert page.is_disabled("#next")
        page.fill("#reason", "<i>sharper</i>")
        page.click("#next")
    (person,) = read_answers(key, [saved(page, tmp_path)])
    assert [one.reason for one in person.judgments] == ["<i>sharper</i>"] * 2
    reasons = tally(key, [person])["counted"]["reasons"]
    assert {row["person"] for row in reasons} == {"2 (d)"}
    assert page.wrong == []


def test_without_a_number_one_is_asked_for(browser: Any, tmp_path: Path) -> None:
    make(tmp_path, num_prompts=4)
    page = opened(browser.new_context(), tmp_path, 9)  # there are two
    page.fill("#person", "2")
    page.fill("#code", "e")
    page.keyboard.press("Enter")
    assert page.url.endswith("#2")
    assert page.locator(".choice").count() == 3
    assert page.inner_text("blockquote").startswith("<b>prompt</b> & ")
    assert page.wrong == []


def test_of_two_tabs_neither_writes_over_the_others_answers(browser: Any, tmp_path: Path) -> None:
    make(tmp_path, num_prompts=4)
    context = browser.new_context()
    one, other = (opened(context, tmp_path, 1) for _ in range(2))
    one.fill("#code", "h")
    one.keyboard.press("Enter")
    other.get_by_text("Go on as h, 0 of 4 done").wait_for()
    one.keyboard.press("1")
    one.keyboard.press("2")
    one.keyboard.press("Enter")
    other.get_by_text("Go on as h, 1 of 4 done").click()
    assert other.inner_text("header span") == "1 of 4"
    other.keyboard.press("1")
    other.keyboard.press("2")
    other.keyboard.press("Enter")
    one.get_by_text("Go on as h, 2 of 4 done").wait_for()
    # Where no tab heard of the other, what is kept is looked at before anything is begun.
    late = opened(browser.new_context(), tmp_path, 2)
    kept = "JSON.stringify({code: 'i', answers: [], language: 'en'})"
    late.evaluate(f"localStorage.setItem(place(), {kept})")
    late.fill("#code", "j")
    late.keyboard.press("Enter")
    assert late.get_by_text("Go on as i, 0 of 4 done").is_visible()
    assert one.wrong == other.wrong == late.wrong == []


@pytest.mark.long
@pytest.mark.parametrize("form", ["ranking", "pairs", "side-by-side"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_screen(
    browser: Any, tmp_path: Path, form: str, scheme: Any
) -> None:
    """From the introduction over a set, paused and enlarged, to the end."""
    make(tmp_path, form, 4, ties=True)
    page = opened(browser.new_context(color_scheme=scheme), tmp_path, 1)
    assert violations(page) == []
    page.fill("#code", "g")
    page.keyboard.press("Enter")
    while page.locator(".choice").count():
        assert violations(page) == []
        page.click("#pause")
        assert violations(page) == []
        page.keyboard.press("Escape")
        if form != "side-by-side":
            page.keyboard.press("z")
            assert violations(page) == []
            page.keyboard.press("Escape")
        for place in range(page.locator(".choice").count() - (form == "pairs")):
            page.click(f".choice[data-place='{place}']")
        if form == "side-by-side":
            page.fill("#reason", "sharper")
        if form != "pairs":
            assert violations(page) == []
            page.click("#next")
    assert page.locator("#completion").is_visible()
    assert violations(page) == []
    assert page.wrong == []
