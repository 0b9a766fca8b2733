"""Everything the project does, in one environment of its own (.nox/ddmd_bench).

nox -s benchmark                               # suites/shapes.yaml
nox -s benchmark -- suites/shapes_smoke.yaml   # any suite, with any option of `run`
nox -s tests
nox -s bench                                   # benchmarks/, into benchmarks/RESULTS.md
nox -s parity                                  # another environment: the vendors' own packages
nox -s fuzz                                    # 100,000 damaged inputs, every write failed: hours
nox -s audit                                   # known vulnerabilities of what is installed
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
DEFAULT_SUITE = "suites/shapes.yaml"
# One environment for all sessions: torch and what it brings take several GB in each.
ENVIRONMENT = Path(__file__).parent / ".nox" / "ddmd_bench"
# But for one: the vendors' packages need versions that the project is past.
VENDORS = Path(__file__).parent / ".nox" / "parity"
# What looks for vulnerabilities is no part of what it looks at.
AUDIT = Path(__file__).parent / ".nox" / "audit"
NO_DATA = 2  # the exit code of an audit that could not tell
OFFLINE_CPU = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
PARITY = ("hps_v2", "image_reward", "hps_v3", "distances")


def _python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _interpreter(session: nox.Session, environment: Path) -> str:
    """Of an environment to install into, which is made where there is none with pip in it."""
    python = _python_of(environment)
    # An environment whose making was ended half-way has an interpreter, and no pip.
    pip = (str(python), "-m", "pip", "--version")
    if not python.exists() or subprocess.run(pip, capture_output=True).returncode != 0:
        session.run_install("python", "-m", "venv", "--clear", str(environment), external=True)
    return str(python)


def _python(session: nox.Session, *groups: str) -> str:
    """The environment's interpreter, with the package and the named dependency groups installed.

    One resolution for all, so that the pinned torch is not replaced by a newer one; none at all
    while pyproject.toml is the one that was installed from.
    """
    python = str(_python_of(ENVIRONMENT))
    wanted = Path("pyproject.toml").read_text(encoding="utf-8")
    installed = ENVIRONMENT / f"installed-{'-'.join(groups) or 'alone'}.toml"
    if not (Path(python).exists() and _says(installed, wanted)):
        _interpreter(session, ENVIRONMENT)
        # What is installed now may replace what others were installed from, or end half-way.
        for other in ENVIRONMENT.glob("installed-*.toml"):
            if other == installed or not _says(other, wanted):
                other.unlink()
        requirements = [
            requirement
            for group in ("pinned", *groups)
            for requirement in nox.project.dependency_groups(PYPROJECT, group)
        ]
        pip = (python, "-m", "pip", "install", "--quiet", "-e", ".")
        if session.run_install(*pip, *requirements, external=True) is not None:  # not with -R
            installed.write_text(wanted, encoding="utf-8")
    return python


def _says(installed: Path, wanted: str) -> bool:
    return installed.exists() and installed.read_text(encoding="utf-8") == wanted


def _ddmd_bench(session: nox.Session, command: str) -> None:
    suite = list(session.posargs) or [DEFAULT_SUITE]
    session.run(_python(session), "-m", "ddmd_bench", command, *suite, external=True)


@nox.session(venv_backend="none")
def benchmark(session: nox.Session) -> None:
    """Run a suite and write its report: nox -s benchmark -- suites/NAME.yaml --set key=value."""
    _ddmd_bench(session, "run")


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Hold a finished run against its expected values: 0 ok, 1 drift; `check --help` has all."""
    _ddmd_bench(session, "check")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The default tests: no network, no GPU, under ten minutes on two cores."""
    # A file's tests stay together: they share what it took long to make. In the order that
    # tests/conftest.py gives them: the longest files have few tests, and would come last.
    spread = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
    python = _python(session, "tests")
    session.run(python, "-m", "pytest", *spread, *session.posargs, external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Formatting, style and types."""
    python = _python(session, "lint")
    session.run(python, "-m", "ruff", "format", "--check", ".", external=True)
    session.run(python, "-m", "ruff", "check", ".", external=True)
    session.run(python, "-m", "mypy", external=True)


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Measure, and write benchmarks/RESULTS.md: nox -s bench -- start run.

    On a machine that does nothing else; `python -m benchmarks --help` lists them.
    """
    session.run(_python(session, "tests"), "-m", "benchmarks", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def parity(session: nox.Session) -> None:
    """The vendors score, and ours is held against them: nox -s parity -- hps_v2 hps_v3.

    Takes about 15 minutes, 9 GiB of memory and 10 GB of disk; rewrites tests/golden/.
    """
    vendors = _interpreter(session, VENDORS)
    pip = (vendors, "-m", "pip", "install", "--quiet", "--no-cache-dir")
    pins = "ddmd_bench/vendors"
    session.run_install(*pip, "-r", f"{pins}/requirements.txt", external=True)
    for file in (f"{pins}/packages.txt", "parity/requirements.txt"):
        session.run_install(*pip, "--no-deps", "-r", file, external=True)
    for script in session.posargs or PARITY:
        if Path(f"parity/{script}.py").is_file():
            session.run(vendors, "-m", f"parity.{script}", env=OFFLINE_CPU, external=True)
    session.run(_python(session, "tests"), "-m", "parity.compare", external=True)


@nox.session(venv_backend="none", default=False)
def fuzz(session: nox.Session) -> None:
    """Damaged inputs through the command line, and every write failed in every way.

    nox -s fuzz -- --inputs 1000 --only suites; `python tests/fuzz.py --help` says more.
    """
    python = _python(session, "tests")
    session.run(python, "tests/fuzz.py", *session.posargs, external=True)
    session.run(python, "-m", "pytest", "-s", "--whole", "tests/test_faults.py", external=True)


@nox.session(venv_backend="none", default=False)
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what is installed: exit 0 none, 1 some, 2 no data to tell by."""
    python, auditor = _python(session), _interpreter(session, AUDIT)
    (wanted,) = nox.project.dependency_groups(PYPROJECT, "audit")
    # Without a network neither this nor what follows gets anywhere: each says why, no data come.
    pip = (auditor, "-m", "pip", "install", "--quiet", wanted)
    session.run_install(*pip, external=True, success_codes=[0, 1])
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = session.run(python, "-c", where, external=True, silent=True)
    told = session.run(
        *(auditor, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json"),
        *("--path", str(packages).strip(), *session.posargs),
        external=True, silent=True, success_codes=[0, 1], stderr=None,
    )  # fmt: skip
    try:
        rows = json.loads(str(told))["dependencies"]
    except (ValueError, KeyError, TypeError):
        rows = []
    known = [row for row in rows if "vulns" in row]
    session.log(f"{len(rows)} packages, {len(known)} known to a database of vulnerabilities")
    for row in known:
        for found in row["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            session.warn(f"{row['name']} {row['version']}: {found['id']}, mended in {mended}")
    if not known:
        session.warn("no data: no such database was reached, or it knows none of the packages")
        sys.exit(NO_DATA)
    if any(row["vulns"] for row in known):
        session.error("known vulnerabilities: take the versions that mend them")
