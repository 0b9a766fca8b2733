"""What a check found: all that was held, what failed by how far beyond its margin, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ddmd_bench.reporting.escaping import one_line, visible

if TYPE_CHECKING:
    from ddmd_bench.reporting.worst import Worst

Status = Literal["ok", "drift", "worse", "incomparable", "too few"]

# Verdicts; what was not judged has a code of its own, and none of them is another's.
EXIT_CODES: dict[str, int] = {"ok": 0, "drift": 1, "worse": 1, "incomparable": 2, "too few": 3}
NOT_RUN = 4
WRONG_USE = 64  # EX_USAGE of sysexits.h

# What is looked at first: what lies before another in a run may be its cause.
PARTS = ("protocol", "settings", "pictures", "first updates", "values", "metrics")
FAR = {"values": "{:.1f} times its margin", "metrics": "the interval reaches {:.1f} margins"}
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
    worst: tuple[Worst, ...] = ()  # prompts that lost most where a student is worse

    @property
    def failed(self) -> list[Held]:
        """What is not ok: by its part, what failed before what has too few, then what lies farthest
        beyond its margin."""
        found = [one for one in self.held if one.status != "ok"]
        return sorted(found, key=lambda h: (PARTS.index(h.part), h.status != "failed", -h.beyond))

    @property
    def nearest(self) -> Held | None:
        """Of the values and metrics that are ok the one that came closest to its margin."""
        found = [h for h in self.held if h.status == "ok" and h.part in ("values", "metrics")]
        return max(found, key=lambda one: one.beyond, default=None)

    def as_record(self) -> dict[str, Any]:
        """For JSON; what is infinitely far beyond is null."""
        held = [one._asdict() for one in self.held]
        for row in held:
            row["beyond"] = round(row["beyond"], 4) if math.isfinite(row["beyond"]) else None
        return {
            "status": self.status,
            "exit_code": EXIT_CODES[self.status],
            "held": held,
            "notes": self.notes,
            "worst_prompts": [
                {"of": w.name, "prompt_id": w.prompt_id, "text": w.text, "told": w.told}
                for w in self.worst
            ],
        }


def sentence(one: Held) -> str:
    """Name, what was found and expected, and how far beyond the margin it lies, or reaches."""
    far = one.part in FAR and one.status != "ok" and math.isfinite(one.beyond)
    tail = f"; {FAR[one.part].format(one.beyond)}" if far else ""
    return f"{one.name}: {one.text}{tail}"


def lines_of(found: Checked, *, most: int = LONGEST) -> Iterator[str]:
    """What failed, part by part; then how much was held, how close it came, and the notes.

    One line each: GitHub's runner takes one that begins with `::` for a command.
    """
    return (visible(" ".join(line.split())) for line in _lines(found, most))


def _lines(found: Checked, most: int) -> Iterator[str]:
    failed = found.failed
    for part in PARTS:
        rows = [one for one in failed if one.part == part]
        yield from (f"{part}: {sentence(one)}" for one in rows[:most])
        if len(rows) > most:
            yield f"{part}: and {len(rows) - most} more"
    for w in found.worst:
        yield f"worst of {w.name}: {w.prompt_id} ({one_line(w.text)}): {w.told}"
    if line := held_line(found):
        yield line
    yield from found.notes


def held_line(found: Checked) -> str:
    """How many things were held, and of those that are ok how close the closest came; '' where
    nothing could be."""
    compared = [one for one in found.held if one.part in ("first updates", "values", "metrics")]
    if not compared:
        return ""
    told = f"{sum(one.status == 'ok' for one in compared)} of {len(compared)} held"
    near = found.nearest
    if near is None:
        return told
    share = f"{100 * max(near.beyond, 0.0):.0f} % of it"
    return f"{told}; the nearest to its margin: {near.name}, {share} ({near.text})"
