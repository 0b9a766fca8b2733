"""What a check found: all that was held, what failed by how far beyond its margin, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

Status = Literal["ok", "drift", "worse", "incomparable", "too few"]

# Verdicts; what was not judged has a code of its own, and none of them is another's.
EXIT_CODES: dict[str, int] = {"ok": 0, "drift": 1, "worse": 1, "incomparable": 2, "too few": 3}
NOT_RUN = 4
WRONG_USE = 64  # EX_USAGE of sysexits.h

# What is looked at first: what lies before another in a run may be its cause.
PARTS = ("protocol", "settings", "pictures", "first updates", "values", "metrics")
LONGEST = 20  # lines of one part in a terminal


class Held(NamedTuple):
    """One thing that was held against another. `beyond` is in margins: 1 is the margin itself."""

    part: str  # of `PARTS`
    name: str
    status: Literal["ok", "failed", "too few"]
    text: str  # found and expected, with units
    beyond: float  # infinite where there is no number to compare


class Checked(NamedTuple):
    """The verdict, what it rests on, and what helps to find a cause."""

    status: Status
    held: list[Held]
    notes: list[str]

    @property
    def failed(self) -> list[Held]:
        """What is not ok, first by its part, then what lies farthest beyond its margin."""
        found = [one for one in self.held if one.status != "ok"]
        return sorted(found, key=lambda one: (PARTS.index(one.part), -one.beyond))

    @property
    def nearest(self) -> Held | None:
        """Of the values and metrics that are ok the one that came closest to its margin."""
        found = [h for h in self.held if h.status == "ok" and h.part in ("values", "metrics")]
        return max(found, key=lambda one: one.beyond, default=None)

    def as_record(self) -> dict[str, Any]:
        """For JSON; what is infinitely far beyond is null."""
        held = [one._asdict() for one in self.held]
        for row in held:
            row["beyond"] = None if row["beyond"] == float("inf") else round(row["beyond"], 4)
        return {
            "status": self.status,
            "exit_code": EXIT_CODES[self.status],
            "held": held,
            "notes": self.notes,
        }


def sentence(one: Held) -> str:
    """Name, what was found and expected, and how far beyond the margin it lies."""
    far = one.part in ("values", "metrics") and one.status != "ok" and one.beyond < 1e6
    tail = f"; {one.beyond:.1f} times its margin" if far else ""
    return f"{one.name}: {one.text}{tail}"


def lines_of(found: Checked, *, most: int = LONGEST) -> Iterator[str]:
    """What failed, part by part; then how much was held, how close it came, and the notes."""
    failed = found.failed
    for part in PARTS:
        rows = [one for one in failed if one.part == part]
        yield from (f"{part}: {sentence(one)}" for one in rows[:most])
        if len(rows) > most:
            yield f"{part}: and {len(rows) - most} more"
    yield held_line(found)
    yield from found.notes


def held_line(found: Checked) -> str:
    """How many things were held, and of those that are ok how close the closest came."""
    compared = [one for one in found.held if one.part in ("first updates", "values", "metrics")]
    told = f"{sum(one.status == 'ok' for one in compared)} of {len(compared)} held"
    near = found.nearest
    if near is None:
        return told
    return f"{told}; the nearest to its margin: {near.name}, {near.beyond:.0%} of it ({near.text})"
