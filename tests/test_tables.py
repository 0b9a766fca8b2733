"""Lines and tables: what was written is read, whatever the characters, names and values."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddmd_bench.data.image_folders import list_images
from ddmd_bench.data.prompt_sources import load_prompts
from ddmd_bench.data.streams import iter_captions
from ddmd_bench.data.tables import columns_of, rows_of
from ddmd_bench.data.texts import stripped, text_of
from ddmd_bench.errors import BenchError
from ddmd_bench.files.lines import iter_lines
from ddmd_bench.files.records import read_jsonl, write_jsonl
from ddmd_bench.suite.settings import DataSource

# Every character that Python's `splitlines` breaks at, and no text file does.
NO_ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def _csv(path: Path, rows: Sequence[dict[str, str]], separator: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "prompt"], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


WRITERS: dict[str, Callable[[Path, list[dict[str, str]]], Any]] = {
    "p.txt": lambda path, rows: path.write_bytes(
        "".join(f"{row['prompt']}\n" for row in rows).encode()
    ),
    "windows.txt": lambda path, rows: path.write_bytes(
        "\r\n".join(row["prompt"] for row in rows).encode("utf-8-sig")
    ),
    "p.csv": _csv,
    "pandas.csv": lambda path, rows: pd.DataFrame(rows).to_csv(path, encoding="utf-8-sig"),
    "p.tsv": lambda path, rows: _csv(path, rows, "\t"),
    "p.jsonl": write_jsonl,
    "raw.jsonl": lambda path, rows: path.write_bytes(
        "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    ),
    "p.json": lambda path, rows: path.write_text(json.dumps([row["prompt"] for row in rows])),
    "p.parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
    "metadata.csv": _csv,
    "metadata.jsonl": write_jsonl,
    "metadata.parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
}
LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
AWKWARD = [
    *(f"a red{end}cat" for end in NO_ENDS),
    *("1", "1.0", "NA", "null", "None", "nan", "true", "2024-01-01", "2024-01-01T00:00:00Z", "#"),
    *('"G I G G L E" painted', '"', '""', "'", "a,b", "a;b", "a\tb", "{}", "[1]", "\\", "\\n"),
    *(
        "\x00",
        "e\u0301 is not \u00e9",
        "\U0001f98a",
        "\u200bzero width",
        "  spaces  ",
        "\ufeffmark",
    ),
]


@settings(max_examples=15, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=6))
@example(AWKWARD)
def test_any_prompts_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("written")
    rows = [{"file_name": f"{k}.png", "prompt": text} for k, text in enumerate(prompts)]
    expected = [(k, text) for k, text in enumerate(map(stripped, prompts)) if text]
    for name, write in WRITERS.items():
        path = folder / name
        write(path, rows)
        if name.startswith("metadata"):
            listed = [(one.position, one.file_name, one.text) for one in list_images(folder)]
            assert listed == [(k, f"{k}.png", stripped(t)) for k, t in enumerate(prompts)], name
            path.unlink()
        elif expected:
            assert list(iter_captions(DataSource(source=str(path))).items) == expected, name
            kept = list(dict.fromkeys(text for _, text in expected))
            assert list(load_prompts(DataSource(source=str(path))).texts) == kept, name


def test_only_n_and_r_n_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\rb\r\n\n" + "".join(NO_ENDS).encode() + b"\nlast\r")
    assert list(iter_lines(path)) == ["a\rb", "", "".join(NO_ENDS), "last\r"]
    path.write_bytes(b"")
    assert list(iter_lines(path)) == []
    path.write_text('{"a": "one\u2028line"}\n', encoding="utf-8")
    assert read_jsonl(path) == [{"a": "one\u2028line"}]


def test_white_space_is_what_unicode_calls_so_and_the_mark_of_files() -> None:
    white = [c for c in map(chr, range(0x110000)) if c.isspace()]
    assert stripped("".join(white) + "\ufeffa  b\ufeff" + "".join(white)) == "a  b"
    assert stripped("\u200ba\u200b") == "\u200ba\u200b"  # invisible, and no white space
    assert text_of("", "", 0, None) == ""


@pytest.mark.parametrize(
    "name", ["test.csv", "train.csv", "val shot [1]*.csv", ".hidden.csv", "__x__.csv", "a::b.csv"]
)
def test_a_name_says_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "test" / ".cache"  # both mean something to libraries
    folder.mkdir(parents=True)
    (folder / name).write_text("prompt\na\nb\n")
    assert load_prompts(DataSource(source=str(folder / name))).texts == ("a", "b")


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt\naaa\n")
    before = path.stat()
    assert load_prompts(DataSource(source=str(path))).texts == ("aaa",)
    path.write_text("prompt\nbbb\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_prompts(DataSource(source=str(path))).texts == ("bbb",)


def test_columns_are_called_without_marks_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes("\ufeff n , prompt ,\n1, a cat ,\n\n2\n".encode())
    assert columns_of(tmp_path / "p.csv") == ["n", "prompt"]
    # Blank lines are no rows, and a row that is too short lacks its last values.
    assert list(rows_of(tmp_path / "p.csv")) == [
        {"n": "1", "prompt": " a cat "},
        {"n": "2", "prompt": None},
    ]


def test_quotes_of_a_tsv_are_around_a_value_or_belong_to_it(tmp_path: Path) -> None:
    """PartiPrompts has the second row; what is in quotes as CSV has it is the first."""
    rows = ['"with ""two"" and a\ttab"\t1', '"G I G G L E" painted\t2', 'a "NA" sign\t"3"', "\t4"]
    (tmp_path / "p.tsv").write_text("\n".join(["prompt\tn", *rows]))
    assert [tuple(row.values()) for row in rows_of(tmp_path / "p.tsv")] == [
        ('with "two" and a\ttab', "1"),
        ('"G I G G L E" painted', "2"),
        ('a "NA" sign', "3"),
        ("", "4"),
    ]


def test_parquet_is_read_from_any_row_and_by_columns(tmp_path: Path) -> None:
    table = pd.DataFrame({"n": range(500), "prompt": [f"text {k}" for k in range(500)]})
    table.to_parquet(tmp_path / "p.parquet", row_group_size=150)
    for skip in (0, 1, 127, 128, 150, 299, 301, 499, 500, 900):
        rows = list(rows_of(tmp_path / "p.parquet", ["prompt"], skip))
        assert rows == [{"prompt": text} for text in table["prompt"][skip:]]


def test_json_of_either_form_under_either_name(tmp_path: Path) -> None:
    lines = '{"prompt": "a"}\n\n{"prompt": "b", "more": 1}\n'
    for name in ("p.json", "p.jsonl"):
        (tmp_path / name).write_text(lines)
        assert load_prompts(DataSource(source=str(tmp_path / name))).texts == ("a", "b")
    (tmp_path / "p.jsonl").write_text('"a"\n"b"\n')
    assert load_prompts(DataSource(source=str(tmp_path / "p.jsonl"))).texts == ("a", "b")
    (tmp_path / "p.json").write_text(json.dumps({f"id{k}": {} for k in range(99)}))
    with pytest.raises(BenchError, match=r"it has: id0, .*id19 and 79 more"):
        load_prompts(DataSource(source=str(tmp_path / "p.json")))
