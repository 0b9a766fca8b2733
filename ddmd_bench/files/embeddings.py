"""Prompts' embeddings on disk: each prompt is encoded once, whatever suite it stands in.

A store is a folder of one text encoder's shards, whose records name their prompts. Rows are read
when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.errors import BenchError
from ddmd_bench.files.locks import locked, locked_together
from ddmd_bench.files.records import content_key
from ddmd_bench.files.shards import open_shard, verify_shards, whole_shards, write_shard

if TYPE_CHECKING:
    from torch import Tensor

SHARD_SIZE = 256  # prompts; 80 MB of SDXL's embeddings in float16
Encode = Callable[[Sequence[str]], list[dict[str, "Tensor"]]]


class Store:
    """Embeddings by prompt; what is added is there for every later reader of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, tuple[Path, int]] = {}  # prompt -> shard and row
        self._read()

    def _read(self) -> None:
        for shard, record in whole_shards(self.folder, {"prompts": [str]}):
            self.places |= {prompt: (shard, k) for k, prompt in enumerate(record["prompts"])}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone with the folder, knowing what others have added until now."""
        with locked(self.folder):
            self._read()
            yield

    @contextmanager
    def writing_together(self) -> Iterator[None]:
        """The same, of all ranks as one."""
        with locked_together(self.folder):
            self._read()
            yield

    def missing(self, prompts: Iterable[str]) -> list[str]:
        """Those prompts, once each, that are not there yet."""
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.places]

    def add(self, prompts: Sequence[str], encode: Encode, batch_size: int) -> None:
        """Encode one shard's prompts and write it, inside `writing`."""
        tensors: dict[str, Tensor] = {}
        for start in range(0, len(prompts), batch_size):
            rows = encode(prompts[start : start + batch_size])
            for k, row in enumerate(rows, start):
                _require_finite(prompts[k], row)
                tensors |= {f"{k}.{name}": value.contiguous() for name, value in row.items()}
        record = {"prompts": list(prompts)}
        shard = write_shard(self.folder, content_key(list(prompts)), tensors, record)
        self.places |= {prompt: (shard, k) for k, prompt in enumerate(prompts)}

    def rows(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The tensors of each prompt, without a batch dimension, on the CPU."""
        if absent := self.missing(prompts):
            raise BenchError(
                f"{self.folder}: {len(absent)} prompts have no embedding, e.g. {absent[0]!r}. "
                "Delete the run's encode folder and run again"
            )
        found: dict[str, dict[str, Tensor]] = {}
        for shard in {self.places[prompt][0] for prompt in prompts}:
            with open_shard(shard) as file:
                names = [tuple(name.split(".", 1)) for name in file.keys()]  # noqa: SIM118
                for prompt in dict.fromkeys(prompts):
                    place, row = self.places[prompt]
                    if place == shard:
                        own = [name for k, name in names if k == str(row)]
                        found[prompt] = {n: file.get_tensor(f"{row}.{n}") for n in own}
        return [found[prompt] for prompt in prompts]

    def verify(self) -> None:
        """Every shard has the sha256 that was recorded when it was written."""
        verify_shards(self.folder)


def _require_finite(prompt: str, row: Mapping[str, Tensor]) -> None:
    for name, value in row.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BenchError(
                f"{name} of prompt {prompt!r} is not finite. Set model.dtype to float32 or bfloat16"
            )
