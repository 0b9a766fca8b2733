"""A file that is cut, damaged, foreign or of another schema is an error that names it, or itself.

Every reader of `ddmd_bench.files` stands in `READERS`, and no module outside calls a library's own.
"""

from __future__ import annotations

import ast
import pickle
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import ddmd_bench
from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.arrays import (
    read_features,
    read_npz,
    read_npz_of_others,
    write_npy,
    write_npz,
)
from ddmd_bench.files.forms import MAYBE_NUMBER, NUMBER, misfit
from ddmd_bench.files.records import (
    iter_appended,
    parse_json,
    read_json,
    read_jsonl,
    read_record,
    read_versioned,
    write_json,
    write_jsonl,
)
from ddmd_bench.files.tables import iter_parquet, parquet_file, read_parquet, write_parquet
from ddmd_bench.files.tensors import (
    open_safetensors,
    read_safetensors,
    read_safetensors_arrays,
    read_torch,
)

PACKAGE = Path(ddmd_bench.__file__).parent
REMEDY = "Do this"
FORM = {"schema": int, "table": {...: {"value": MAYBE_NUMBER}}, "seeds": [int]}
RECORD = {"schema": 1, "table": {"a": {"value": 0.5}, "b": {"value": None}}, "seeds": [0, 1]}
TABLE = pd.DataFrame(
    {
        "prompt_id": ["seen/0", "new/1"],
        "image_index": [0, 1],
        "value": [0.25, np.nan],
    }
)
TENSORS = {"mean": torch.arange(3, dtype=torch.float64), "cov": torch.eye(3, dtype=torch.float64)}
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
ARRAYS = {"facts": np.array('{"n": 1}'), "values": np.arange(5.0)}
CHECKPOINT = {"key": "k", "state": {"a": torch.ones(3, 2)}, "rows": [{"loss": 0.5}]}


class Reader(NamedTuple):
    """A reader with how a whole file of its kind is written."""

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    checked: bool = False  # whether it holds content against a checksum of the file's own


def in_safetensors(path: Path) -> dict[str, Any]:
    with open_safetensors(path, remedy=REMEDY) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def in_old_torch(path: Path) -> None:
    torch.save(CHECKPOINT, path, _use_new_zipfile_serialization=False)


def in_parquet(path: Path) -> pd.DataFrame:
    columns = {"prompt_id": "text", "image_index": "whole number"}
    return read_parquet(path, columns, "number", REMEDY)  # type: ignore[arg-type]


def in_npz_of_others(path: Path) -> None:
    with path.open("wb") as file:  # by a name numpy would add the suffix
        np.savez_compressed(file, allow_pickle=False, **ARRAYS)


def of_others(path: Path) -> dict[str, Any]:
    return read_npz_of_others(path, [("mu", "sigma"), ("facts", "values")], REMEDY)


READERS: dict[str, Reader] = {
    "JSON": Reader(lambda p: write_json(p, RECORD), lambda p: read_json(p, REMEDY)),
    "record": Reader(lambda p: write_json(p, RECORD), lambda p: read_record(p, FORM, REMEDY)),
    "versioned": Reader(
        lambda p: write_json(p, RECORD), lambda p: read_versioned(p, {1: FORM}, REMEDY)
    ),
    "JSON lines": Reader(
        lambda p: write_jsonl(p, [RECORD, RECORD]), lambda p: read_jsonl(p, FORM, REMEDY)
    ),
    "lines appended": Reader(
        lambda p: write_jsonl(p, [RECORD, RECORD]), lambda p: list(iter_appended(p, FORM, REMEDY))
    ),
    "Parquet": Reader(lambda p: write_parquet(p, TABLE), in_parquet),
    "rows of Parquet": Reader(
        lambda p: write_parquet(p, TABLE), lambda p: list(iter_parquet(p, remedy=REMEDY))
    ),
    "npy": Reader(lambda p: write_npy(p, FEATURES), lambda p: read_features(p, REMEDY)),
    "npz": Reader(lambda p: write_npz(p, ARRAYS), lambda p: read_npz(p, REMEDY), checked=True),
    "npz of others": Reader(in_npz_of_others, of_others, checked=True),
    "safetensors": Reader(lambda p: save_file(TENSORS, p), lambda p: read_safetensors(p, REMEDY)),
    "safetensors, opened": Reader(lambda p: save_file(TENSORS, p), in_safetensors),
    "safetensors of arrays": Reader(
        lambda p: save_file(TENSORS, p),
        lambda p: read_safetensors_arrays(p, {"mean": (3,), "cov": (3, 3)}, REMEDY),
    ),
    "torch": Reader(lambda p: torch.save(CHECKPOINT, p), lambda p: read_torch(p, remedy=REMEDY)),
    "torch, before 1.6": Reader(in_old_torch, lambda p: read_torch(p, remedy=REMEDY)),
    "torch, shapes": Reader(
        lambda p: torch.save(CHECKPOINT, p), lambda p: read_torch(p, "meta", remedy=REMEDY)
    ),
    "torch, whole": Reader(
        lambda p: torch.save(CHECKPOINT, p),
        lambda p: read_torch(p, mapped=True, whole=True, remedy=REMEDY),
        checked=True,
    ),
}


