"""Prompts' embeddings on disk: each prompt is encoded once, whatever suite it stands in.

A store is a folder of one text encoder's shards: a safetensors file, and a JSON file beside it,
written last, that names its prompts, size and sha256. Rows are read when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import content_key, file_sha256, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

SHARD_SIZE = 256  # prompts; 80 MB of SDXL's embeddings in float16
Encode = Callable[[Sequence[str]], list[dict[str, "Tensor"]]]


class Store:
    """Embeddings by prompt; what is added is there for every later reader of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, tuple[Path, int]] = {}  # prompt -> shard and row
        for record in sorted(folder.glob("*.json")):
            self._read(record)

    def _read(self, record: Path) -> None:
        found, shard = read_json(record), record.with_suffix(".safetensors")
        size = shard.stat().st_size if shard.is_file() else None
        if size != found["size"]:
            raise BenchError(
                f"{shard}: expected {found['size']} bytes of embeddings, found "
                f"{'no file' if size is None else f'{size} bytes'}. Delete {record} and run again"
            )
        self.places |= {prompt: (shard, k) for k, prompt in enumerate(found["prompts"])}

    def missing(self, prompts: Iterable[str]) -> list[str]:
        """Those prompts, once each, that are not there yet."""
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.places]

    def add(self, prompts: Sequence[str], encode: Encode, batch_size: int) -> None:
        """Encode one shard's prompts and write it."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for start in range(0, len(prompts), batch_size):
            rows = encode(prompts[start : start + batch_size])
            for k, row in enumerate(rows, start):
                _require_finite(prompts[k], row)
                tensors |= {f"{k}.{name}": value.contiguous() for name, value in row.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        shard = self.folder / f"{content_key(list(prompts))}.safetensors"
        temporary = shard.with_suffix(f".{os.getpid()}.tmp")  # two processes may write it at once
        save_file(tensors, temporary)
        facts = {"prompts": list(prompts), "size": temporary.stat().st_size}
        sha256 = file_sha256(temporary)
        temporary.replace(shard)
        write_json(shard.with_suffix(".json"), {**facts, "sha256": sha256})
        self.places |= {prompt: (shard, k) for k, prompt in enumerate(prompts)}

    def rows(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The tensors of each prompt, without a batch dimension, on the CPU."""
        from safetensors import safe_open

        if absent := self.missing(prompts):
            raise BenchError(
                f"{self.folder}: {len(absent)} prompts have no embedding, e.g. {absent[0]!r}. "
                "Delete the run's encode folder and run again"
            )
        found: dict[str, dict[str, Tensor]] = {}
        for shard in {self.places[prompt][0] for prompt in prompts}:
            with safe_open(shard, framework="pt") as file:
                names = [tuple(name.split(".", 1)) for name in file.keys()]  # noqa: SIM118
                for prompt in dict.fromkeys(prompts):
                    place, row = self.places[prompt]
                    if place == shard:
                        own = [name for k, name in names if k == str(row)]
                        found[prompt] = {n: file.get_tensor(f"{row}.{n}") for n in own}
        return [found[prompt] for prompt in prompts]

    def verify(self) -> None:
        """Every shard has the sha256 that was recorded when it was written."""
        for shard in sorted({shard for shard, _ in self.places.values()}):
            record = shard.with_suffix(".json")
            if (sha256 := file_sha256(shard)) != read_json(record)["sha256"]:
                raise BenchError(
                    f"{shard}: its sha256 is {sha256}, not the one that {record.name} records. "
                    f"Delete {record} and run again"
                )


def _require_finite(prompt: str, row: Mapping[str, Tensor]) -> None:
    for name, value in row.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BenchError(
                f"{name} of prompt {prompt!r} is not finite. Set model.dtype to float32 or bfloat16"
            )
