"""The suite's backend: the networks that teach, and that students start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddmd_bench.backends import Backend
from ddmd_bench.planning.part import Asked, Downloads, Part

# Files of the package that determine what networks compute, beside the backend's own.
MODEL_SOURCES = (
    "files/records.py",
    "files/memory.py",
    *(f"objective/{name}.py" for name in ("process", "sampler", "terms")),
    "backends/__init__.py",
    "data/images.py",
    "students/prepared.py",
)


def encoder_identity(backend: Backend) -> dict[str, str]:
    """What determines the embedding of a prompt."""
    return dict(backend.encoders.identity()) if backend.encoders is not None else {}


def network_inputs(backend_name: str, backend: Backend) -> dict[str, Any]:
    """What determines a backend's results."""
    inputs: dict[str, Any] = {
        "backend": backend_name,
        "weights": dict(backend.weights()),
        "resolution": backend.resolution,
    }
    if backend.encoders is not None:
        inputs["text"] = encoder_identity(backend)
    return inputs


def _protocol(asked: Asked) -> Mapping[str, Any]:
    return {"backend": asked.suite.backend, "resolution": asked.backend.resolution}


MODELS = Part(protocol=_protocol, downloads=lambda asked: Downloads(asked.backend.remotes))
