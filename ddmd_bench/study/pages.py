"""The page that people see: one file with its words, its script and its sets, beside its images."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.lines import read_text
from ddmd_bench.files.yaml_text import parse_yaml
from ddmd_bench.reporting.escaping import visible

HERE = Path(__file__).parent
LANGUAGES = ("en", "zh")
SMALL = 128  # pixels: smaller images are shown with sharp ones

PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
{style}</style>
</head>
<body{small}>
<p id="warning" role="alert"></p>
<main></main>
<dialog id="paused"></dialog>
<dialog id="large"></dialog>
<noscript>JavaScript</noscript>
<script type="application/json" id="study">{data}</script>
<script>
{script}</script>
</body>
</html>
"""


def study_page(
    record: dict[str, Any], sets: Sequence[dict[str, Any]], words: dict[str, Any], small: bool
) -> str:
    """The page of a study; nothing in it says whose an image is, or what a set is for."""
    shown = [{**one, "prompts": [visible(text) for text in one["prompts"]]} for one in sets]
    data = {
        "study": record["study"],
        "form": record["form"],
        "ties": record["ties"],
        "sets": shown,
        "screens": record["screens"],
        "words": words,
    }
    script = (HERE / "page.js").read_text(encoding="utf-8")
    first = next(iter(words))
    return PAGE.format(
        language=first,
        title=html.escape(words[first]["title"]),
        policy=_policy(f"\n{script}"),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        small=' class="small"' if small else "",
        # A text in it that ends a script would end this one.
        data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        script=script,
    )


def _policy(script: str) -> str:
    """What a browser may do for the page: run this script, show its own images. No network."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def words_of(files: Sequence[Path]) -> dict[str, Any]:
    """The page's words by language: those that are shipped, and a file NAME.yaml for each other."""
    found = {name: _shipped(name) for name in LANGUAGES}
    for file in files:
        words = parse_yaml(read_text(file), str(file)).data
        _require_same(file, words, found["en"])
        found[file.stem] = words
    return found


@cache
def _shipped(language: str) -> Any:
    path = HERE / "words" / f"{language}.yaml"
    return parse_yaml(path.read_text(encoding="utf-8"), str(path)).data


def _require_same(file: Path, words: Any, english: dict[str, Any]) -> None:
    """The same keys as the English words, with texts where those have texts."""
    if not isinstance(words, dict):
        raise BenchError(f"{file}: expected a text for each of {', '.join(english)}")
    for key in words:
        if key not in english:
            raise BenchError(f"{file}: {unknown('key', str(key), english)}")
    for key, text in english.items():
        if key not in words:
            raise BenchError(f"{file}: has no {key!r}, which is {text!r} in English")
        if key == "introduction":
            forms = dict.fromkeys(text, list)
            lacking = [form for form in forms if not isinstance(words[key].get(form), list)]
            if lacking:
                raise BenchError(f"{file}: introduction: needs a list of sentences of {lacking[0]}")
        elif not isinstance(words[key], str):
            raise BenchError(f"{file}: {key} is {words[key]!r}, expected a text")
