"""The report's page in a real browser: prompts found, sorted, filtered and looked at closely."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pandas as pd
import pytest
from browsers import needs_browser, started, violations, watched
from fake_run import MALICIOUS, make_run, make_suite
from PIL import Image

from ddmd_bench.data.images import strip_of
from ddmd_bench.files.records import mark_done, read_done, read_json, write_whole
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.metrics import group_of
from ddmd_bench.stages.report import report

pytestmark = needs_browser
NAMES = ["real", "teacher", "dmd", "decoupled_hybrid", "ca_only"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run whose report lies in `report`, with its pictures, and in `alone`, without."""
    evaluation = {"at": [0, 100], "num_prompts": 4, "metrics": ["std"]}
    plan = make_run(tmp_path_factory.mktemp("run"), make_suite(evaluation=evaluation))
    for task in plan.of_stage("train"):
        evaluated(task.folder)
    report(plan, lambda done, total: None)
    alone = tmp_path_factory.mktemp("alone")
    shutil.copy(plan.report_folder / "index.html", alone)
    return plan, alone


def evaluated(folder: Path) -> None:
    """A training's pictures before it, which are dark, and after it."""
    for iteration, level in ((0, 10), (100, 200)):
        strip = strip_of([Image.new("RGB", (32, 32), (level,) * 3)] * 4, 96)
        write_whole(folder / f"pictures/{iteration:07}.webp", strip)
    rows = [{"iteration": k, "metric": "std", "value": 0.5, "n": 4} for k in (0, 100)]
    pd.DataFrame(rows).to_parquet(folder / "evaluations.parquet")
    record = {key: value for key, value in (read_done(folder) or {}).items() if key != "made"}
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.*"))]
    mark_done(folder, record, [name for name in names if "done" not in name])


@pytest.fixture
def opened(browser: Any, made: Any) -> Iterator[Any]:
    """Opens a page at a part of it; nothing may have gone wrong at the end."""
    pages = []

    def open_at(where: str = "", folder: Path | None = None, **how: Any) -> Any:
        page = watched(browser.new_context(**how))
        pages.append(page)
        page.goto(f"{((folder or made[0].report_folder) / 'index.html').as_uri()}{where}")
        page.wait_for_selector(".rows .row")
        return page

    yield open_at
    for page in pages:
        assert page.wrong == []
        page.context.close()


def gains(plan: Any, a: str, b: str, metric: str) -> dict[str, float]:
    """By how much a is ahead of b on each prompt, as pandas says it."""
    run = load_run(plan)
    ours, theirs = (
        run.first_seed(name).per_image.groupby("prompt_id")[metric].mean() for name in (a, b)
    )
    sign = -1 if METRICS[metric].better == "lower" else 1
    found: dict[str, float] = (sign * (ours - theirs)).to_dict()
    return found


def rows_of(page: Any) -> list[str]:
    """Prompts of the rows that are there, from the top."""
    rows = page.locator(".rows .row").all()
    found = [(float(row.bounding_box()["y"]), row.get_attribute("data-prompt")) for row in rows]
    return [prompt_id for _, prompt_id in sorted(found)]


def test_prompts_are_sorted_by_the_difference_of_any_two_students(opened: Any, made: Any) -> None:
    page = opened()
    first = gains(made[0], "decoupled_hybrid", "dmd", "prompt_accuracy")
    shown = rows_of(page)
    order = sorted(first, key=lambda p: (first[p], p))
    assert shown == order[: len(shown)]
    page.select_option("#browser-order", "best")
    assert rows_of(page) == order[: -len(shown) - 1 : -1]
    grid = read_json(made[0].report_folder / "report.json")["pictures"]["grid"]
    assert {*shown, *rows_of(page)} <= {row["prompt_id"] for row in grid}
    page.select_option("#browser-a", "teacher")
    page.select_option("#browser-b", "ca_only")
    page.select_option("#browser-metric", "saturation")
    page.select_option("#browser-order", "best")
    other = gains(made[0], "teacher", "ca_only", "saturation")
    better = sorted(other, key=lambda p: -other[p])
    assert rows_of(page)[:5] == better[:5]
    assert "ahead" in page.inner_text("#pictures .note")
    top = page.locator(f".row[data-prompt='{better[0]}'] .text b").inner_text()
    assert float(top.split()[0].lstrip("+")) == pytest.approx(100 * other[better[0]], abs=0.01)


