"""Texts of people on a report's pages: nothing in them is a command, and all of it can be seen."""

from __future__ import annotations

import re
from typing import Any

LONGEST = 300  # characters of a prompt in a line of its own
# Control characters, ends of lines but `\n`, halves of characters, which no file can hold, and what
# turns the direction of all that follows (Trojan Source, CVE-2021-42574).
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ENTITY = re.compile(r"&(?=#?\w+;)")
# What begins something inside a line; an underscore does not within a word.
_MARK = re.compile(r"[\\`*~$\[\]]|(?<!\w)_|_(?!\w)")
_START = re.compile(r"^(\s*)(?:([#>+=-])|(\d+)([.)]))", re.MULTILINE)  # a heading, a list ...


def visible(text: str) -> str:
    """What cannot be seen as its number: `\\u202e`. Ends of lines and tabs stay."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str, longest: int = LONGEST) -> str:
    """A line of a terminal or of a log, which reads some lines as commands."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= longest else f"{line[:longest]} ..."


def in_markdown(text: str) -> str:
    """Text that GitHub's Markdown shows as it is; `|` is left to whoever makes a table."""
    text = _ENTITY.sub("&amp;", visible(text)).replace("<", "&lt;")
    marked = _MARK.sub(r"\\\g<0>", text)
    return _START.sub(lambda m: f"{m[1]}{m[3] or ''}\\{m[2] or m[4]}", marked)


def all_in_markdown(value: Any) -> Any:
    """Every text of a JSON value, keys too."""
    if isinstance(value, dict):
        return {in_markdown(key): all_in_markdown(part) for key, part in value.items()}
    if isinstance(value, list):
        return [all_in_markdown(part) for part in value]
    return in_markdown(value) if isinstance(value, str) else value
