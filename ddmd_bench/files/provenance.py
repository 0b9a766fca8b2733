"""Where a number comes from: commit, sources, packages, machine, and what was computed in."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ddmd_bench.files.device import cuda_versions, device_name

PACKAGE = Path(__file__).parents[1]
_REPORTED = (
    "ddmd_bench",
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "timm",
    "rapidocr",
    "onnxruntime",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
)


@cache
def source_sha256(*patterns: str) -> str:
    """sha256 over the package's source files that match, names included.

    It is in no result's key, which versions are (`files.versions`): it says who made a result.
    """
    digest = hashlib.sha256()
    for pattern in patterns:
        paths = sorted(PACKAGE.glob(pattern))
        assert paths, f"no source matches {pattern}"
        for path in paths:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def package_version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """Of the packages that values depend on."""
    return {name: package_version(name) for name in _REPORTED}


def commit() -> str | None:
    """Of this package's own repository; an installed copy has none."""
    # It must not report a stranger's.
    own = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    return _git("rev-parse", "HEAD") if own else None


def provenance(dtype: str) -> dict[str, Any]:
    """What made a result, and the dtype that its networks computed in."""
    return {**maker(), "dtype": dtype}


@cache
def maker() -> dict[str, Any]:
    """Commit, dirty flag, sources, package versions, Python, machine: one process has one."""
    found = commit()
    dirty = _git("status", "--porcelain", "--", str(PACKAGE)) if found is not None else None
    return {
        "commit": found,
        "dirty": bool(dirty) if dirty is not None else None,
        "sources": source_sha256("**/*.py"),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "device": device_name(),
        **cuda_versions(),
    }


_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Let `peak_memory_gib` count from here: a process may have done other work before."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not on Linux, or not allowed: the peak is that of the process's life
        _CLEAR_REFS.write_text("5", encoding="ascii")


def peak_memory_gib() -> float:
    """Peak memory of the GPU where there is one, else of this process, since the last reset."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    if _STATUS.is_file():
        fields = dict(
            line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines()
        )
        return int(fields["VmHWM"].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