def error_of(read: Callable[[Path], Any], path: Path) -> str:
    """The error's sentence; nothing but a BenchError is one."""
    with pytest.raises(BenchError) as raised:
        read(path)
    told = str(raised.value)
    assert str(path) in told
    return told


def damaged(data: bytes) -> Iterator[bytes]:
    """Cut, flipped, overwritten and shortened at many places, drawn alike each time."""
    draws = random.Random(0)
    for place in {0, 1, len(data) - 1, *(draws.randrange(len(data)) for _ in range(30))}:
        yield data[:place]
    for _ in range(40):
        place, flipped = draws.randrange(len(data)), bytearray(data)
        flipped[place] ^= 1 << draws.randrange(8)
        yield bytes(flipped)
        yield data[:place] + draws.randbytes(8) + data[place + 8 :]
        yield data[:place] + data[place + draws.randrange(1, 40) :]


def text_of(value: Any) -> str:
    return str(value.to_dict() if isinstance(value, pd.DataFrame) else value)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    reader, path = READERS[name], tmp_path / "file"
    reader.write(path)
    whole, data = text_of(reader.read(path)), path.read_bytes()
    refused = 0
    for changed in damaged(data):
        path.write_bytes(changed)
        found = outcome(reader.read, path)
        if isinstance(found, BenchError):
            refused += 1
            assert str(path) in str(found)
            assert "\n" not in str(found)
        elif reader.checked:  # else a flipped bit may be another value: `done.json` has a sha256
            assert text_of(found) == whole
    assert refused > 30


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except BenchError as error:
        return error


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_such_file_is_an_error_with_what_to_do(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    contents = {"empty": b"", "text": b"not such a file\n", "null": b"null\n", "zip": b"PK\5\6"}
    for kind, content in contents.items():
        path = tmp_path / kind
        path.write_bytes(content)
        lines = "lines appended"  # without an end of its own a line is one that was cut off
        allowed = {"null": ("JSON",), "empty": ("JSON lines", lines), "zip": (lines,)}
        if name not in allowed.get(kind, ()):
            told = error_of(reader.read, path)
            assert told.endswith(REMEDY)
    (tmp_path / "folder").mkdir()
    for kind, said in {"folder": "a folder", "absent": "no such file"}.items():
        assert error_of(reader.read, tmp_path / kind).endswith(f"{said}. {REMEDY}")


# Of one kind: what one reader takes, the others may.
JSON = ("JSON", "record", "versioned", "JSON lines", "lines appended")


def kind_of(name: str) -> str:
    words = ("Parquet", "safetensors", "torch", "npy", "npz")
    return "JSON" if name in JSON else next(word for word in words if word in name)


@pytest.mark.parametrize("name", [name for name in READERS if name != "lines appended"])
def test_a_whole_file_of_another_kind_is_an_error(name: str, tmp_path: Path) -> None:
    """Each reader before the files of all the others."""
    path = tmp_path / "file"
    for other, row in READERS.items():
        if kind_of(other) != kind_of(name):
            row.write(path)
            assert error_of(READERS[name].read, path).endswith(REMEDY)


def test_no_object_is_made_of_a_pickle(tmp_path: Path) -> None:
    """A pickle that would write a file when it is read."""
    traces = tmp_path / "traces"

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.write_text, (traces, "was here"))

    path = tmp_path / "file"
    array = np.array([Hostile()], dtype=object)
    np.save(tmp_path / "file.npy", array, allow_pickle=True)
    np.savez(tmp_path / "file.npz", values=array)
    torch.save({"state": Hostile()}, tmp_path / "file.pt")
    path.write_bytes(pickle.dumps(Hostile()))
    assert "neither numbers nor texts" in error_of(read_features, tmp_path / "file.npy")
    assert "neither numbers nor texts" in error_of(read_npz, tmp_path / "file.npz")
    for file in (tmp_path / "file.pt", path):
        told = error_of(read_torch, file)
        assert "could run code" in told
        # torch says how to run it all the same.
        assert "weights_only" not in told
    assert not traces.exists()
    pickle.loads(path.read_bytes())
    assert traces.is_file(), "it was one that does something"


