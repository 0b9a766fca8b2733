"""The suite's backend: the networks that teach, and that students start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.files.versions import versions
from ddmd_bench.hub import Remote
from ddmd_bench.planning.part import Asked, Downloads, Part


def encoder_identity(backend: Backend) -> dict[str, str]:
    """What determines the embedding of a prompt, beside the versions of the code."""
    return dict(backend.encoders.identity()) if backend.encoders is not None else {}


def network_inputs(
    backend_name: str, backend: Backend, needs_network: bool = True, *, vae: bool = True
) -> dict[str, Any]:
    """What determines a backend's results.

    needs_network: not of a student with a network of its own. vae: without it, what neither encodes
    nor decodes.
    """
    rest = backend.without_network
    weights = backend.weights() if needs_network or rest is None else rest.weights()
    inputs: dict[str, Any] = {
        "backend": backend_name,
        "weights": {name: value for name, value in weights.items() if vae or name != "vae"},
        "resolution": backend.resolution,
    }
    if backend.encoders is not None:
        inputs["text"] = {**encoder_identity(backend), "versions": versions("encode")}
    return inputs


def _protocol(asked: Asked) -> Mapping[str, Any]:
    return {"backend": asked.suite.backend, "resolution": asked.backend.resolution}


def _downloads(asked: Asked) -> Downloads:
    """Of every base, whole where a student starts from its network, else what stands around it."""
    needed = {asked.suite.model: False}
    for name in asked.bases:
        model = asked.loaded[name].model if name in asked.loaded else asked.suite.model
        needed[model] = needed.get(model, False) or asked.needs_network(name)
    found: list[Remote] = []
    for model, whole in needed.items():
        backend = BACKENDS[asked.suite.backend](model)
        rest = backend.without_network
        found += backend.remotes if whole or rest is None else rest.remotes
    return Downloads(tuple(found))


MODELS = Part(protocol=_protocol, downloads=_downloads)