def test_prompts_are_searched_and_filtered(opened: Any, made: Any) -> None:
    page = opened()
    page.fill("#browser-query", "STAR 17")
    assert page.inner_text("#browser-count") == "1 of 40 prompts"
    assert rows_of(page) == ["seen/0018"]
    page.fill("#browser-query", "onerror")
    assert page.locator(".rows .text").inner_text().split("\n")[0].endswith(f"{MALICIOUS} seen")
    page.fill("#browser-query", "")
    page.select_option("#browser-verdict", "changed")
    moved = [g for g in gains(made[0], *NAMES[3:1:-1], "prompt_accuracy").values() if g != 0]
    assert page.inner_text("#browser-count") == f"{len(moved)} of 40 prompts"
    page.select_option("#browser-verdict", "all")
    page.select_option("#browser-set", "new")
    assert page.inner_text("#browser-count") == "20 of 40 prompts"
    won = [
        g for p, g in gains(made[0], *NAMES[3:1:-1], "prompt_accuracy").items() if p[:3] == "new"
    ]
    for verdict, count in {
        "won": sum(g > 0 for g in won),
        "lost": sum(g < 0 for g in won),
        "alike": sum(g == 0 for g in won),
    }.items():
        page.select_option("#browser-verdict", verdict)
        assert page.inner_text("#browser-count") == f"{count} of 40 prompts"
    page.fill("#browser-query", "nothing of this kind")
    assert page.locator(".rows .row").count() == 0


def heads_of(page: Any) -> list[str]:
    # Its own text, without its role below: what is out of sight has no lines to split it by.
    titles = "cells => cells.map(cell => cell.childNodes[1].textContent)"
    found: list[str] = page.locator(".rows .head .cell").evaluate_all(titles)
    return found


def test_columns_are_chosen_moved_and_kept_in_sight(opened: Any) -> None:
    page = opened(viewport={"width": 700, "height": 900})
    # The student and what it is held against are in sight without a step.
    assert heads_of(page)[:2] == ["Decoupled-Hybrid", "DMD (Coupled-Shared)"]
    page.select_option("#browser-a", "ca_only")
    assert heads_of(page)[:3] == ["CA only", "DMD (Coupled-Shared)", "Decoupled-Hybrid"]
    page.click("#browser summary")
    page.uncheck("[data-student='teacher'] input")
    page.click("#browser [data-student='ca_only'] button:has-text('pin')")
    page.click("#browser [data-student='real'] button[aria-label$='further left']")
    page.click("#browser [data-student='dmd'] button[aria-label$='further right']")
    assert heads_of(page) == ["CA only", "Real scenes", "DMD (Coupled-Shared)", "Decoupled-Hybrid"]
    before = page.locator(".row .pinned").first.bounding_box()["x"]
    page.evaluate("document.querySelector('.rows').scrollLeft = 200")
    assert page.locator(".row .pinned").first.bounding_box()["x"] == pytest.approx(before, abs=4)


def test_another_part_of_the_page_leaves_the_view_as_it_is(opened: Any) -> None:
    page = opened()
    page.fill("#browser-query", "number 3")
    page.wait_for_timeout(400)  # the address follows when no more letters come
    assert "query=number" in page.evaluate("location.hash")
    before = page.inner_text("#browser-count")
    page.click("a[href='#cost']")
    page.wait_for_timeout(100)  # browsers tell of another address a moment later
    assert page.evaluate("location.hash") == "#cost"
    assert page.input_value("#browser-query") == "number 3"
    assert page.inner_text("#browser-count") == before


