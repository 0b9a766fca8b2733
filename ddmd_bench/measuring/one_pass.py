"""Scorers side by side: each image is decoded once and handed to all of them.

    one_pass = OnePass(["hps_v21", "image_reward"])
    for answers in one_pass.over(chunks): ...

Images are decoded and preprocessed in threads while the networks run on those before.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Unusable
from ddmd_bench.files.embeddings import SHARD_SIZE, Store
from ddmd_bench.scorers import (
    METRICS,
    SCORERS,
    PromptScorer,
    Scored,
    ScorerModel,
    batch_size,
    loaded,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

EncodedPrompt = Mapping[str, "Tensor"]
TRUNCATED = "truncated"
CHUNK_SIZE = 64  # images that are decoded at once


class Item(NamedTuple):
    """One image to score."""

    name: str  # what an error calls it
    prompt: str
    open: Callable[[], Image]  # raises Unusable where it cannot be scored
    scorers: frozenset[str] | None = None  # that are asked; None: all

    @classmethod
    def in_memory(cls, name: str, prompt: str, image: Image) -> Item:
        """One that needs no opening."""
        return cls(name, prompt, lambda: image)


@dataclass
class Answer:
    """What one scorer says of n images, rows in the images' order; NaN where it says nothing."""

    num_images: int
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # [n] each
    features: NDArray[np.float32] | None = None  # [n, d]
    missing: dict[int, str] = field(default_factory=dict)  # why, by row
    truncated: set[int] = field(default_factory=set)  # rows whose prompt is longer than it reads
    not_asked: set[int] = field(default_factory=set)  # rows whose prompts are none of its business

    def put(self, rows: Sequence[int], scored: Scored) -> None:
        """Fill in some rows; a value that is not finite is missing."""
        for name, values in scored.columns.items():
            self.put_column(name, rows, values.double().numpy())
        if scored.features is not None:
            features = scored.features.float().numpy()
            if self.features is None:
                self.features = np.full((self.num_images, features.shape[1]), np.nan, np.float32)
            self.features[list(rows)] = features
            self._note("features", rows, np.isfinite(features).all(1))

    def put_column(self, name: str, rows: Sequence[int], values: ArrayLike) -> None:
        """Fill in some rows of one column, which is made where it is new."""
        column = self.columns.setdefault(name, np.full(self.num_images, np.nan))
        column[list(rows)] = values
        metric = METRICS.get(name)
        if metric is not None and metric.kind == "image" and metric.counts is None:
            self._note(name, rows, np.isfinite(column[list(rows)]))

    def _note(self, name: str, rows: Sequence[int], finite: NDArray[np.bool_]) -> None:
        for row in np.asarray(rows)[~finite]:
            self.missing[int(row)] = f"not a finite number: {name}"


class _Prepared(NamedTuple):
    inputs: dict[str, Tensor]  # by scorer
    reasons: dict[str, str]  # why a scorer has none


