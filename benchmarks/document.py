"""RESULTS.md: a section for each benchmark, which says of itself where and when it was measured."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_HEADING = re.compile(r"^## (\w+)$", re.MULTILINE)


class Sitting(NamedTuple):
    """Where and when benchmarks ran, one after the other."""

    date: str
    load: float  # before the first of them
    machine: str
    threads: int
    commit: str
    packages: Mapping[str, str | None]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"Measured {self.date} at a load of {self.load:.2f} on {self.machine}; "
            f"threads: {self.threads}; commit {self.commit}; {versions}."
        )


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else "an unnamed CPU"


def sitting(threads: int) -> Sitting:
    """Of a process that begins to measure now."""
    from ddmd_bench.files.provenance import maker

    known = maker()
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Sitting(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load=os.getloadavg()[0],
        machine=f"{_cpu_model()}, {cores} cores, {memory:.0f} GiB",
        threads=threads,
        commit=(known["commit"] or "unknown") + (" with changes" if known["dirty"] else ""),
        packages={"python": known["python"], **known["packages"]},
    )


def sections_of(text: str) -> dict[str, str]:
    """What a document has below each of its headings."""
    _, *parts = _HEADING.split(text)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def replaced(text: str, new: Mapping[str, str], preamble: str, order: Iterable[str]) -> str:
    """The document with some sections new and the others as they were, those of `order` alone."""
    known = {**sections_of(text), **new}
    sections = [f"## {name}\n\n{known[name]}" for name in order if name in known]
    return "\n\n".join([preamble, *sections]) + "\n"
