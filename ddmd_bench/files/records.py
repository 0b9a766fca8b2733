"""Files of a run: content keys, whole writes, and `done.json` as the only mark of completion."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.lines import iter_lines

SCHEMA = 1
DONE = "done.json"
_REMEDY = "Put a whole one in its place, or delete it and make it again"
# Names of files that are being written: ours, and those that safetensors takes meanwhile.
_CUT = ("*.tmp", ".tmp*")
FAILED = "failed.json"  # why a task cannot be finished; a `done.json` beside it has overtaken it


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, non-finite numbers refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(value: Any) -> str:
    """The first 12 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:12]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differing(where: str, found: Any, expected: Any) -> Iterator[str]:
    """One line for each leaf of two JSON values that differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from differing(f"{where}.{key}", found.get(key), expected.get(key))
    elif found != expected:
        yield f"{where}: {found!r}, expected {expected!r}"


def cache_folder() -> Path:
    """Where this package keeps what it can find out again."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "ddmd_bench"


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed from its parts, the same on every machine."""
    digest = hashlib.sha256(canonical_json(list(parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def write_whole(path: Path, data: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader sees all of it or none."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The name under which to write a file, which then has its own, or nothing is left of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            # All of it is on the disk first: after a power cut too it is whole.
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # on a full disk others have its room
                temporary.unlink()
            raise


def remove_cut(folder: Path) -> None:
    """Remove what a process was writing here, or in folders of this one, when it was killed.

    For whoever alone may write here now.
    """
    for cut in (path for name in _CUT for at in (name, f"*/{name}") for path in folder.glob(at)):
        with suppress(OSError):  # it costs room, nothing else
            cut.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk names the file: that of a write does not know it."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN: a value that is not finite is missing."""
    return float(value) if math.isfinite(value) else None


def json_text(value: Any) -> str:
    """Readable JSON, keys in the order given: what `write_json` writes."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Readable JSON, keys in the order given, written whole."""
    write_whole(path, json_text(value))


def read_json(path: Path) -> Any:
    """Parsed JSON of a file; `Unreadable` where it is cut, or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: cut, or no JSON ({error}). {_REMEDY}") from None


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """The same of an object that has these keys."""
    record = read_json(path)
    lacking = [key for key in keys if not isinstance(record, dict) or key not in record]
    if lacking or not isinstance(record, dict):
        raise Unreadable(f"{path}: expected an object with {', '.join(keys)}. {_REMEDY}")
    return record


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One record a line."""
    return [json.loads(line) for line in iter_lines(path)]


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One record a line, written whole."""
    write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def mark_done(folder: Path, record: dict[str, Any], files: Iterable[str] = ()) -> None:
    """Write `done.json`, the last file of a stage, with the sha256 of the files it has made."""
    made = {name: file_sha256(folder / name) for name in files}
    write_json(folder / DONE, {"schema": SCHEMA, **record, **({"files": made} if made else {})})


def read_done(folder: Path) -> dict[str, Any] | None:
    """The stage's record, or None while it is not finished."""
    path = folder / DONE
    if not path.is_file():
        return None
    record = read_record(path, "schema")
    return record if record.get("schema") == SCHEMA else None
