"""What a repository's configurations say of a model, before any weights: obeyed, or refused here.

Of a repository on the Hub that is not on this machine yet, the published model's stand in. A run
plans again when all is here, so that none starts on what was only supposed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import lcm
from typing import Any, NamedTuple

from ddmd_bench.backends.repository import INDEX, SCHEDULER, Parts, with_class
from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record
from ddmd_bench.hub import Remote, file_here, is_local
from ddmd_bench.suite.settings import Model

Config = Mapping[str, Any]
# The backend of each pipeline of diffusers; the last is an older name of Lumina2Pipeline.
PIPELINES = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionPipeline": "sd15",
    "Lumina2Pipeline": "lumina2",
    "Lumina2Text2ImgPipeline": "lumina2",
}


class Said(NamedTuple):
    """A configuration, where it stands, and whether it is the repository's own."""

    place: str
    values: Config
    own: bool


class Rule(NamedTuple):
    """A setting of one configuration that works with some values only."""

    part: str  # a key of what `configurations` gives
    key: str
    works: tuple[Any, ...]  # first what diffusers takes where a configuration is silent
    because: str  # what is wrong with others, or does for them


VAE_CLASS = Rule("vae", "_class_name", ("AutoencoderKL",), "no other kind of VAE is read")
NO_STATISTICS = tuple(
    Rule("vae", key, (None,), "diffusers' pipeline of this family does not read it")
    for key in ("latents_mean", "latents_std")
)


def configurations(
    parts: Parts,
    published: Mapping[str, Config],
    encoders: Sequence[str],
    tokenizers: Sequence[str],
) -> dict[str, Said]:
    """What the parts of a model say, by name: network, scheduler, vae, index, text encoders.

    published: by name, what stands in for what is not here.
    """

    def read(name: str, remote: Remote, file: str, *, needed: bool = True) -> Said:
        path = file_here(remote, file)
        if path is None and needed and is_local(remote.repository):
            raise BenchError(
                f"model: {remote.repository} has no {file}; expected a folder in diffusers' format"
            )
        place = f"{remote.repository}: {file}"
        if path is None:
            return Said(place, published.get(name, {}), own=False)
        return Said(place, _read(path), own=True)

    network = read("network", parts.shell, f"{parts.network}/config.json")
    index = read("index", parts.shell, INDEX)
    scheduler = read("scheduler", parts.shell, SCHEDULER)
    if scheduler.own:
        scheduler = scheduler._replace(values=with_class(scheduler.values, index.values))
    return {
        "network": network,
        "index": index,
        "scheduler": scheduler,
        "vae": read("vae", parts.vae, parts.vae_config()),
        # Whether a repository has them is the index's to say.
        **{n: read(n, parts.text, f"{n}/config.json", needed=False) for n in encoders},
        **{n: read(n, parts.text, f"{n}/tokenizer_config.json", needed=False) for n in tokenizers},
    }


def _read(path: Any) -> Config:
    try:
        config: Config = read_record(path, remedy=FETCH_AGAIN)
    except Unreadable as error:
        raise BenchError(f"model: {error}") from error
    return config


def refuse(problems: Iterable[str]) -> None:
    """One error with all that does not work, where there is anything."""
    if lines := [f"model: {problem}" for problem in problems]:
        raise BenchError("\n".join(lines))


def broken(rules: Iterable[Rule], said: Mapping[str, Said]) -> Iterator[str]:
    """A sentence for each setting that has a value that does not work."""
    for part, key, works, because in rules:
        place, values, _ = said[part]
        if (found := values.get(key, works[0])) not in works:
            known = " or ".join(json.dumps(value) for value in works)
            yield f"{place} says {key}: {json.dumps(found)}, expected {known}; {because}"


def wrong_pipeline(said: Mapping[str, Said], backend: str, parts: Iterable[str]) -> Iterator[str]:
    """A repository of another pipeline than the backend's, or one that lacks a part of it."""
    place, index, _ = said["index"]
    found = index.get("_class_name")
    if found is not None and PIPELINES.get(found) != backend:
        known = " or ".join(name for name, own in PIPELINES.items() if own == backend)
        way = (
            f"Take backend: {PIPELINES[found]}"
            if found in PIPELINES
            else "A suite draws it as a student: source: checkpoint, format: pipeline"
        )
        yield f"{place} names a {found}, and backend {backend} expects a {known}. {way}"
        return
    lacking = [name for name in parts if not any(index.get(name, (True,)) or ())]
    if lacking:
        yield f"{place} has no {', '.join(lacking)}. Take a repository that is whole"


def vae_factor(vae: Config) -> int:
    """Pixels per side of one latent."""
    blocks: Sequence[int] = vae.get("block_out_channels", (64,))
    return int(2 ** (len(blocks) - 1))


def resolution_of(model: Model, given: Model, said: Mapping[str, Said]) -> int:
    """Pixels per side: the suite's, else what the repository's network is made for."""
    size = said["network"].values.get("sample_size")
    own = given.repository is not None and said["network"].own and said["vae"].own
    if given.resolution is None and own and isinstance(size, int):
        return size * vae_factor(said["vae"].values)
    assert model.resolution is not None, "backends have a default"
    return model.resolution


def wrong_resolution(resolution: int, pixels: int, most: int | None = None) -> Iterator[str]:
    """A resolution that does not divide, or that is beyond the most pixels."""
    if resolution % pixels or (most is not None and resolution > most):
        nearest = pixels * max(1, round(resolution / pixels))
        bound = f", up to {most}" if most is not None else ""
        yield (
            f"resolution {resolution} is no multiple of {pixels} pixels{bound}. "
            f"Take {min(nearest, most or nearest)}"
        )


def least_pixels(factor: int) -> int:
    """Whole latents, and what diffusers' pipelines ask of a size, whatever the VAE."""
    return lcm(8, factor)


def unread_channels(said: Mapping[str, Said]) -> Iterator[str]:
    """A network that reads or predicts something else than the VAE's latents."""
    network, vae = said["network"], said["vae"]
    reads = network.values.get("in_channels", vae.values.get("latent_channels", 4))
    gives = network.values.get("out_channels") or reads
    latents = vae.values.get("latent_channels", 4)
    if not reads == gives == latents:
        yield (
            f"{network.place}: it reads {reads} channels and predicts {gives}, and the VAE's "
            f"latents have {latents} ({vae.place}). What reads more than latents (inpainting, "
            "editing) or predicts a variance is no teacher here; else take the VAE that the model "
            "was trained with"
        )