def test_a_browser_that_keeps_no_more_addresses_shows_what_is_asked(opened: Any) -> None:
    """As Safari does of more than 100 in 30 seconds."""
    page = opened()
    refused = "() => { throw new DOMException('', 'SecurityError'); }"
    page.evaluate(f"void (history.replaceState = {refused})")  # a function it would call itself
    page.fill("#browser-query", "STAR 17")
    page.wait_for_timeout(400)
    page.locator(".rows").press("Enter")
    assert page.locator(".viewer").is_visible()
    assert "query=STAR" in page.get_attribute("#browser-link", "href")


@pytest.mark.long
def test_the_address_brings_the_view_back(opened: Any) -> None:
    page = opened()
    page.select_option("#browser-a", "ca_only")
    page.fill("#browser-query", "red & star")
    page.fill("#browser-query", "number 3")
    page.locator(".rows").press("Enter")
    page.click(".viewer button:has-text('Slider')")
    where = page.get_attribute("#browser-link", "href")
    page.wait_for_timeout(400)  # the address follows when no more changes come
    assert page.evaluate("location.hash") == where
    asked = parse_qs(where.partition("?")[2])
    assert asked["a"] == ["ca_only"]
    again = opened(where)
    assert again.locator(".viewer blockquote").inner_text() == page.inner_text(".viewer blockquote")
    assert again.get_attribute(".viewer button:has-text('Slider')", "aria-pressed") == "true"
    assert again.input_value("#browser-query") == "number 3"
    assert rows_of(again) == rows_of(page)
    # What nobody could have chosen is as if it were not there.
    odd = opened("#pictures?a=nobody&order=up&metric=x&view=y&size=9999&columns=a,b&image=7&at=q")
    assert odd.locator(".rows .row").count() > 0


def test_two_students_are_looked_at_closely(opened: Any, made: Any) -> None:
    """By keys: another student, another prompt, flicker, slider, what differs."""
    page = opened(reduced_motion="reduce")
    page.locator(".rows").press("j")
    page.keyboard.press("Enter")
    prompts = rows_of(page)
    assert page.locator(".viewer").is_visible()
    assert prompts[1] in page.inner_text(".viewer")
    layer = page.locator(".stage .layer.a img")
    run = load_run(made[0])
    path = run.first_seed("decoupled_hybrid").images[prompts[1], 0]
    assert layer.evaluate("one => one.src") == path.as_uri()
    assert layer.evaluate("one => one.decode().then(() => one.naturalWidth)") == 32
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".viewer .caption") == "DMD (Coupled-Shared)"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert prompts[2] in page.inner_text(".viewer")
    page.keyboard.press(" ")
    assert page.locator(".stage .b").is_hidden()
    page.keyboard.press(" ")
    assert page.locator(".stage .b").is_visible()
    assert page.inner_text(".viewer .caption") == "DMD (Coupled-Shared)"
    page.click(".viewer button:has-text('Difference')")
    assert page.eval_on_selector(".stage .b", "one => getComputedStyle(one).mixBlendMode") == (
        "difference"
    )
    page.click(".viewer button:has-text('Slider')")
    page.fill(".halves input[type=range]", "25")
    assert "75%" in page.eval_on_selector(".stage .b", "one => getComputedStyle(one).clipPath")
    page.keyboard.press("Escape")
    assert page.locator(".viewer").is_hidden()


def test_keys_go_on_from_the_picture_that_was_clicked(opened: Any) -> None:
    page = opened()
    prompts = rows_of(page)
    page.locator(f".row[data-prompt='{prompts[2]}'] .open").first.click()
    assert prompts[2] in page.inner_text(".viewer")
    assert page.get_attribute(".row.at", "data-prompt") == prompts[2]
    page.keyboard.press("ArrowDown")
    assert prompts[3] in page.inner_text(".viewer")
    page.keyboard.press("Escape")
    assert page.get_attribute(".row.at", "data-prompt") == prompts[3]
    page.keyboard.press("k")
    assert page.get_attribute(".row.at", "data-prompt") == prompts[2]


