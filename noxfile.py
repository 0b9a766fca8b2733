"""Everything the project does, in one environment of its own (.nox/ddmd_bench).

nox -s benchmark                               # suites/shapes.yaml
nox -s benchmark -- suites/shapes_smoke.yaml   # any suite, with any option of `run`
nox -s tests
"""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
DEFAULT_SUITE = "suites/shapes.yaml"
# One environment for all sessions: torch and what it brings take several GB in each.
ENVIRONMENT = Path(__file__).parent / ".nox" / "ddmd_bench"


def _python(session: nox.Session, *groups: str) -> str:
    """The environment's interpreter, with the package and the named dependency groups installed.

    One resolution for all, so that the pinned torch is not replaced by a newer one; none at all
    while pyproject.toml is the one that was installed from.
    """
    python = str(ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    if not Path(python).exists():
        session.run_install("python", "-m", "venv", str(ENVIRONMENT), external=True)
    wanted = Path("pyproject.toml").read_text(encoding="utf-8")
    installed = ENVIRONMENT / f"installed-{'-'.join(groups) or 'alone'}.toml"
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        requirements = [
            requirement
            for group in ("pinned", *groups)
            for requirement in nox.project.dependency_groups(PYPROJECT, group)
        ]
        pip = (python, "-m", "pip", "install", "--quiet", "-e", ".")
        session.run_install(*pip, *requirements, external=True)
        installed.write_text(wanted, encoding="utf-8")
    return python


def _ddmd_bench(session: nox.Session, command: str) -> None:
    suite = list(session.posargs) or [DEFAULT_SUITE]
    session.run(_python(session), "-m", "ddmd_bench", command, *suite, external=True)


@nox.session(venv_backend="none")
def benchmark(session: nox.Session) -> None:
    """Run a suite and write its report: nox -s benchmark -- suites/NAME.yaml --set key=value."""
    _ddmd_bench(session, "run")


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Hold a finished run against its expected values: 0 ok, 1 drift, 2 incomparable."""
    _ddmd_bench(session, "check")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The default tests: no network, no GPU, under ten minutes."""
    # A file's tests stay together: they share what it took long to make.
    spread = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
    python = _python(session, "tests")
    session.run(python, "-m", "pytest", *spread, *session.posargs, external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Formatting, style and types."""
    python = _python(session, "lint")
    session.run(python, "-m", "ruff", "format", "--check", ".", external=True)
    session.run(python, "-m", "ruff", "check", ".", external=True)
    session.run(python, "-m", "mypy", external=True)
