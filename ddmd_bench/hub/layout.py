"""Which files of a repository in diffusers' format its loaders read, by their names alone.

A part of a model is a folder. A network's is read as its configuration and one of the sets of
weights that may lie in it: of a precision (a *variant*) or of none, safetensors or .bin, one file
or shards with an index; everything else, tokenizers among it, is read whole. The rules are those of
diffusers 0.42 and transformers 5 for a folder: `ModelMixin.from_pretrained`,
`_get_resolved_checkpoint_files`. A .bin is read where nothing else is there, as they do, by
`torch.load(weights_only=True)`, which runs no code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

PIPELINE_INDEX = "model_index.json"  # a pipeline's parts: name -> [library, class]

# Stem, kind, in shards: in the order in which a network's library looks for them.
_FORMS = (
    ("diffusion_pytorch_model", "safetensors", True),
    ("diffusion_pytorch_model", "safetensors", False),
    ("diffusion_pytorch_model", "bin", False),
    ("model", "safetensors", False),
    ("model", "safetensors", True),
    ("pytorch_model", "bin", False),
    ("pytorch_model", "bin", True),
)
_VARIANT = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)\.([^.]+?)(?:-\d{5}-of-\d{5})?"
    r"\.(?:safetensors|bin)"
)
# Classes without weights, by words in their names.
_WITHOUT_WEIGHTS = ("Tokenizer", "Processor", "FeatureExtractor", "Scheduler")


@dataclass(frozen=True)
class Layout:
    """The networks of a repository in diffusers' format that are read, and which of their weights.

    networks: their folders, each of which must have weights of `variant`. None: the whole pipeline
    that model_index.json names, but for the parts in `without`, as `DiffusionPipeline` loads it: a
    part that lacks the variant by its plain weights; and where no variant is given and some part
    has no plain weights, by the only variant there is.
    """

    networks: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """What is wanted, in words that are there before any listing is."""
        whole = self.networks is None
        return (PIPELINE_INDEX,) if whole else tuple(f"{name}/*" for name in self.networks or ())


class Chosen(NamedTuple):
    """Of some names those that are read, and names or patterns of what is lacking among them."""

    files: list[str]  # in the order of the names
    lacking: tuple[str, ...] = ()
    variant: str | None = None  # what `from_pretrained` must be told
    variants: tuple[str, ...] = ()  # that would do, where weights are lacking


def chosen(
    files: Iterable[str],
    layout: Layout | None,
    names: Collection[str],
    index: Mapping[str, Any] | None,
) -> Chosen:
    """Of a place's names what is read: names and patterns of `files`, and what the layout says.

    index: the pipeline's model_index.json; None where it is not known.
    """
    patterns = list(files)
    if layout is None:
        return Chosen(*_fitting(patterns, names))
    if layout.networks is None:
        parts = _parts(layout, index or {})
        folders = [name for name, kind in parts.items() if _has_weights(kind)]
        patterns += [PIPELINE_INDEX, *(f"{name}/*" for name in parts if name not in folders)]
    else:
        folders = list(layout.networks)
    read, lacking = _fitting(patterns, names)
    inside = {
        folder: {name.rpartition("/")[2] for name in names if name.rpartition("/")[0] == folder}
        for folder in folders
    }
    variant, variants = _variant(layout, inside)
    may_be_plain = layout.networks is None and any(_weights(i, variant) for i in inside.values())
    for folder, there in inside.items():
        weights = _weights(there, variant) or (_weights(there, None) if may_be_plain else set())
        configs = {name for name in there if name.endswith(".json") and ".index." not in name}
        read += [f"{folder}/{name}" for name in configs | weights]
        lacking += tuple(f"{folder}/{name}" for name in _lacking(there, weights, variant))
    return Chosen([name for name in names if name in set(read)], lacking, variant, variants)


def _fitting(patterns: list[str], names: Collection[str]) -> tuple[list[str], tuple[str, ...]]:
    """The names that a pattern fits, and the patterns that fit none."""
    read = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return read, tuple(p for p in patterns if not any(fnmatchcase(name, p) for name in read))


def _parts(layout: Layout, index: Mapping[str, Any]) -> dict[str, str]:
    """The folders of a pipeline's parts, with the class of each; null is a part that it has not."""
    return {
        name: str(value[1])
        for name, value in index.items()
        if isinstance(value, list) and all(value) and name not in layout.without
    }


def _has_weights(kind: str) -> bool:
    return not any(word in kind for word in _WITHOUT_WEIGHTS)


def _variant(layout: Layout, inside: Mapping[str, set[str]]) -> tuple[str | None, tuple[str, ...]]:
    """The variant that is read, and those that each network has which lacks the given one."""
    others = [_variants(there) for there in inside.values() if not _weights(there, layout.variant)]
    would_do = tuple(sorted(set.intersection(*others))) if others else ()
    if layout.networks is None and layout.variant is None and len(would_do) == 1:
        return would_do[0], would_do
    return layout.variant, would_do


def _lacking(there: set[str], weights: set[str], variant: str | None) -> list[str]:
    """What a network's folder lacks of what is read."""
    if not there:
        return ["*"]
    mark = f".{variant}" if variant else ""
    config = [] if "config.json" in there else ["config.json"]
    return config if weights else [*config, f"*model{mark}.safetensors"]


def _weights(there: set[str], variant: str | None) -> set[str]:
    """The weights of a variant that a network's folder is read by; none where it has none."""
    mark = f".{variant}" if variant else ""
    for stem, kind, in_shards in _FORMS:
        if not in_shards and (file := f"{stem}{mark}.{kind}") in there:
            return {file}
        if in_shards and (index := f"{stem}.{kind}.index{mark}.json") in there:
            shards = f"{stem}{mark}-?????-of-?????.{kind}"
            return {index, *(name for name in there if fnmatchcase(name, shards))}
    return set()


def _variants(there: set[str]) -> set[str]:
    """The variants of which a network's folder has weights."""
    named = {match[1] for name in there if (match := _VARIANT.fullmatch(name))}
    return {variant for variant in named if _weights(there, variant)}
