"""Folders of files that come with the package: suites, reference statistics."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def carried_folders(name: str) -> list[Path]:
    """Where such a folder lies: beside the package in a clone, inside it in a wheel."""
    package = Path(str(resources.files("ddmd_bench")))
    return [package.parent / name, package / name]