def test_a_control_that_was_used_has_the_focus_still(opened: Any) -> None:
    page = opened()
    held = "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
    page.focus("#browser-a")
    page.select_option("#browser-a", "ca_only")
    assert page.evaluate(held) == "browser-a"
    page.click("#browser summary")
    page.locator("[data-student='real'] button[aria-label$='further left']").press("Enter")
    assert page.evaluate(held) == "Real scenes further left"
    page.locator("[data-student='teacher'] input").press(" ")
    assert page.evaluate(held) == "browser-shows-teacher"
    assert not page.is_checked("[data-student='teacher'] input")


def test_a_prompt_of_fewer_images_shows_one_that_it_has(opened: Any, tmp_path: Path) -> None:
    """From the second image of one prompt set into another, whose prompts have one each."""
    sets = {
        name: {"source": "x", "num_prompts": 20, "images_per_prompt": num}
        for name, num in (("seen", 2), ("new", 1))
    }
    plan = make_run(tmp_path, make_suite(prompts=sets))
    report(plan, lambda done, total: None)
    page = opened("#pictures?order=suite&at=seen/0019&view=one&image=1", plan.report_folder)
    viewer = page.locator(".viewer")
    pressed = viewer.locator("[aria-pressed='true']")
    assert pressed.all_inner_texts() == ["One", "image 2"]
    page.keyboard.press("ArrowDown")
    assert "new/0020" in viewer.inner_text()
    assert "no image" not in viewer.inner_text()
    assert viewer.locator(".layer.a img").count() == 1
    page.keyboard.press("ArrowUp")  # it is the second one again where there are two
    assert pressed.all_inner_texts() == ["One", "image 2"]


def test_the_page_alone_has_the_pictures_inside_it(opened: Any, made: Any) -> None:
    """Moved away from its run: of other prompts it names the files that it lacks."""
    page = opened(folder=made[1])
    first = page.locator(".rows .row .tile").first
    assert "data:image/webp" in first.evaluate("one => one.style.backgroundImage")
    assert page.wrong == []  # nothing is looked for that need not be
    record = read_json(made[0].report_folder / "report.json")
    inside = {row["prompt_id"] for row in record["pictures"]["grid"]}
    other = next(p for p in made[0].prompts if p.prompt_id not in inside)
    page.fill("#browser-query", other.text)
    page.wait_for_selector(f".row[data-prompt='{other.prompt_id}'] .tile em")
    assert page.locator(".rows .tile em").first.inner_text().endswith(".png")
    page.locator("#student-dmd > summary").click()
    page.get_by_text("does not lie beside this page").wait_for()
    assert page.locator("#student-dmd .left a").count() == 0
    # It looked beside itself for small pictures, and where the run lay for large ones.
    assert all(one.endswith((".webp", ".png", "ERR_FILE_NOT_FOUND")) for one in page.wrong)
    page.wrong = []


def test_many_rows_are_few_elements(opened: Any) -> None:
    page = opened()
    assert page.locator(".rows .row").count() < 15
    page.select_option("#browser-order", "suite")
    page.evaluate("document.querySelector('.rows').scrollTop = 1e6")
    page.wait_for_selector(".rows [data-prompt='new/0039']")
    assert page.locator(".rows .row").count() < 15


def test_a_columns_title_sorts_the_values(opened: Any, made: Any) -> None:
    """The best first, whichever direction is better."""
    page = opened()
    table = page.locator("#values table.sorted").first
    record = read_json(made[0].report_folder / "report.json")
    for title, metric in (("Prompt accuracy", "prompt_accuracy"), ("Saturation", "saturation")):
        values = {n: row[metric]["all"]["value"] for n, row in record["table"].items()}
        order = sorted(values, key=values.__getitem__, reverse=METRICS[metric].better == "higher")
        table.locator("thead button", has_text=title).click()
        names = [text.split("\n")[0] for text in table.locator("tbody th").all_inner_texts()]
        titles = [record["students"][name]["title"] for name in order]
        assert [name.strip().startswith(t) for name, t in zip(names, titles, strict=True)]
        assert [t in name for name, t in zip(names, titles, strict=True)] == [True] * 5


