"""What a suite cannot mean is refused, with the line where it stands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddmd_bench.errors import BenchError
from ddmd_bench.files.yaml_text import parse_yaml
from ddmd_bench.suite.files import load_suite

Write = Callable[[Any], str]


def _refused(name: str, *overrides: str) -> str:
    with pytest.raises(BenchError) as caught:
        load_suite(name, overrides)
    return str(caught.value)


def test_a_key_that_stands_twice_is_named_with_both_lines(write_suite: Write) -> None:
    name = write_suite("students:\n  a: {}\n  b: {}\n  a: {}\n")
    assert _refused(name).startswith(
        f"{name}: line 4: the key 'a' stands twice, first in line 2; rename"
    )


def test_aliases_of_aliases_are_refused_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 30)]
    with pytest.raises(BenchError, match="once its aliases are written out"):
        parse_yaml("\n".join(lines), "x")
    with pytest.raises(BenchError, match="line 1: contains itself by an alias"):
        parse_yaml("a: &a [*a]", "x")
    with pytest.raises(BenchError, match="nested too deeply"):
        parse_yaml("[" * 10_000, "x")


@pytest.mark.parametrize("text", ["a: !!timestamp 2024-13-45", "a: !!python/object:os.system {}"])
def test_what_yaml_cannot_make_is_a_sentence(text: str) -> None:
    with pytest.raises(BenchError, match="x: not valid YAML"):
        parse_yaml(text, "x")


def test_an_override_of_one_alias_changes_no_other() -> None:
    data = parse_yaml("a: &a {x: 1}\nb: *a", "x").data
    data["a"]["x"] = 2
    assert data["b"] == {"x": 1}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("students.dmd.train.ema=no", "ema: expected a number such as"),
        ("students.dmd.train.ema=.nan", "ema: Input should be a finite number"),
        ("train.num_iterations=yes", "train.num_iterations: expected a number such as"),
        ("train.num_iterations=true", "train.num_iterations: expected no truth value"),
        ("train.num_iterations=.inf", "Input should be a finite number (found inf)"),
        ("train.num_iterations=010", "20, 0.5 or 5e-5 (found '010')"),
        ("train.num_iterations=12:30", "20, 0.5 or 5e-5 (found '12:30')"),
        ("train.num_iterations=1_000", "20, 0.5 or 5e-5 (found '1_000')"),
        ("train.num_iterations=0x10", "20, 0.5 or 5e-5 (found '0x10')"),
        ("train.num_iterations=\u0663", "20, 0.5 or 5e-5 (found '\u0663')"),
        ("train.learning_rate=on", "train.learning_rate: expected a number such as"),
        ("train.learning_rate=1:30.5", "20, 0.5 or 5e-5 (found '1:30.5')"),
        ("seeds=[0, 010]", "seeds: expected a number such as 20, 0.5 or 5e-5 (found [0, '010'])"),
        ("train.gradient_checkpointing=1", "expected true or false (found 1)"),
        ('title="\\ud800"', "title: holds half of a character"),
        ("seeds=[true]", "seeds: expected no truth value"),
        (
            "seeds=[1180591620717411303424]",
            "seeds.0: Input should be less than 9223372036854775808",
        ),
        ("train.learning_rate=.inf", "train.learning_rate: Input should be"),
        ("train.batch_size=4000000000", "train.batch_size: Input should be less than"),
        ("name=../x", "expected a to z, 0 to 9 and _, found FULL STOP"),
        ("name=c:x", "found COLON"),
        ("name=nul", "Windows keeps this name for a device"),
        ("name=dm\u0501", "found CYRILLIC SMALL LETTER KOMI DE"),
        (f"name={'a' * 65}", "at most 64 characters"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(
    override: str, expected: str, tiny: dict, write_suite: Write
) -> None:
    assert expected in _refused(write_suite(tiny), override)


def test_a_refused_value_is_one_line(tiny: dict, write_suite: Write) -> None:
    name = write_suite(tiny)
    for value in ("[", "{a: b", "*a", "!!python/object:os.system x", ".nan", "12:30"):
        message = _refused(name, f"train.num_iterations={value}")
        assert "\n" not in message
        assert "train.num_iterations" in message


def test_words_are_what_they_are_written_as(write_suite: Write, tiny: dict) -> None:
    """A year, a date, a time or a no is a text where one stands, a number where one does."""
    tiny["prompts"] = {"seen": tiny["prompts"]["seen"]}
    text = yaml.safe_dump(tiny, sort_keys=False)
    for word in ("1999", "2024-01-01", "12:30", "010", "no", "1e5", "0", "1_000"):
        suite = load_suite(write_suite(text.replace("title: Tiny", f"title: {word}")))
        assert suite.title == word
        suite = load_suite(write_suite(text), [f"prompts.seen.category={word}"])
        assert suite.prompts["seen"].category == word
    plain = text.replace("  dmd:", "  1999:").replace("baseline: dmd", "baseline: 1999")
    assert load_suite(write_suite(plain)).baseline == "1999"
    rates = {"5e-5": 5e-5, "5.0e-5": 5e-5, ".5": 0.5, "1": 1.0, '"0.5"': 0.5, "1.5e1": 15.0}
    for word, rate in rates.items():
        suite = load_suite(write_suite(text), [f"train.learning_rate={word}"])
        assert suite.train.learning_rate == rate
    settings = load_suite(write_suite(text), ["train.gradient_checkpointing=yes"]).train
    assert settings.gradient_checkpointing is True


def test_a_problem_of_the_file_has_its_line_and_one_of_the_command_line_none(
    tiny: dict, write_suite: Write
) -> None:
    tiny["train"]["num_iterations"] = 0
    name = write_suite(tiny)
    lines = yaml.safe_dump(tiny, sort_keys=False).splitlines()
    message = _refused(name)
    number = int(message.rpartition("line ")[2].rstrip(")"))
    assert "num_iterations: 0" in Path(name).read_text().splitlines()[number - 1], lines
    assert "line" not in _refused(name, "train.num_iterations=-1")


def test_a_suite_is_read_as_utf_8_in_any_locale(tiny: dict, write_suite: Write) -> None:
    name = write_suite(tiny)
    path = Path(name)
    path.write_text(path.read_text() + "description: é 赤\n", encoding="utf-8")
    code = "import sys; from ddmd_bench.suite.files import load_suite as f; f(sys.argv[1])"
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)
