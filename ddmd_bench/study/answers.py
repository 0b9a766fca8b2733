"""What people have sent back: read, and placed among the study's screens, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.files.reading import refuse
from ddmd_bench.files.records import read_versioned
from ddmd_bench.study.key import Key

SCHEMA = 1
ANSWER = {"set": int, "order": [int], "ranks": [int], "ms": (int, float), "reason?": str}
FORM = {
    "schema": int,
    "study": str,
    "person": int,
    "code": str,
    "answers": [ANSWER],
    "completion": str,
}
SAVE_AGAIN = "Ask for the file to be saved again"


class Judgment(NamedTuple):
    """One screen as somebody answered it."""

    set: int
    ranks: NDArray[np.float64]  # of the set's columns, 1 best, equal ones their mean
    places: tuple[int, ...]  # where each column stood, from 0 at the left
    seconds: float
    reason: str


class Person(NamedTuple):
    """Somebody's answers, in the order in which they were given."""

    number: int  # whose screens they were
    code: str
    judgments: tuple[Judgment, ...]
    num_screens: int
    completion: str
    path: Path

    @property
    def name(self) -> str:
        """As a table names them."""
        return f"{self.number} ({self.code})"


def read_answers(key: Key, paths: Iterable[Path]) -> list[Person]:
    """Everybody's answers; of one session that was saved twice the later state.

    Raises BenchError for what cannot be placed: another study's, a screen that was not shown, a
    ranking that misses an image, two sessions by one name.
    """
    found: dict[tuple[int, str], Person] = {}
    for path in files_of(paths):
        person = _read(key, path)
        before = found.get((person.number, person.code))
        found[person.number, person.code] = person if before is None else _later(before, person)
    if not found:
        raise BenchError("no answers: name the files that were sent back, answers-*.json")
    return sorted(found.values(), key=lambda person: (person.number, person.code))


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Files, and those in folders, each once."""
    found: dict[Path, Path] = {}
    for path in paths:
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            if (same := found.get(file.resolve())) is not None:
                raise BenchError(f"{file}: named twice, as {same} too")
            found[file.resolve()] = file
    return list(found.values())


def _read(key: Key, path: Path) -> Person:
    record = read_versioned(path, {SCHEMA: FORM}, SAVE_AGAIN)
    if (of := record["study"]) != (own := key.record["study"]):
        raise refuse(path, f"answers to study {of}", f"answers to {own}", "Leave it out")
    screens = key.record["screens"]
    if not 1 <= (number := record["person"]) <= len(screens):
        raise refuse(path, f"person {number}", f"1 to {len(screens)}", SAVE_AGAIN)
    own_screens = screens[number - 1]
    answers = record["answers"]
    if len(answers) > len(own_screens):
        raise refuse(
            path, f"{len(answers)} answers", f"at most {len(own_screens)} of person {number}"
        )
    judgments = []
    for k, (answer, screen) in enumerate(zip(answers, own_screens, strict=False), 1):
        if any(answer[name] != screen[name] for name in ("set", "order")):
            raise refuse(
                path, f"answer {k} to another screen", f"screen {k} of person {number}", SAVE_AGAIN
            )
        judgments.append(_judgment(key, path, k, answer))
    code = completion_of(own, number, record["code"], len(answers))
    if record["completion"] != code:
        raise refuse(
            path, f"completion code {record['completion']}", f"{code} of these answers", SAVE_AGAIN
        )
    return Person(
        number, record["code"], tuple(judgments), len(own_screens), record["completion"], path
    )


def _judgment(key: Key, path: Path, k: int, answer: dict[str, Any]) -> Judgment:
    order, given = answer["order"], answer["ranks"]
    size = len(key.sets[answer["set"]].columns)
    levels = sorted(set(given))
    if len(given) != size or levels != list(range(1, len(levels) + 1)):
        raise refuse(path, f"answer {k} ranks {given}", f"a rank from 1 of {size} images")
    if len(levels) < size and not key.record["ties"]:
        raise refuse(path, f"answer {k} ranks {given}", "no equal ranks, which were not offered")
    if answer["ms"] < 0:
        raise refuse(path, f"answer {k} took {answer['ms']} ms", "0 or more")
    ranks = np.empty(size)
    ranks[order] = _mean_ranks(given)
    places = [0] * size
    for place, column in enumerate(order):
        places[column] = place
    seconds = answer["ms"] / 1000
    return Judgment(answer["set"], ranks, tuple(places), seconds, answer.get("reason", ""))


def _mean_ranks(given: Sequence[int]) -> NDArray[np.float64]:
    """Equal ranks share the mean of the places that they take."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(given), np.float64)


def _later(before: Person, after: Person) -> Person:
    """Of two files of one session the longer one, if it goes on from the other."""
    shorter, longer = sorted((before, after), key=lambda person: len(person.judgments))
    if len(shorter.judgments) == len(longer.judgments) and shorter.path != longer.path:
        same = _told(shorter) == _told(longer)
        if same:
            raise BenchError(
                f"{after.path}: the same answers as {before.path}, which would count twice. Leave "
                "one out"
            )
    if _told(longer)[: len(shorter.judgments)] != _told(shorter):
        raise BenchError(
            f"{after.path}: other answers than {before.path} by the same person, number "
            f"{after.number} with code {after.code!r}. Leave one out, or give one another code"
        )
    return longer


def _told(person: Person) -> list[tuple[Any, ...]]:
    return [(j.set, *j.ranks, j.seconds) for j in person.judgments]


def completion_of(study: str, person: int, code: str, num_answers: int) -> str:
    """The code that the page shows at its end: FNV-1a of 32 bits of what was done."""
    value = 0x811C9DC5
    for byte in f"{study}|{person}|{code}|{num_answers}".encode(errors="replace"):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08X}"
