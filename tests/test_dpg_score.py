"""DPG-Bench's questions and its aggregation, against numbers by hand and a second statement."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmd_bench.errors import BenchError
from ddmd_bench.measuring.aggregates import aggregate
from ddmd_bench.measuring.measure import Measured
from ddmd_bench.scorers.dpg_questions import (
    CATEGORIES,
    DpgPrompt,
    Question,
    prompt_of,
    read_questions,
)
from ddmd_bench.scorers.dpg_score import (
    after_dependencies,
    count_column,
    share_column,
)

HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
)
FIELD = 'field,"A vast, green field — ‘quiet’."'
# Numbers with a gap, as in the table that the format comes from (DSG's tifa160-dev-anns.csv).
TABLE = HEADER + (
    f"{FIELD},field,1,0,entity,whole,entity - whole (field),Is there a field?\n"
    f'{FIELD},"field, green",2,1,attribute,color,"attribute - color (field, green)",Is it green?\n'
    f'{FIELD},"field, vast",4,"1,2",attribute,size,"attribute - size (field, vast)",Is it vast?\n'
    "horse7,Two horses,drawing,1,0,global, ,global -  (drawing),Is this a drawing?\n"
    'horse7,Two horses,"horses, ==2",2,1,other,count,"other - count (horses, ==2)",Are there two?\n'
)


def written(folder: Path, table: str = TABLE) -> Path:
    path = folder / "dpg_bench.csv"
    path.write_text(table, encoding="utf-8")
    return path


# the table


def test_the_table_is_read_whole(tmp_path: Path) -> None:
    field, horses = read_questions(written(tmp_path)).values()
    assert field == DpgPrompt(
        "field",
        "A vast, green field — ‘quiet’.",
        (
            Question("Is there a field?", "entity", ()),
            Question("Is it green?", "attribute", (0,)),
            Question("Is it vast?", "attribute", (0, 1)),
        ),
    )
    assert [(q.category, q.parents) for q in horses.questions] == [("global", ()), ("other", (0,))]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",1,0,global", ",one,0,global", "line 5, column proposition_id: .*found 'one'"),
        (",1,0,global", ",0,0,global", "line 5, column proposition_id: .*found '0'"),
        (",1,0,global", ",1,,global", "line 5, column dependency: .*found ''"),
        ('"1,2"', '"1;2"', "line 4, column dependency: .*found '1;2'"),
        ('"1,2"', '"1,3"', "line 4, column dependency: .*among 1, 2, 4, found '3'"),
        (",4,", ",2,", "line 4, column proposition_id: .*new to 'field', found '2'"),
        ("global -  (", "action -  (", r"line 5, column tuple: .*found 'action -  \(drawing"),
        ("Are there two?", "", "line 6, column question_natural_language: expected a text"),
        ("horse7,Two horses,d", "horse7,A horse,d", "line 6, column text: .*found 'Two horses'"),
        ("Is this a drawing?", "Is this, a drawing?", "line 5: expected 9 values"),
        (",Is it green?", "", "line 3: expected 9 values"),
        ("dependency,", "depends,", "no column dependency; it has: item_id, text"),
        ("horse7,Two horses", "horse7,a VAST green field  'quiet'", "'field' and 'horse7'"),
        ('"field, vast"', '"field, vast"!', "after line 3: not a CSV file"),
    ],
)
def test_an_error_names_the_line_and_the_column(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in TABLE
    with pytest.raises(BenchError, match=said):
        read_questions(written(tmp_path, TABLE.replace(old, new)))


def test_an_empty_table_and_other_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no question"):
        read_questions(written(tmp_path, HEADER))
    with pytest.raises(BenchError, match="no column item_id"):
        read_questions(written(tmp_path, ""))
    (tmp_path / "latin.csv").write_bytes(TABLE.encode("cp1252"))
    with pytest.raises(BenchError, match="UTF-8"):
        read_questions(tmp_path / "latin.csv")


def test_a_prompt_is_found_by_its_text_in_any_copy(tmp_path: Path) -> None:
    prompts = read_questions(written(tmp_path))
    assert prompt_of(prompts, " A vast, green  field - 'quiet'.\n").item_id == "field"
    with pytest.raises(BenchError, match=r"'a cat' is not of DPG-Bench: none of its 2 prompts"):
        prompt_of(prompts, "a cat")


# dependencies


def test_what_depends_on_a_failed_question_has_failed() -> None:
    chain = [(), (0,), (1,)]
    assert after_dependencies([True, True, True], chain) == [True, True, True]
    assert after_dependencies([False, True, True], chain) == [False, False, False]
    assert after_dependencies([True, False, True], chain) == [True, False, False]
    # Two parents, one of which failed.
    assert after_dependencies([True, False, True], [(), (), (0, 1)]) == [True, False, False]
    # The middle one, which stands last, fails by its own parent only after its child was judged.
    assert after_dependencies([False, True, True], [(), (2,), (0,)]) == [False, True, False]


@st.composite
def answered(draw: st.DrawFn) -> tuple[list[bool], list[list[int]]]:
    """Answers, and parents anywhere among the questions: before, after, several, itself."""
    yes = draw(st.lists(st.booleans(), min_size=1, max_size=9))
    some = st.lists(st.integers(0, len(yes) - 1), unique=True, max_size=3)
    return yes, draw(st.lists(some, min_size=len(yes), max_size=len(yes)))


@settings(deadline=None)
@given(answered())
def test_dependencies_equal_the_published_rule_said_otherwise(
    case: tuple[list[bool], list[list[int]]],
) -> None:
    """A question fails where a path of earlier and earlier parents leads to a no.

    The path's first step may go to a later question, whose own answer alone then counts.
    """
    yes, parents = case

    def fails(k: int) -> bool:
        return not yes[k] or any(fails(p) if p < k else not yes[p] for p in parents[k])

    assert after_dependencies(yes, parents) == [not fails(k) for k in range(len(yes))]


# the benchmark's values

METRIC = "dpg_bench_blip_vqa"


def image(
    prompt: str, yes: list[bool], parents: list[list[int]], category: list[str]
) -> dict[str, object]:
    """A row as the scorer writes it."""
    passed = after_dependencies(yes, parents)
    row: dict[str, object] = {"prompt_id": prompt, METRIC: sum(passed) / len(passed)}
    for name in CATEGORIES:
        own = [y for y, c in zip(yes, category, strict=True) if c == name]
        row[share_column(METRIC, name)] = sum(own) / len(own) if own else math.nan
        row[count_column(METRIC, name)] = len(own)
    return row


def values_of(table: pd.DataFrame) -> dict[str, float]:
    """The benchmark's values, overall and by category, as a run has them of a row an image."""
    metrics = {"overall": METRIC} | {name: share_column(METRIC, name) for name in CATEGORIES}
    measured, inside = Measured(table, {}, {}), np.ones(len(table), bool)
    return {k: aggregate(m, measured, inside, None, None).value for k, m in metrics.items()}


