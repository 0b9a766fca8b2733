"""Where a number comes from: commit, packages, machine, and the sources that determine a stage."""

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

from ddmd_bench.files.device import device_name

PACKAGE = Path(__file__).parents[1]
_REPORTED = (
    "ddmd_bench",
    "torch",
    "diffusers",
    "peft",
    "timm",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
)


@cache
def source_sha256(*patterns: str) -> str:
    """sha256 over the package's source files that match, names included.

    It is part of a stage's key: a change of the code that determines a result makes a new result.
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
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def package_version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def provenance() -> dict[str, Any]:
    """Commit, dirty flag, package versions, Python, machine; the same within a process."""
    # An installed copy has no repository of its own, and must not report a stranger's.
    own = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    dirty = _git("status", "--porcelain", "--", str(PACKAGE)) if own else None
    return {
        "commit": _git("rev-parse", "HEAD") if own else None,
        "dirty": bool(dirty) if dirty is not None else None,
        "packages": {name: package_version(name) for name in _REPORTED},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "device": device_name(),
        "dtype": "float32",
    }


_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Let `peak_memory_gib` count from here: a process may have done other work before."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not on Linux, or not allowed: the peak is that of the process's life
        _CLEAR_REFS.write_text("5")


def peak_memory_gib() -> float:
    """Peak memory of the GPU where there is one, else of this process, since the last reset."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    if _STATUS.is_file():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
