"""YAML as data: no key stands twice, aliases stay small, and the line of every value is known.

Plain words stay words: by YAML 1.1, which PyYAML reads, `010` is 8, `12:30` is 750, `2024-01-01` a
date and `yes` true. What has no point is no fraction: `1e5` may be a commit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from ddmd_bench.errors import BenchError

LARGEST = 2_000_000  # characters of a file
MOST = 100_000  # values, an alias counted as often as it is used


_PREFIX = "tag:yaml.org,2002:"
# Tag -> what is read as it, and how it may begin; timestamps are texts.
_WORDS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
}
_OTHER = {*_WORDS, "timestamp"}


class _Loader(yaml.SafeLoader):
    """PyYAML's, but for what plain words mean."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, words) for tag, words in rows if tag.removeprefix(_PREFIX) not in _OTHER]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, (_words, _first) in _WORDS.items():
    _Loader.add_implicit_resolver(_PREFIX + _tag, re.compile(f"^({_words})$"), list(_first))


class Parsed(NamedTuple):
    """What a YAML text says, and where."""

    data: Any
    node: yaml.Node | None  # of an empty text: none

    def line_of(self, location: Sequence[str | int]) -> int:
        """The line, from 1, of a value, or of the nearest part above it that the text has."""
        node, line = self.node, 0
        for step in location:
            if isinstance(node, yaml.MappingNode):
                at = next(((k, v) for k, v in node.value if k.value == step), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                at = next(((v, v) for v in node.value[step : step + 1]), None)
            else:
                at = None
            if at is None:
                break
            line, node = at[0].start_mark.line, at[1]
        return line + 1


def parse_yaml(text: str, where: str) -> Parsed:
    """Read one document; BenchError says where and in which line it is none. Nothing is shared.

    YAML lets a file of a few lines stand for billions of values, by aliases of aliases (the
    "billion laughs"), and PyYAML lets the last of two equal keys win in silence.
    """
    if len(text) > LARGEST:
        raise BenchError(f"{where}: {len(text)} characters; expected at most {LARGEST}")
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return Parsed(None, None)
        if _size(node, where, {}) > MOST:
            raise BenchError(
                f"{where}: stands for more than {MOST} values once its aliases are written out; "
                "write it without them"
            )
        return Parsed(_unshared(yaml.constructor.SafeConstructor().construct_document(node)), node)
    except yaml.MarkedYAMLError as error:
        at = (
            f" (line {mark.line + 1}, column {mark.column + 1})"
            if (mark := error.problem_mark)
            else ""
        )
        raise BenchError(f"{where}: not valid YAML: {error.problem}{at}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that is none
        raise BenchError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BenchError(f"{where}: nested too deeply") from error


def _size(node: yaml.Node, where: str, sizes: dict[int, int | None]) -> int:
    """Values of a part with its aliases written out; repeated keys and loops are errors."""
    if id(node) in sizes:
        if (known := sizes[id(node)]) is None:
            line = node.start_mark.line + 1
            raise BenchError(f"{where}: line {line}: contains itself by an alias; write it out")
        return known
    sizes[id(node)] = None
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _require_different_keys(node, where)
        below = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    sizes[id(node)] = size = 1 + sum(_size(part, where, sizes) for part in below)
    return size


def _require_different_keys(node: yaml.MappingNode, where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise BenchError(
                f"{where}: line {line}: the key {key.value!r} stands twice, first in line "
                f"{lines[key.value]}; rename one or leave it out"
            )
        lines[key.value] = line


def _unshared(value: Any) -> Any:
    """A copy in which no two parts are one object, so that changing one changes no other."""
    if isinstance(value, dict):
        return {key: _unshared(part) for key, part in value.items()}
    return [_unshared(part) for part in value] if isinstance(value, list) else value
