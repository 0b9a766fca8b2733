"""DPG-Bench's prompts and the yes/no questions about each (ELLA, arXiv:2403.05135).

The questions stand in the benchmark's own table, `dpg_bench.csv`, one a line. A question depends on
others: whether the field is green is asked of an image that has a field.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ddmd_bench.errors import BenchError
from ddmd_bench.files.lines import iter_lines
from ddmd_bench.scorers.weights import Weights, located, require

CATEGORIES = ("global", "entity", "attribute", "relation", "other")  # as the benchmark reports them
# The commit at which the prompt source `dpg_bench` is read.
QUESTIONS = Weights(
    "DPG-Bench's questions",
    ("dpg_bench.csv",),
    url="https://raw.githubusercontent.com/TencentQQGYLab/ELLA/"
    "3c228f1dc6c4d3cad0a47493816151a419f14db3/dpg_bench/dpg_bench.csv",
)
_COLUMNS = (
    "item_id",
    "text",
    "proposition_id",
    "dependency",
    "tuple",
    "question_natural_language",
)


@dataclass(frozen=True)
class Question:
    """One question, which is passed where the answer is yes."""

    text: str
    category: str  # of CATEGORIES
    parents: tuple[int, ...]  # positions of the questions that it depends on


@dataclass(frozen=True)
class DpgPrompt:
    """A prompt of the benchmark, with its questions in the order of the file."""

    item_id: str
    text: str
    questions: tuple[Question, ...]


class _Line(NamedTuple):
    where: str
    number: int  # of the proposition, as the others of its prompt name it
    depends_on: tuple[int, ...]
    category: str
    question: str


def read_questions(path: Path) -> dict[str, DpgPrompt]:
    """All prompts by `text_key`; errors name the line and the column.

    The published program skips the first line of the table, so that the first of the 1,065 prompts
    lacks a question and what depends on it cannot be looked up. Here every line counts.
    """
    texts: dict[str, str] = {}
    lines: dict[str, dict[int, _Line]] = {}
    for where, row in _rows(path):
        item, line = row["item_id"], _line(where, row)
        if text_key(texts.setdefault(item, row["text"])) != text_key(row["text"]):
            raise _error(where, "text", f"the text of {item!r} as on its first line", row["text"])
        if line.number in lines.setdefault(item, {}):
            raise _error(where, "proposition_id", f"a number new to {item!r}", str(line.number))
        lines[item][line.number] = line
    if not lines:
        raise BenchError(f"{path}: holds no question")
    found: dict[str, DpgPrompt] = {}
    for item, text in texts.items():
        prompt = DpgPrompt(item, text, _questions(lines[item]))
        other = found.setdefault(text_key(text), prompt)
        if other is not prompt:
            raise BenchError(f"{path}: items {other.item_id!r} and {item!r} have the same text")
    return found


def text_key(text: str) -> str:
    """What tells one prompt of the benchmark from another in each of its copies.

    Letters and digits of ASCII: copies differ in white space, quotation marks and accents, and the
    1,065 prompts stay distinct without them.
    """
    return "".join(re.findall("[a-z0-9]+", text.lower()))


def two_prompts() -> tuple[str, str]:
    """The benchmark's first two prompts, for the checks of `doctor`."""
    first, second, *_ = read_questions(require(QUESTIONS)["dpg_bench.csv"]).values()
    return first.text, second.text


def prompt_of(prompts: Mapping[str, DpgPrompt], text: str) -> DpgPrompt:
    """The benchmark's prompt of that text; an error where it has none."""
    if (found := prompts.get(text_key(text))) is None:
        raise BenchError(
            f"prompt {text!r:.80} is not of DPG-Bench: none of its {len(prompts)} prompts has this "
            "text. It can be scored on the prompt source dpg_bench only"
        )
    return found


def why_no_question(prompt: str) -> str | None:
    """Why an image of a prompt has no value; None where it has, or the table is not here yet."""
    paths = located(QUESTIONS)
    if not paths or text_key(prompt) in _texts(paths["dpg_bench.csv"]):
        return None
    return "the prompt is not of DPG-Bench"


@cache
def _texts(path: Path) -> frozenset[str]:
    return frozenset(read_questions(path))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line's place and its values by column, without the white space around them."""
    reader = csv.DictReader((f"{line}\n" for line in iter_lines(path)), strict=True)
    try:
        names = reader.fieldnames or ()
        if missing := [name for name in _COLUMNS if name not in names]:
            raise BenchError(
                f"{path}: no column {', '.join(missing)}; it has: {', '.join(names) or 'none'}"
            )
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if None in row or None in row.values():
                raise BenchError(f"{where}: expected {len(names)} values, one a column")
            yield where, {name: row[name].strip() for name in _COLUMNS}
    except csv.Error as error:
        where = f"{path}: after line {reader.line_num}"
        raise BenchError(f"{where}: not a CSV file: {error}") from error


def _line(where: str, row: Mapping[str, str]) -> _Line:
    for name in ("item_id", "text", "question_natural_language"):
        if not row[name]:
            raise _error(where, name, "a text", "")
    number = row["proposition_id"]
    if not re.fullmatch("[1-9][0-9]*", number):
        raise _error(where, "proposition_id", "a number from 1", number)
    if not re.fullmatch(r"[0-9]+(\s*,\s*[0-9]+)*", row["dependency"]):
        raise _error(where, "dependency", "numbers with commas, or 0 for none", row["dependency"])
    # "attribute - color (field, green)"; the published program reads the category from here too.
    category = re.split("[(-]", row["tuple"])[0].strip()
    if category not in CATEGORIES:
        raise _error(where, "tuple", f"one of {', '.join(CATEGORIES)} at its start", row["tuple"])
    depends_on = tuple(int(k) for k in row["dependency"].split(",") if int(k) > 0)
    return _Line(where, int(number), depends_on, category, row["question_natural_language"])


def _questions(lines: Mapping[int, _Line]) -> tuple[Question, ...]:
    positions = {number: k for k, number in enumerate(lines)}
    for line in lines.values():
        for number in line.depends_on:
            if number not in positions:
                known = ", ".join(map(str, positions))
                raise _error(line.where, "dependency", f"propositions among {known}", str(number))
    return tuple(
        Question(line.question, line.category, tuple(positions[k] for k in line.depends_on))
        for line in lines.values()
    )


def _error(where: str, column: str, expected: str, found: str) -> BenchError:
    return BenchError(f"{where}, column {column}: expected {expected}, found {found!r:.80}")