def test_an_array_is_as_large_as_its_file(tmp_path: Path) -> None:
    """Nothing is allocated that a header claims."""
    path = tmp_path / "features.npy"
    write_npy(path, FEATURES)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(4, 3)", b"(40000000000, 3)").replace(b" " * 10, b"", 1))
    assert "bytes of values, by its header" in error_of(read_features, path)
    path.write_bytes(data + b"more")
    assert "52 bytes of values, by its header 48" in error_of(read_features, path)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", data)
    assert "zeros.npy is compressed" in error_of(read_npz, tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.arange(3.0), r"float64 \[3\]; expected numbers \[n, d\]"),
        (np.ones((2, 2), np.int64), r"int64 \[2, 2\]; expected"),
        (np.array([["a"]]), "<U1"),
        (np.zeros(2, [("a", "f8")]), "neither numbers nor texts"),
    ],
)
def test_features_have_a_shape_and_are_numbers(array: Any, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", array)
    assert re.search(said, error_of(read_features, tmp_path / "features.npy"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE.drop(columns="prompt_id"), "no column 'prompt_id'; expected text"),
        (
            TABLE.assign(image_index=["0", "1"]),
            "its column 'image_index' holds text; expected whole",
        ),
        (TABLE.assign(image_index=[0.0, np.nan]), "its column 'image_index' holds number"),
        (TABLE.assign(prompt_id=["a", None]), "its column 'prompt_id' has rows without a value"),
        (TABLE.assign(value=["x", "y"]), "its column 'value' holds text; expected number"),
        (TABLE.assign(value=[[1.0], []]), "its column 'value' holds list<"),
        (TABLE.assign(value=[{"a": 1}, {"a": 2}]), "its column 'value' holds struct<"),
        (TABLE.assign(value=[b"1", b"2"]), "its column 'value' holds binary"),
    ],
)
def test_a_table_has_its_columns(table: pd.DataFrame, said: str, tmp_path: Path) -> None:
    path = tmp_path / "per_image.parquet"
    table.to_parquet(path)
    assert said in error_of(in_parquet, path)


def test_two_columns_of_one_name_are_no_table(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), path)
    assert "two columns are called a" in error_of(parquet_file, path)


def test_a_table_comes_back(tmp_path: Path) -> None:
    write_parquet(tmp_path / "table.parquet", TABLE)
    pd.testing.assert_frame_equal(in_parquet(tmp_path / "table.parquet"), TABLE)
    rows = list(iter_parquet(tmp_path / "table.parquet", ["image_index"], 1))
    assert rows == [{"image_index": 1}]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mean": torch.zeros(3)}, "'mean' float32 [3]; expected 'mean' float64 [3]"),
        ({"mean": TENSORS["mean"][:2].clone()}, "'mean' float64 [2]"),
        ({"cov": TENSORS["cov"]}, "no 'mean'; expected 'mean' float64 [3]"),
    ],
)
def test_arrays_have_names_and_shapes(arrays: Any, said: str, tmp_path: Path) -> None:
    save_file(arrays, tmp_path / "gaussian.safetensors")
    read = READERS["safetensors of arrays"].read
    assert said in error_of(read, tmp_path / "gaussian.safetensors")


