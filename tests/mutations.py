"""Valid files, damaged at random: their bytes, their lines, or what they say.

damaged(b'{"a": 1}', ".json", random.Random(7))
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

# What no writer of a value thinks of.
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 10**30, 2**63, -(2**63), 1e308, -0.0, 0.5,
    float("nan"), float("inf"), "", " ", "0", "no", "1e999", "nan", "None", "~", "*", "&a", "{",
    "../../etc/passwd", "/dev/null", "/", ".", "..", "C:\\x", "con", "a/b", "a" * 3000,
    "=1+1", "<script>alert(1)</script>", "\u202eabc", "\ufeff", "\u2028", "\x00", "\x1b[31m",
    "%s{0}{x}", "\ud800", "é", "[red]", "[/]", [], {}, [[]], [None], {"": None}, [1, "a", {}],
    {"a": {"a": {"a": []}}}, "2024-13-45", [0] * 200,
)  # fmt: skip
ODD_BYTES = (b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b'"', b"'", b",")


def _value(data: Any, random: random.Random) -> Any:
    """A copy of JSON-like data with one part replaced, removed, repeated or moved."""
    whole = [data]
    place: Any = whole
    key: Any = 0
    while isinstance(place[key], dict | list) and place[key] and random.random() < 0.85:
        place = place[key]
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
    way = random.randrange(6)
    if way == 0 and place is not whole:
        del place[key]
    elif way == 1 and isinstance(place, dict):
        place[random.choice([f"{key}x", "", "seed", str(random.choice(ODD))[:40]])] = place[key]
    elif way == 2 and isinstance(place, list) and place is not whole:
        place.insert(key, place[key])
    elif way == 3:
        place[key] = [place[key]]
    elif way == 4 and isinstance(place[key], int | float):
        place[key] = random.choice([-place[key], place[key] + 1, place[key] * 1e6, str(place[key])])
    else:
        place[key] = deepcopy(random.choice(ODD))  # which later damage would reach into
    return whole[0]


def _values(data: Any, random: random.Random) -> Any:
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        data = _value(data, random)
    return data


def _bytes(data: bytes, random: random.Random) -> bytes:
    """Cut, flipped, inserted, doubled or moved bytes."""
    data = bytes(data) or b"\x00"
    at, size = random.randrange(len(data)), random.choice([1, 1, 2, 8, 100])
    match random.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[at:]
        case 2:
            flipped = data[at] ^ (1 << random.randrange(8))
            return data[:at] + bytes([flipped]) + data[at + 1 :]
        case 3:
            return data[:at] + random.choice(ODD_BYTES) * random.choice([1, 1, 50]) + data[at:]
        case 4:
            return data[: at + size] + data[at:]
        case 5:
            return data[:at] + data[at + size :]
        case _:
            other = random.randrange(len(data))
            return data[:at] + data[other : other + size] + data[at + size :]


def _lines(data: bytes, random: random.Random) -> bytes:
    lines = data.split(b"\n")
    k = random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            del lines[k]
        case 1:
            lines.insert(k, lines[random.randrange(len(lines))])
        case 2:
            odd = str(random.choice(ODD)).encode("utf-8", "surrogatepass")
            lines[k] = odd if random.random() < 0.5 else lines[k].replace(b" ", odd, 1)
        case 3:
            random.shuffle(lines)
        case _:
            lines[k] = _bytes(lines[k], random)
    return b"\n".join(lines)


def _json(data: bytes, random: random.Random) -> bytes:
    return json.dumps(_values(json.loads(data), random)).encode()


def _json_lines(data: bytes, random: random.Random) -> bytes:
    lines = data.splitlines()
    k = random.randrange(len(lines))
    lines[k] = _json(lines[k], random)
    return b"\n".join(lines) + b"\n"


def _yaml(data: bytes, random: random.Random) -> bytes:
    changed = _values(yaml.safe_load(data), random)
    try:
        return yaml.safe_dump(changed, sort_keys=False, allow_unicode=True).encode()
    except (UnicodeEncodeError, yaml.YAMLError):
        return json.dumps(changed).encode()


def _safetensors(data: bytes, random: random.Random) -> bytes:
    """Another header before the same tensors; at times of a wrong length."""
    (size,) = struct.unpack("<Q", data[:8])
    header = _json(data[8 : 8 + size], random)
    told = random.choice([len(header)] * 8 + [0, len(header) - 1, 2**40, 2**63])
    return struct.pack("<Q", told) + header + data[8 + size :]


SAID: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".yaml": _yaml,
    ".safetensors": _safetensors,
    ".txt": _lines,
    ".csv": _lines,
    ".tsv": _lines,
}


def damaged(data: bytes, suffix: str, random: random.Random) -> bytes:
    """A damaged copy of a file with that suffix."""
    if suffix in SAID and random.random() < 0.8:
        data = SAID[suffix](data, random)
        return data if random.random() < 0.9 else _lines(data, random)
    return _bytes(data, random)
