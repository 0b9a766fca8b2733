"""Prompts and captions as texts: which column holds them, and what is cut from their ends."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from ddmd_bench.errors import BenchError

TEXT_COLUMNS = ("prompt", "caption", "text")
# White space as Unicode has it (`str.isspace`), and the byte order mark, which joined files leave
# at the start of a line.
_WHITE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_NAMED = 20  # columns that a sentence names


def stripped(text: str) -> str:
    """A text without the white space around it; nothing inside it changes.

    Every prompt and caption passes here once, wherever it comes from, so that texts of different
    sources compare equal.
    """
    return text.strip(_WHITE)


def as_text(value: Any) -> str | None:
    """A text, number, date or truth value of a table as a text; None for what is missing or else.

    JSON's numbers are texts as they are written (`data.tables`); Parquet's are Python's.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):  # pandas' way of saying none
        return None
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    kinds = str | int | float | Decimal | datetime.date
    return str(value) if isinstance(value, kinds) else None


def text_column(where: str, names: Sequence[str], asked: str | None) -> str:
    """The column of the text: the one asked for, else prompt, caption or text."""
    if asked is None:
        found = next((name for name in TEXT_COLUMNS if name in names), None)
        if found is None:
            raise BenchError(
                f"{where}: no column {', '.join(TEXT_COLUMNS)}; it has: {_listed(names)}. Name "
                "one of them: column"
            )
        return found
    if asked not in names:
        raise BenchError(f"{where}: no column {asked!r}; it has: {_listed(names)}")
    return asked


def text_of(where: str, column: str, position: int, value: Any) -> str:
    """A value as a stripped text, years and dates too; what is missing is ''."""
    found = as_text(value)
    if value is None or (found is None and isinstance(value, float)):
        return ""
    if found is None or isinstance(value, bool):
        raise BenchError(
            f"{where}: column {column!r} is not text: row {position} holds {value!r:.60}"
        )
    value = found
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise BenchError(
            f"{where}: row {position} of column {column!r} holds half of a character (a lone "
            f"surrogate), which no file can hold: {value!r:.60}"
        )
    return stripped(value)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"{name:.60}" for name in names[:_NAMED]) + more
