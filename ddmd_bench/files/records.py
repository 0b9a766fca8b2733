"""Files of a run: content keys, whole writes, and `done.json` as the only mark of completion."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.forms import NUMBER, OBJECT, misfit
from ddmd_bench.files.reading import PUT_BACK, reading, refuse

SCHEMA = 1
DONE = "done.json"
SO_FAR = "so_far.json"  # the record of a task that goes on once more is asked of it
# Names of files that are being written: ours, and those that safetensors takes meanwhile.
_CUT = ("*.tmp", ".tmp*")
# What is read of such a record: each stage has the keys that it has something to say of.
_MADE = {
    "key?": str, "files?": {...: str}, "provenance?": {}, "weights_sha256?": {...: str},
    "seconds?": NUMBER, "peak_memory_gib?": NUMBER, "images_per_s?": NUMBER,
    "n?": int, "num_iterations?": int, "samples?": int, "forwards?": {...: NUMBER},
    "backwards?": {...: NUMBER}, "num_inference_steps?": int, "network_evaluations?": int,
    "sampled?": str, "resolution?": [int], "best?": (dict, type(None)),
    "missing?": {...: {...: int}}, "truncated_prompts?": {...: int},
}  # fmt: skip
DONE_FORMS = {SCHEMA: _MADE}
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


def differing(
    where: str, found: Any, expected: Any, said: str = "{found!r}, expected {expected!r}"
) -> Iterator[str]:
    """One line for each leaf of two JSON values that differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from differing(f"{where}.{key}", found.get(key), expected.get(key), said)
    elif found != expected:
        yield f"{where}: {said.format(found=found, expected=expected)}"


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


def remove_cut(folder: Path, *, alone: bool = True) -> None:
    """Remove what a process was writing here, or in folders of this one, when it was killed.

    Unless this process alone may write here now, what another of this machine is writing stays.
    """
    for cut in (path for name in _CUT for at in (name, f"*/{name}") for path in folder.glob(at)):
        if alone or not _is_being_written(cut):
            with suppress(OSError):  # it costs room, nothing else
                cut.unlink()


def _is_being_written(cut: Path) -> bool:
    number = cut.suffixes[-2].removeprefix(".") if len(cut.suffixes) > 1 else ""
    if not number.isdigit():
        return False
    if os.name == "nt":  # where to ask is to end it
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another's; of no process at all
        return True
    return True


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk names the file: that of a write does not know it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it says all it knows in words of its own
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


def as_json(value: Any) -> Any:
    """A value as whoever reads its JSON has it: tuples are lists, keys are texts."""
    return json.loads(json.dumps(value))


def parse_json(text: str | bytes, number: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text, or ValueError; number: what becomes of the text of each number.

    Python would read NaN, Infinity and 1e999 too, which no file here holds and no digest can take.
    """
    try:
        return json.loads(
            text,
            parse_int=number,
            parse_float=number or _finite,
            parse_constant=number or _finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number that JSON has")
    return value


def read_json(path: Path, remedy: str = PUT_BACK) -> Any:
    """Parsed JSON of a file."""
    with reading(path, "JSON", remedy=remedy):
        return parse_json(path.read_bytes())


def read_record(path: Path, form: Any = OBJECT, remedy: str = PUT_BACK) -> Any:
    """The same of a value of this form (`files.forms`): of an object, where none is given."""
    record = read_json(path, remedy)
    _require(path, record, form, "", remedy)
    return record


def read_versioned(path: Path, forms: Mapping[int, Any], remedy: str = PUT_BACK) -> dict[str, Any]:
    """A record that says in `schema` which of these forms it has; a later one is refused."""
    record: dict[str, Any] = read_record(path, {"schema": int}, remedy)
    if (schema := record["schema"]) > max(forms):
        newer = "It was written by a newer ddmd_bench: update this one"
        raise refuse(path, f"schema {schema}", f"{max(forms)} or earlier", newer)
    if schema not in forms:
        raise refuse(path, f"schema {schema}", f"one of {', '.join(map(str, forms))}", remedy)
    _require(path, record, forms[schema], "", remedy)
    return record


def read_jsonl(path: Path, form: Any = OBJECT, remedy: str = PUT_BACK) -> list[dict[str, Any]]:
    """One record a line, each of this form."""
    *lines, last = _lines(path, remedy)
    whole = [*lines, last] if last else lines
    return [_of_line(path, k, line, form, remedy) for k, line in enumerate(whole, 1)]


def iter_appended(path: Path, form: Any, remedy: str = PUT_BACK) -> Iterator[Any]:
    """One value a line of a file that grows by lines: what a kill has cut off at its end is none.

    Raises at a line that is damaged, once those before it are given.
    """
    for number, line in enumerate(_lines(path, remedy)[:-1], 1):
        yield _of_line(path, number, line, form, remedy)


def _lines(path: Path, remedy: str) -> list[bytes]:
    with reading(path, "JSON lines", remedy=remedy):
        return path.read_bytes().split(b"\n")


def _of_line(path: Path, number: int, line: bytes, form: Any, remedy: str) -> Any:
    where = f"line {number}"
    try:
        value = parse_json(line)
    except ValueError as error:
        raise Unreadable(f"{path}: cut, or no JSON in {where} ({error}). {remedy}") from None
    _require(path, value, form, where, remedy)
    return value


def _require(path: Path, value: Any, form: Any, where: str, remedy: str) -> None:
    if wrong := misfit(value, form, where):
        raise Unreadable(f"{path}: {wrong}. {remedy}")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One record a line, written whole."""
    write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def mark_done(
    folder: Path, record: dict[str, Any], files: Iterable[str] = (), name: str = DONE
) -> None:
    """Write `done.json`, the last file of a stage, with the sha256 of the files it has made.

    As `SO_FAR` it is that of a task which is not finished.
    """
    made = {file: file_sha256(folder / file) for file in files}
    write_json(folder / name, {"schema": SCHEMA, **record, **({"files": made} if made else {})})


def read_done(folder: Path, name: str = DONE) -> dict[str, Any] | None:
    """The stage's record, or None while it is not finished."""
    path = folder / name
    again = f"Put it back, or delete {folder} and run again"
    return read_versioned(path, DONE_FORMS, again) if path.is_file() else None
