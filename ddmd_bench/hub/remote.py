"""What is wanted from elsewhere: a repository, its revision, and which of its files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddmd_bench.errors import BenchError
from ddmd_bench.hub.layout import PIPELINE_INDEX, Chosen, Layout

_OWNER_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Remote:
    """Files of a repository on the Hub, or of a folder on this machine that stands in for one."""

    repository: str  # owner/name on the Hub, or a folder
    revision: str | None  # commit, branch or tag; None is the main branch; a folder has none
    files: tuple[str, ...]  # names, or patterns in which * crosses folders, as the Hub's own do
    kind: Literal["model", "dataset"]
    what: str  # for people: "SDXL's UNet"
    layout: Layout | None = None  # of networks in diffusers' format, whose files it chooses

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names and patterns of all that is wanted, as far as no listing is needed for them."""
        return (*self.files, *(self.layout.patterns if self.layout else ()))

    @property
    def commit(self) -> str | None:
        """The revision where it is a full commit hash, which can never mean anything else."""
        return self.revision if _COMMIT.fullmatch(self.revision or "") else None

    @property
    def place(self) -> str:
        """Where it is from, in words: owner/name@revision, or the folder."""
        if is_local(self.repository):
            return self.repository
        return f"{self.repository}@{(self.commit or '')[:12] or self.revision or 'main'}"


def is_local(repository: str) -> bool:
    """Whether a repository is a folder here (it exists, or starts with / ./ ../ ~).

    Anything else must be owner/name, as on the Hub.
    """
    if repository.startswith(("/", "./", "../", "~")) or repository in {".", ".."}:
        return True
    if repository and Path(repository).is_dir():
        return True
    if not _OWNER_NAME.fullmatch(repository):
        raise BenchError(
            f"repository {repository!r}: expected owner/name as on the Hub, e.g. "
            "stabilityai/stable-diffusion-xl-base-1.0, or a folder that exists or whose path "
            "starts with /, ./, ../ or ~"
        )
    return False


def lacking_sentences(remote: Remote, found: Chosen, names: Iterable[str]) -> list[str]:
    """One for each wanted file that a place does not have: names the nearest."""
    names = sorted(names)
    would_do = " or ".join(found.variants)
    sentences = []
    for file in found.lacking:
        near = difflib.get_close_matches(file, names, n=3, cutoff=0.5)
        hint = f"the nearest: {', '.join(near)}" if near else f"it has {shortened(names)}"
        if file == PIPELINE_INDEX:
            hint = f"expected a pipeline in diffusers' format; it has {shortened(names)}"
        if would_do and file.endswith(".safetensors"):
            hint += f". Its weights are a variant: give {would_do} as variant"
        sentences.append(f"{remote.what}: {remote.place} has no file {file!r}; {hint}")
    return sentences


def shortened(names: Iterable[str]) -> str:
    """At most four names, and how many more."""
    names = list(names)
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(names[:4]) or "no files at all") + rest
