"""Everything the project does, each in an environment of its own.

nox -s benchmark                               # suites/shapes.yaml
nox -s benchmark -- suites/shapes_smoke.yaml   # any suite, with any option of `run`
nox -s tests
"""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
DEFAULT_SUITE = "suites/shapes.yaml"


def _group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


def _install(session: nox.Session, *groups: str) -> None:
    """One resolution, so that the pinned torch is not replaced by a newer one."""
    wanted = [requirement for group in ("pinned", *groups) for requirement in _group(group)]
    session.install("-e", ".", *wanted)


def _suite(session: nox.Session) -> list[str]:
    return list(session.posargs) or [DEFAULT_SUITE]


@nox.session
def benchmark(session: nox.Session) -> None:
    """Run a suite and write its report: nox -s benchmark -- suites/NAME.yaml --set key=value."""
    _install(session)
    session.run("python", "-m", "ddmd_bench", "run", *_suite(session))


@nox.session
def check(session: nox.Session) -> None:
    """Hold a finished run against its expected values: 0 ok, 1 drift, 2 incomparable."""
    _install(session)
    session.run("python", "-m", "ddmd_bench", "check", *_suite(session))


@nox.session
def tests(session: nox.Session) -> None:
    """The default tests: no network, no GPU, under ten minutes."""
    _install(session, "tests")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, style and types."""
    _install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
