"""Damaged and made-up inputs through the command line end in words: a minute of `nox -s fuzz`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY
from fuzz import OUTPUT, TARGETS, fuzz, invoked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INPUTS = 200
LIGHT = ("suites", "overrides", "prompts", "expected", "reports")

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.text(max_size=8)
DATA = st.recursive(SCALARS, lambda one: st.lists(one) | st.dictionaries(NAMES, one), max_leaves=9)
KEYS = ["name", "title", "backend", "prompts", "students", "train", "metrics", "baseline", "seeds"]
SUITES = st.dictionaries(st.sampled_from(KEYS), DATA)
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def refused(*arguments: str) -> None:
    """It is none of these: the command says so in words, and makes nothing."""
    before = sorted(os.listdir())
    code, told = invoked(arguments)
    assert code == 2, told
    assert told.strip()
    assert "Traceback" not in told
    assert sorted(os.listdir()) == before


@pytest.mark.long
def test_damaged_files_end_in_words() -> None:
    counts, findings = fuzz(LIGHT, INPUTS)
    assert not findings, "\n".join(f"{one.target} {one.number}: {one.told}" for one in findings)
    for name in LIGHT:
        codes = {code: num for (of, code), num in counts.items() if of == name}
        assert sum(codes.values()) == INPUTS * TARGETS[name].share // 100, name
        assert len(codes) > 1, f"{name}: all ended with {codes}: what is damaged is not read"


@pytest.mark.long
def test_what_is_damaged_is_whole_before() -> None:
    _, findings = fuzz(TARGETS, 0)
    assert not findings, "\n".join(f"{one.target}: {one.told}" for one in findings)


@FEW
@given(suite=SUITES)
def test_what_is_no_suite_is_refused(inside: Path, suite: dict[str, Any]) -> None:
    Path("s.yaml").write_text(json.dumps(suite))  # which is YAML too
    refused("plan", "s.yaml")


@FEW
@given(data=st.binary(max_size=200))
def test_bytes_are_no_suite(inside: Path, data: bytes) -> None:
    Path("s.yaml").write_bytes(data)
    refused("plan", "s.yaml")


@FEW
@given(data=DATA)
def test_what_is_no_report_is_refused(inside: Path, data: Any) -> None:
    Path("a.json").write_text(json.dumps(data))
    refused("compare", "a.json", "a.json", "--output", OUTPUT)
    refused("power", "a.json", "--metric", "std", "--difference", "1")


@FEW
@given(data=st.binary(max_size=60), suffix=st.sampled_from(["txt", "csv", "tsv", "jsonl", "json"]))
def test_any_file_of_prompts_is_read_or_refused(inside: Path, data: bytes, suffix: str) -> None:
    Path(f"p.{suffix}").write_bytes(data)
    prompts = {"own": {"source": f"p.{suffix}", "num_prompts": 1}}
    Path("s.yaml").write_text(yaml.safe_dump({**TINY, "prompts": prompts}))
    code, told = invoked(("plan", "s.yaml"))
    assert code in (0, 2), told
    assert "Traceback" not in told