def test_values_of_a_benchmark_of_two_prompts() -> None:
    tree = [[], [0], [0, 1], []]
    kinds = ["entity", "attribute", "attribute", "global"]
    table = pd.DataFrame(
        [
            # Passed 1/4: the field is not there, though the model calls it green.
            image("field", [False, True, False, True], tree, kinds),
            image("field", [True, True, True, False], tree, kinds),  # 3/4
            image("horses", [True, True], [[], [0]], ["entity", "entity"]),  # 1
            image("horses", [True, True], [[], [0]], ["entity", "entity"]),  # 1
        ]
    )
    values = values_of(table)
    # Prompts count alike, with equally many images each: (1/2 + 1) / 2.
    assert values["overall"] == pytest.approx(0.75)
    # Questions count alike: of six questions on entities five have yes.
    assert values["entity"] == pytest.approx(5 / 6)
    # Before dependencies: the green of the field that is not there counts.
    assert values["attribute"] == pytest.approx(3 / 4)
    assert values["global"] == pytest.approx(1 / 2)
    assert math.isnan(values["relation"])


def test_the_published_programs_categories_are_those_of_the_last_images() -> None:
    table = pd.DataFrame(
        [
            image("one", [True, True], [[], []], ["entity", "other"]),
            image("one", [False, True], [[], []], ["entity", "other"]),
            image("two", [True], [[]], ["entity"]),
        ]
    )
    last = values_of(table.groupby("prompt_id").tail(1))
    assert (last["entity"], last["other"]) == (1 / 2, 1)
    assert values_of(table)["entity"] == pytest.approx(2 / 3)


def test_an_image_without_a_value_is_not_counted() -> None:
    rows = [image("one", [True, False], [[], []], ["entity", "entity"])]
    missing = dict.fromkeys(rows[0], math.nan) | {"prompt_id": "one"}
    assert values_of(pd.DataFrame([*rows, missing])) == pytest.approx(
        values_of(pd.DataFrame(rows)), nan_ok=True
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_values_equal_a_statement_over_single_questions(data: st.DataObject) -> None:
    """Against plain lists of questions, from random trees, categories and answers."""
    rows: list[dict[str, object]] = []
    by_prompt: dict[str, list[float]] = {}
    by_category: dict[str, list[bool]] = {name: [] for name in CATEGORIES}
    num_each = data.draw(st.integers(1, 3))
    for prompt in data.draw(st.sampled_from(("a", "ab", "abc"))) * num_each:
        yes, parents = data.draw(answered())
        kinds = [data.draw(st.sampled_from(CATEGORIES)) for _ in yes]
        rows.append(image(prompt, yes, parents, kinds))
        scores = dict(enumerate(map(float, yes)))
        for k, own in enumerate(parents):  # as published: in place, in order
            if any(scores[p] == 0 for p in own):
                scores[k] = 0.0
        by_prompt.setdefault(prompt, []).append(sum(scores.values()) / len(scores))
        for answer, kind in zip(yes, kinds, strict=True):
            by_category[kind].append(answer)
    expected = {"overall": np.mean([np.mean(scores) for scores in by_prompt.values()])}
    expected |= {k: np.mean(v) if v else math.nan for k, v in by_category.items()}
    assert values_of(pd.DataFrame(rows)) == pytest.approx(expected, nan_ok=True)
