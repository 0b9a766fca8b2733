"""What a plan reads of a backend's networks: looked at once without their weights, then remembered.

Looking loads diffusers, which takes longer than all else that a plan does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod

from ddmd_bench.backends import Backend
from ddmd_bench.backends.flops import Flops, flops_of
from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.provenance import package_version, source_sha256
from ddmd_bench.files.records import cache_folder, content_key, read_record, write_json

FORM = {"shapes": {...: [int]}, "prompt_values": int, "flops": {}, "lowered": int}
Shapes = Mapping[str, tuple[int, ...]]  # of a network's parameters, by name


@dataclass(frozen=True)
class Facts:
    """Of the networks of one backend."""

    shapes: Shapes  # of the denoiser's parameters
    prompt_values: int  # how many numbers the embedding of one prompt holds
    flops: Flops
    lowered: int  # of the denoiser's values, those that autocast computes with in fewer bits


def facts_of(backend: Backend) -> Facts:
    """Looked at on the meta device, or as an earlier process has found them."""
    try:
        weights = dict(backend.weights())
        text = dict(backend.encoders.identity()) if backend.encoders else {}
    except BenchError:  # not here: what stands in for them may change when they come
        return _looked_at(backend)
    key = content_key(
        [
            weights,
            text,
            backend.resolution,
            backend.latent_shape,
            source_sha256("backends/**/*.py"),
            [package_version(name) for name in ("torch", "diffusers", "transformers")],
        ]
    )
    path = cache_folder() / "networks" / f"{key}.json"
    with suppress(Unreadable, TypeError):  # none yet, or cut: look again
        known = read_record(path, FORM)
        shapes = {name: tuple(shape) for name, shape in known["shapes"].items()}
        flops = Flops(**known["flops"])
        return Facts(shapes, int(known["prompt_values"]), flops, int(known["lowered"]))
    facts = _looked_at(backend)
    with suppress(OSError):  # a home that cannot be written costs time, not results
        write_json(path, asdict(facts))
    return facts


def _looked_at(backend: Backend) -> Facts:
    from ddmd_bench.backends.mixed_precision import lowered_weights

    skeleton = backend.skeleton()
    named = skeleton.denoiser.named_parameters()
    return Facts(
        shapes={name: tuple(value.shape) for name, value in named},
        prompt_values=sum(prod(value.shape) for value in skeleton.cond.values()),
        flops=flops_of(backend),
        lowered=sum(value.numel() for value in lowered_weights(skeleton.denoiser)),
    )