class OnePass:
    """Loaded scorers, with the prompts that they have encoded."""

    def __init__(
        self,
        names: Sequence[str],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        encoded_prompts: Callable[[str], Path] | None = None,
    ) -> None:
        """`encoded_prompts` says where a scorer's are kept; without it, in memory."""
        self.models = {name: loaded(name, device, dtype) for name in names}
        self.encoded_prompts = {
            name: EncodedPrompts(model, encoded_prompts(name) if encoded_prompts else None)
            for name, model in self.models.items()
        }
        self.batch_sizes = {name: batch_size(name, device) for name in names}

    def read(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Encode each scorer's prompts; those that are kept cost nothing."""
        for name, to_read in prompts.items():
            for start in range(0, len(to_read), SHARD_SIZE):
                self.encoded_prompts[name].of(to_read[start : start + SHARD_SIZE])

    def over(self, chunks: Iterable[Sequence[Item]]) -> Iterator[dict[str, Answer]]:
        """Each chunk's answers by scorer; the images of one prompt must be in one chunk."""
        threads = len(os.sched_getaffinity(0))
        waiting: deque[tuple[Sequence[Item], list[Future[_Prepared]]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for chunk in chunks:
                waiting.append((chunk, [pool.submit(self._prepared, item) for item in chunk]))
                if len(waiting) > 1:
                    yield self._answers(*waiting.popleft())
            while waiting:
                yield self._answers(*waiting.popleft())

    def _prepared(self, item: Item) -> _Prepared:
        asked = [n for n in self.models if item.scorers is None or n in item.scorers]
        if not asked:
            return _Prepared({}, {})
        try:
            image = item.open()
        except Unusable as error:
            return _Prepared({}, dict.fromkeys(asked, str(error)))
        prepared = _Prepared({}, {})
        for name in asked:
            try:
                prepared.inputs[name] = self.models[name].preprocess(image)
            except Exception as error:  # noqa: BLE001 - one image must not cost the others
                prepared.reasons[name] = _reason(error)
        return prepared

    def _answers(
        self, chunk: Sequence[Item], futures: Sequence[Future[_Prepared]]
    ) -> dict[str, Answer]:
        prepared = [future.result() for future in futures]
        prompts = [item.prompt for item in chunk]
        return {name: self._answer(name, prepared, prompts) for name in self.models}

    def _answer(self, name: str, prepared: list[_Prepared], prompts: list[str]) -> Answer:
        answer = Answer(len(prompts))
        answer.not_asked = {
            k for k, one in enumerate(prepared) if not (name in one.inputs or name in one.reasons)
        }
        encoded, failed = self.encoded_prompts[name].of(
            [prompt for k, prompt in enumerate(prompts) if k not in answer.not_asked]
        )
        inputs: dict[int, Tensor] = {}
        for k, (one, prompt) in enumerate(zip(prepared, prompts, strict=True)):
            if k in answer.not_asked:
                continue
            if (reason := one.reasons.get(name) or failed.get(prompt)) is not None:
                answer.missing[k] = reason
                continue
            inputs[k] = one.inputs[name]
            if TRUNCATED in encoded[prompt]:
                answer.truncated.add(k)
        for rows in _alike(inputs):
            start = 0
            while start < len(rows):  # the batch size may fall on the way
                batch = rows[start : start + self.batch_sizes[name]]
                self._batch(name, batch, inputs, [encoded[prompts[k]] for k in batch], answer)
                start += len(batch)
        if SCORERS[name].prompt_columns:
            self._prompt_columns(name, inputs, prompts, answer)
        return answer

    def _batch(
        self,
        name: str,
        rows: list[int],
        inputs: Mapping[int, Tensor],
        encoded: list[EncodedPrompt],
        answer: Answer,
    ) -> None:
        """Score the rows; in halves where memory runs out or the scorer throws."""
        try:
            scored = self.models[name].score_batch(torch.stack([inputs[k] for k in rows]), encoded)
        except Exception as error:  # noqa: BLE001 - one image must not cost the others
            if len(rows) == 1:
                answer.missing[rows[0]] = _reason(error)
                return
            if _is_out_of_memory(error):
                self.batch_sizes[name] = min(self.batch_sizes[name], (len(rows) + 1) // 2)
        else:
            answer.put(rows, scored)
            return
        # Outside the handler: the error keeps what filled the memory alive.
        half = (len(rows) + 1) // 2
        self._batch(name, rows[:half], inputs, encoded[:half], answer)
        self._batch(name, rows[half:], inputs, encoded[half:], answer)

    def _prompt_columns(
        self, name: str, inputs: Mapping[int, Tensor], prompts: list[str], answer: Answer
    ) -> None:
        scorer = cast(PromptScorer, self.models[name])
        for prompt in dict.fromkeys(prompts):
            of_prompt = {k: x for k, x in inputs.items() if prompts[k] == prompt}
            for rows in _alike(of_prompt):
                found = scorer.score_prompt(torch.stack([inputs[k] for k in rows]))
                for column, value in found.items():
                    answer.put_column(column, rows, value)


def _alike(inputs: Mapping[int, Tensor]) -> list[list[int]]:
    """Rows whose tensors have one shape, together."""
    found: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, tensor in inputs.items():
        found[tuple(tensor.shape)].append(row)
    return list(found.values())


def _reason(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text[:200]}"


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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
        if self.store is not None:
            found = [p for p in new if p in self.store.places]
            self.known |= zip(found, self.store.rows(found), strict=True)
            new = [p for p in new if p not in self.known]
        if new:
            self._encode(new)
        return self.known, self.failed

    def _encode(self, prompts: Sequence[str]) -> None:
        try:
            rows = self.model.encode_prompts(prompts)
        except Exception as error:  # noqa: BLE001 - one prompt must not cost the others
            if len(prompts) > 1:
                for prompt in prompts:
                    self._encode([prompt])
            else:
                self.failed[prompts[0]] = _reason(error)
            return
        by_prompt = dict(zip(prompts, rows, strict=True))
        self.known |= by_prompt
        if self.store is not None and all(rows):  # a scorer that reads no prompts keeps none
            self.store.add(prompts, lambda some: [by_prompt[p] for p in some], len(prompts))
