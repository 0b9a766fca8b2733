"""The sessions' environment: what is said to be installed is, however an install before ended."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NOXFILE = Path(__file__).parents[1] / "noxfile.py"


class Session:
    """Writes down what would be installed; pip may be ended half-way."""

    def __init__(self, *, killed: bool = False) -> None:
        self.killed = killed
        self.commands: list[tuple[str, ...]] = []

    def run_install(self, *command: str, **_: Any) -> bool:
        self.commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True, exist_ok=True)
            (Path(command[-1]) / "bin/python").touch()
        elif self.killed:
            raise KeyboardInterrupt
        return True


@pytest.fixture
def noxfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our noxfile in a folder of its own; nox itself is in none of its environments."""

    def session(*_: Any, **__: Any) -> Callable[[Any], Any]:
        return lambda function: function

    nox = ModuleType("nox")
    project = SimpleNamespace(load_toml=lambda _: {}, dependency_groups=lambda _, group: (group,))
    vars(nox).update(options=SimpleNamespace(), project=project, session=session, Session=Session)
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("noxfile", NOXFILE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ENVIRONMENT = tmp_path / "environment"
    module.os = SimpleNamespace(name="posix")
    module.pip_ends = 0
    module.subprocess = SimpleNamespace(
        run=lambda *_, **__: SimpleNamespace(returncode=module.pip_ends)
    )
    return module


def commands_of(noxfile: Any, *groups: str, killed: bool = False) -> list[str]:
    """The modules that a session runs to have such groups."""
    session = Session(killed=killed)
    try:
        noxfile._python(session, *groups)
    except KeyboardInterrupt:
        assert killed
    return [command[2] for command in session.commands]


def test_what_is_installed_is_not_installed_again(noxfile: Any) -> None:
    Path("pyproject.toml").write_text("one")
    assert commands_of(noxfile, "tests") == ["venv", "pip"]
    assert commands_of(noxfile, "tests") == []
    assert commands_of(noxfile, "lint") == ["pip"]
    assert commands_of(noxfile, "tests") == []


def test_another_group_of_another_branch_replaced_it(noxfile: Any) -> None:
    Path("pyproject.toml").write_text("one")
    commands_of(noxfile, "tests")
    Path("pyproject.toml").write_text("two")
    assert commands_of(noxfile, "lint") == ["pip"]
    Path("pyproject.toml").write_text("one")
    assert commands_of(noxfile, "tests") == ["pip"]


def test_an_install_that_was_ended_is_done_again(noxfile: Any) -> None:
    Path("pyproject.toml").write_text("one")
    commands_of(noxfile, "tests")
    Path("pyproject.toml").write_text("two")
    assert commands_of(noxfile, "tests", killed=True) == ["pip"]
    Path("pyproject.toml").write_text("one")
    assert commands_of(noxfile, "tests") == ["pip"]


def test_an_environment_without_pip_is_made_anew(noxfile: Any) -> None:
    Path("pyproject.toml").write_text("one")
    (noxfile.ENVIRONMENT / "bin").mkdir(parents=True)
    (noxfile.ENVIRONMENT / "bin/python").touch()
    noxfile.pip_ends = 1
    assert commands_of(noxfile, "tests") == ["venv", "pip"]
    assert commands_of(noxfile, "tests") == []  # nor is pip asked where nothing is to be done
