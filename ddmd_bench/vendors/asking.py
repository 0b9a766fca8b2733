"""Questions to the authors' packages, each in a process of their environment's interpreter."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import parse_json
from ddmd_bench.vendors.environment import (
    PACKAGES,
    REQUIREMENTS,
    broken,
    last_lines,
    requirements,
)

AUTHORS = Path(__file__).with_name("authors.py")
# The packages look for files on a network, and for a GPU, on which sums are others.
ALONE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}
_PIN = re.compile(r"([\w.-]+)==([\w.]+)")


def check(python: Path, jobs: Iterable[str]) -> dict[str, str]:
    """Versions of all that is installed, by name; an error where a job's packages do not import,
    or are not those that the pins name."""
    folder, jobs = python.parents[2], list(jobs)
    if not python.exists():
        raise broken(folder, f"it has no interpreter {python}")
    try:
        answers = list(_answers(python, ["check", *jobs], ""))
    except (OSError, _Ended) as error:
        raise broken(folder, str(error)) from None
    if wrong := [f"for {one['job']}: {one['broken']}" for one in answers if "broken" in one]:
        raise broken(folder, "; ".join(wrong))
    versions = {_plain(name): version for name, version in answers[-1]["versions"].items()}
    for name, wanted in pins().items():
        # 2.14.1+cu130 is a build of 2.14.1.
        if (found := versions.get(_plain(name), "none")).partition("+")[0] != wanted:
            raise broken(folder, f"{name} {wanted} is pinned, found {found}")
    return versions


def pins() -> dict[str, str]:
    """The version of each package that is pinned."""
    lines = [*requirements(REQUIREMENTS), *requirements(PACKAGES)]
    return {found[1]: found[2] for line in lines if (found := _PIN.fullmatch(line))}


def ask(python: Path, job: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a job answers (`authors.say_scores`, `authors.say_distances`), as it comes."""
    try:
        yield from _answers(python, ["ask", job], json.dumps(request))
    except (OSError, _Ended) as error:
        raise BenchError(
            f"the authors' packages for {', '.join(request['metrics'])} gave no answer: {error}"
        ) from None


class _Ended(Exception):
    """A process ended without having done what it was asked; the message says how."""


def _answers(python: Path, arguments: Sequence[str], request: str) -> Iterator[dict[str, Any]]:
    # Isolated (-I): of this process' own packages none is to be found there.
    command = [str(python), "-I", "-X", "utf8", str(AUTHORS), *arguments]
    environment = {**os.environ, **ALONE}
    with TemporaryFile() as log, TemporaryFile() as given:
        given.write(request.encode())
        given.seek(0)
        process = subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=log, env=environment
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield parse_json(line)
            if process.wait():
                log.seek(0)
                said = last_lines(log.read().decode("utf-8", "replace"))
                killed = process.returncode == -signal.SIGKILL
                memory = ", killed, as where memory runs out" if killed else ""
                raise _Ended(f"{said or 'no word'} (exit code {process.returncode}{memory})")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _plain(name: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
