"""What was set for each student, key by key: those in which students differ, and all others."""

from __future__ import annotations

from typing import Any, NamedTuple

from ddmd_bench.suite.schema import Suite

_NAMES = {"title", "train"}  # what a student is called; what it sets of the training is resolved
ABSENT = ""


class SetValue(NamedTuple):
    """A key, its value for each student, `ABSENT` where it has none, and whether they differ."""

    key: str
    values: list[str]
    differs: bool


def set_values(suite: Suite) -> list[SetValue]:
    """Resolved, of the suite's students in its order; keys in the order of their appearance."""
    flat = [dict(_flat(_of(suite, name))) for name in suite.students]
    keys = dict.fromkeys(key for own in flat for key in own)
    rows = []
    for key in keys:
        values = [own.get(key, ABSENT) for own in flat]
        # One that has no such thing, as a teacher no learning rate, does not differ in it.
        rows.append(SetValue(key, values, len({v for v in values if v != ABSENT}) > 1))
    return rows


def _of(suite: Suite, name: str) -> dict[str, Any]:
    student = suite.students[name]
    own = student.model_dump(mode="json", exclude=_NAMES, exclude_none=True)
    if student.source == "train":
        own |= {"train": suite.train_settings(name).model_dump(mode="json")}
    return own


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Nested keys joined by points, as `--set` takes them."""
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in _flat(v, f"{key}.{k}" if key else k)]
    return [(key, str(value))] if value not in (None, [], {}) else []
