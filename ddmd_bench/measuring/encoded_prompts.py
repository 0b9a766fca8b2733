"""What scorers read of prompts: each prompt is encoded once, for every student and suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.errors import said_by
from ddmd_bench.files.device import is_out_of_memory
from ddmd_bench.files.embeddings import Store
from ddmd_bench.scorers import ScorerModel

if TYPE_CHECKING:
    from torch import Tensor

EncodedPrompt = Mapping[str, "Tensor"]


class EncodedPrompts:
    """A scorer's encoded prompts: each is encoded once."""

    def __init__(self, model: ScorerModel, folder: Path | None) -> None:
        self.model = model
        self.store = Store(folder) if folder else None
        self.known: dict[str, EncodedPrompt] = {}
        self.failed: dict[str, str] = {}

    def of(self, prompts: Sequence[str]) -> tuple[Mapping[str, EncodedPrompt], Mapping[str, str]]:
        """Encoded prompts, and why others cannot be, by prompt."""
        new = [p for p in dict.fromkeys(prompts) if p not in self.known and p not in self.failed]
        if self.store is None:
            self._encode(new)
        elif new := self._not_kept(new, self.store):
            with self.store.writing():  # others may have encoded them meanwhile
                self._encode(self._not_kept(new, self.store))
        return self.known, self.failed

    def _not_kept(self, prompts: Sequence[str], store: Store) -> list[str]:
        """Those that the store does not hold; the others are known from here on."""
        missing = store.missing(prompts)
        found = [prompt for prompt in prompts if prompt not in missing]
        self.known |= zip(found, store.rows(found), strict=True)
        return missing

    def _encode(self, prompts: Sequence[str]) -> None:
        if not prompts:
            return
        try:
            rows = self.model.encode_prompts(prompts)
        except Exception as error:
            if len(prompts) == 1:
                if is_out_of_memory(error):
                    raise  # which says nothing of the prompt
                self.failed[prompts[0]] = said_by(error)
                return
            rows = None
        if rows is None:  # outside the handler: the error keeps what filled the memory alive
            half = (len(prompts) + 1) // 2
            self._encode(prompts[:half])
            self._encode(prompts[half:])
            return
        by_prompt = dict(zip(prompts, rows, strict=True))
        self.known |= by_prompt
        if self.store is not None and all(rows):
            self.store.add(prompts, lambda some: [by_prompt[p] for p in some], len(prompts))