def test_columns_of_a_group_go_and_come_together(opened: Any, made: Any) -> None:
    page = opened()
    values = page.locator("#values table.grouped").first
    titles = values.locator("thead tr:last-child th:visible")
    before = titles.all_inner_texts()
    page.get_by_role("button", name="Statistics").click()
    shown = titles.all_inner_texts()
    left_out = [text for text in before if text not in shown]
    statistics = [METRICS[m] for m in made[0].suite.metrics if group_of(m) == "reference"]
    assert len(left_out) == len(statistics) > 1
    assert all(text.startswith(row.title) for text, row in zip(left_out, statistics, strict=True))
    assert values.locator("tbody tr").first.locator("td:visible").count() == len(shown) - 1
    page.get_by_role("button", name="Statistics").click()
    assert titles.all_inner_texts() == before


def test_settings_are_searched(opened: Any) -> None:
    """First those in which students differ; then all, by every word of a search."""
    page = opened()
    rows = page.locator("table.searched tbody tr:visible")
    assert "method" in rows.locator("th").all_inner_texts()
    assert "train.batch_size" not in rows.locator("th").all_inner_texts()
    page.get_by_label("also those").check()
    page.locator("#students").get_by_label("Search").fill("batch size")
    assert rows.locator("th").all_inner_texts() == ["train.batch_size"]
    assert "1 of" in page.locator("#students [role=status]").inner_text()


def test_a_card_leads_to_what_its_stages_left(opened: Any, made: Any) -> None:
    page = opened()
    page.locator("#student-dmd > summary").click()
    links = page.locator("#student-dmd .left a")
    links.first.wait_for()
    places = dict(
        zip(
            links.all_inner_texts(), [one.get_attribute("href") for one in links.all()], strict=True
        )
    )
    assert places.keys() == {"images", "their list", "values of each image", "diagnostics"}
    assert all((made[0].report_folder / place).resolve().exists() for place in places.values())


def test_a_slider_shows_the_pictures_of_each_evaluation(opened: Any) -> None:
    page = opened()
    shown = page.locator(".course img:visible")
    assert shown.count() == 3
    assert {one.get_attribute("data-at") for one in shown.all()} == {"100"}
    page.locator("#course-at").fill("0")
    assert {one.get_attribute("data-at") for one in shown.all()} == {"0"}
    assert page.locator(".course output").inner_text() == "after 0 updates"


def test_any_two_quantities_are_set_against_each_other(opened: Any, made: Any) -> None:
    """The dashed line joins whom no other beats in one without losing in the other."""
    page = opened()
    assert page.locator("#trade circle").count() == 5
    page.select_option("#trade-across", label="Saturation")
    record = read_json(made[0].report_folder / "report.json")

    def costs(name: str) -> tuple[float, float]:
        row = record["table"][name]
        return row["saturation"]["all"]["value"], -row["prompt_accuracy"]["all"]["value"]

    def beaten(name: str) -> bool:
        own = costs(name)
        others = [costs(other) for other in record["students"] if other != name]
        return any(o[0] <= own[0] and o[1] <= own[1] and o != own for o in others)

    expected = {row["title"] for n, row in record["students"].items() if not beaten(n)}
    assert {*page.locator("#trade text.best").all_text_contents()} == expected
    page.select_option("#trade-up", label="Standard deviation")  # neither direction is better
    assert page.locator("#trade .front").count() == 0


def test_paper_shows_whole_tables(opened: Any) -> None:
    """All that was closed, in light colours, and nothing beyond the edge of a landscape A4."""
    page = opened(viewport={"width": 1047, "height": 700}, color_scheme="dark")
    num_closed = page.locator("details:not([open])").count()
    assert num_closed > 5
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    beyond = (
        "[...document.querySelectorAll('.scroll')].filter((x) => x.scrollWidth > x.clientWidth)"
    )
    assert page.evaluate(f"{beyond}.length") == 0
    assert page.eval_on_selector("h1", "one => getComputedStyle(one).color") == "rgb(0, 0, 0)"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == num_closed


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious(opened: Any, scheme: Any, width: int) -> None:
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    page.locator(".rows").press("Enter")
    assert violations(page) == []
