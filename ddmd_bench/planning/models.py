"""The suite's backend: the networks that teach, and that students start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddmd_bench.backends import Backend
from ddmd_bench.files.versions import versions
from ddmd_bench.planning.part import Asked, Downloads, Part


def encoder_identity(backend: Backend) -> dict[str, str]:
    """What determines the embedding of a prompt, beside the versions of the code."""
    return dict(backend.encoders.identity()) if backend.encoders is not None else {}


def network_inputs(backend_name: str, backend: Backend, *, vae: bool = True) -> dict[str, Any]:
    """What determines a backend's results; without those that only encoder and decoder have."""
    weights = {name: value for name, value in backend.weights().items() if vae or name != "vae"}
    inputs: dict[str, Any] = {
        "backend": backend_name,
        "weights": weights,
        "resolution": backend.resolution,
    }
    if backend.encoders is not None:
        inputs["text"] = {**encoder_identity(backend), "versions": versions("encode")}
    return inputs


def _protocol(asked: Asked) -> Mapping[str, Any]:
    return {"backend": asked.suite.backend, "resolution": asked.backend.resolution}


MODELS = Part(protocol=_protocol, downloads=lambda asked: Downloads(asked.backend.remotes))
