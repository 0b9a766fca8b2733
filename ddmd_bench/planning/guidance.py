"""Whether the suite's teacher has guidance for CA to amplify, as far as that is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ddmd_bench.backends import Backend
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import cache_folder, content_key, read_record, write_json
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning.part import Asked
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.suite.schema import Suite

LEAST_SHARE = 0.01  # below it a prediction is one whatever the prompt, but for rounding


def amplified(suite: Suite) -> list[str]:
    """The students that are trained with CA."""
    rows = suite.students.items()
    return [n for n, s in rows if s.method and METHODS[s.method].tau_ca is not None]


def note_share(backend: Backend, share: float) -> None:
    """Keep what was measured of a teacher, for every suite that has it."""
    with suppress(OSError):  # a home that cannot be written costs the warning, not the finding
        write_json(_kept(backend), {"prompt_share": share})


def known_share(backend: Backend) -> float | None:
    """What was measured of these weights, None where it was not or they are not on this machine."""
    try:
        return float(read_record(_kept(backend), {"prompt_share": float})["prompt_share"])
    except (OSError, BenchError):
        return None


def guidance_lines(asked: Asked) -> Iterator[str]:
    """Warnings: students with CA whose teacher has nothing for it to amplify, or has it inside."""
    if not (names := amplified(asked.suite)):
        return
    of = f"students.{', '.join(names)}"
    repository = asked.suite.model.repository
    if repository in {row.repository for row in PUBLISHED.values() if row.format != "lora"}:
        yield (
            f"{of}: their teacher {repository} is a few-step student, with guidance in its weights "
            "already: CA would add it again. Take the model that it was made of, or method dm_only"
        )
    share = known_share(asked.backend)
    if share is not None and share < LEAST_SHARE:
        yield f"{of}: {told(share)}. CA has nothing to amplify: take another teacher, or dm_only"


def told(share: float) -> str:
    """A share in words."""
    return f"with and without its prompt the teacher's predictions differ by {share:.2%}"


def _kept(backend: Backend) -> Path:
    return cache_folder() / "teachers" / f"{content_key(dict(backend.weights()))}.json"