def test_a_tensor_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    with (
        pytest.raises(Unreadable, match=r"weights\.safetensors: .*other"),
        open_safetensors(path) as f,
    ):
        f.get_tensor("other")


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        ({"a": 1}, {"a": int}, ""),
        ({"a": 1}, {"a": NUMBER}, ""),
        ({"a": 1, "b": "more"}, {"a": int, "c?": str}, ""),
        ({"a": True}, {"a": int}, "a is True, expected a whole number"),
        ({"a": float("nan")}, {"a": NUMBER}, "a is nan, expected a number"),
        ({"a": "x"}, {"a": MAYBE_NUMBER}, "a is 'x', expected a number or null"),
        ({}, {"a": int}, "it has no 'a'; expected an object with a"),
        ({"c": 1}, {"c?": str}, "c is 1, expected a text"),
        ([1], {}, "it is a list, expected an object"),
        ({"t": {"x": {"n": [1, "2"]}}}, {"t": {...: {"n": [int]}}}, "t.x.n[1] is '2', expected"),
        ("x" * 500, int, "it is 'xxx"),
    ],
)
def test_forms_say_where_a_value_is_another(value: Any, form: Any, said: str) -> None:
    found = misfit(value, form)
    assert (found == said) if not said else found.startswith(said)
    assert len(found) < 200


def test_deep_and_endless_numbers_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    for text in ("[" * 100_000, "9" * 5_000, '{"a": 1', "{'a': 1}"):
        path.write_text(text)
        assert "cut, or no JSON" in error_of(read_json, path)


def test_a_newer_schema_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {**RECORD, "schema": 3})
    told = error_of(lambda p: read_versioned(p, {1: FORM, 2: FORM}), path)
    assert told == (
        f"{path}: schema 3; expected 2 or earlier. It was written by a newer ddmd_bench: update "
        "this one"
    )
    write_json(path, {**RECORD, "schema": 0})
    assert "schema 0; expected one of 1, 2" in error_of(
        lambda p: read_versioned(p, {1: FORM, 2: FORM}), path
    )


def test_appended_lines_end_where_a_kill_has_cut_them(tmp_path: Path) -> None:
    path = tmp_path / "drawn.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3')
    assert list(iter_appended(path, {"a": int})) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    rows = iter_appended(path, {"a": int})
    assert next(rows) == {"a": 1}
    with pytest.raises(Unreadable, match=r"drawn\.jsonl: cut, or no JSON in line 2"):
        next(rows)


# What reads files of these kinds, and the one module that may call it.
OWN = {
    "read_parquet": "files/tables", "ParquetFile": "files/tables", "read_table": "",
    "np.load": "", "read_array": "files/arrays", "np.fromfile": "", "np.memmap": "",
    "load_file": "files/tensors", "safe_open": "files/tensors", "torch.load": "files/tensors",
    "torch.jit.load": "scorers/inception_network", "joblib.load": "",
    "json.load": "", "json.loads": "files/records", "pickle.load": "", "pickle.loads": "",
    "pd.read_json": "", "pd.read_csv": "", "pd.read_pickle": "",
    "yaml.load": "", "yaml.safe_load": "", "yaml.unsafe_load": "", "yaml.full_load": "",
}  # fmt: skip
ELSEWHERE = {"vendors/authors"}  # run where nothing of ours is installed
OURS = {"read_parquet"}  # our reader has the library's name


def calls_of(path: Path) -> Iterator[str]:
    """What a module calls, as it is written there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def forbidden(name: str) -> str | None:
    """The library's reader that a call is, if it is one."""
    if name in OURS:
        return None
    return next((own for own in OWN if name == own or name.endswith(f".{own}")), None)


def test_no_module_reads_a_file_by_a_librarys_own_reader() -> None:
    seen = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if here in ELSEWHERE:
            continue
        for name in calls_of(path):
            if (own := forbidden(name)) is None:
                continue
            assert here == OWN[own], (
                f"{here} calls {name}: what {OWN[own] or 'ddmd_bench.files'} has reads it"
            )
            seen.add(own)
    assert {"ParquetFile", "safe_open", "load_file", "torch.load", "json.loads"} <= seen


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_python_alone_calls_json_is_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(f'{{"schema": 1, "value": [0.5, {number}]}}')
    assert f"{number} is no number that JSON has" in error_of(read_json, path)
    assert parse_json(path.read_text(), number=str)["value"] == ["0.5", number]
