"""Two people in front of a study's page, in a real browser: by keyboard and by touch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_answers import STUDENTS, make

from ddmd_bench.study.answers import read_answers
from ddmd_bench.study.key import Key
from ddmd_bench.study.tally import tally

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


def opened(context: Any, folder: Path, person: int) -> Any:
    """The page, of which nothing leaves the machine and nothing fails."""
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
    page.on("requestfailed", lambda request: page.wrong.append(request.url))

    def asked(request: Any) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            page.wrong.append(request.url)

    page.on("request", asked)
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
        page.keyboard.press(pressed)
    (person,) = read_answers(key, [saved(page, tmp_path)])
    assert [sorted(one.ranks) for one in person.judgments] == [[1, 2], [1, 2], [1.5, 1.5], [1, 2]]
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
