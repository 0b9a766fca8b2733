"""Scorers side by side: each image is decoded once and handed to all of them.

    one_pass = OnePass(["hps_v21", "image_reward"])
    for answers in one_pass.over(chunks): ...

Images are decoded and preprocessed in threads while the networks run on those before, and a
network begins as soon as a batch is there.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ddmd_bench.files.decoding import Unusable
from ddmd_bench.files.device import is_out_of_memory
from ddmd_bench.files.embeddings import SHARD_SIZE
from ddmd_bench.measuring.encoded_prompts import EncodedPrompt, EncodedPrompts, reason_of
from ddmd_bench.scorers import (
    METRICS,
    SCORERS,
    PromptScorer,
    Scored,
    batch_size,
    loaded,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TRUNCATED = "truncated"
CHUNK_SIZE = 64  # images that are answered together
# Images that are preprocessed before the networks ask for them. They ask for a batch at once, so
# one of 64 lies ready while the one before is scored, and another for when files come unevenly.
# Of 1,024 px each is 3 MB for a scorer that reads all pixels, 0.6 MB for one that reads 224 px.
AHEAD = 128


class Item(NamedTuple):
    """One image to score."""

    name: str  # what an error calls it
    prompt: str
    open: Callable[[], Image]  # raises Unusable where it cannot be scored
    scorers: frozenset[str] | None = None  # that are asked; None: all

    def asks(self, scorer: str) -> bool:
        """Whether a scorer has something to say of it."""
        return self.scorers is None or scorer in self.scorers

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
        if scored.columns:  # one transfer of all
            values = torch.stack([column.double() for column in scored.columns.values()]).cpu()
            for name, column in zip(scored.columns, values.numpy(), strict=True):
                self.put_column(name, rows, column)
        if scored.features is not None:
            features = scored.features.float().cpu().numpy()
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


class _Sheet:
    """One scorer's answer to a chunk in the making."""

    def __init__(self, scorer: str, chunk: Sequence[Item]) -> None:
        self.scorer = scorer
        self.prompts = [item.prompt for item in chunk]
        self.encoded: Mapping[str, EncodedPrompt] = {}
        self.failed: Mapping[str, str] = {}
        not_asked = {row for row, item in enumerate(chunk) if not item.asks(scorer)}
        self.answer = Answer(len(chunk), not_asked=not_asked)
        # Inputs by row: those of one shape until they fill a batch, and where a scorer compares
        # the images of a prompt, all of the prompt.
        self.waiting: dict[tuple[int, ...], dict[int, Tensor]] = defaultdict(dict)
        self.of_prompts: dict[str, dict[int, Tensor]] = defaultdict(dict)
        self.scored: list[tuple[list[int], Scored]] = []

    def take(self, row: int, one: _Prepared) -> dict[int, Tensor]:
        """Note an image; all inputs of its shape that wait."""
        if row in self.answer.not_asked:
            return {}
        prompt = self.prompts[row]
        if (reason := one.reasons.get(self.scorer) or self.failed.get(prompt)) is not None:
            self.answer.missing[row] = reason
            return {}
        if TRUNCATED in self.encoded[prompt]:
            self.answer.truncated.add(row)
        inputs = one.inputs[self.scorer]
        if SCORERS[self.scorer].prompt_columns:
            self.of_prompts[prompt][row] = inputs
        waiting = self.waiting[tuple(inputs.shape)]
        waiting[row] = inputs
        return waiting


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
        # Chunks whose answers stay on the device while the next is handed over: reading one waits
        # for the GPU, which would then have no work.
        self.read_later = 0 if device == "cpu" else 1

    def let_go(self) -> None:
        """Hold no scorer any more."""
        self.models.clear()
        self.encoded_prompts.clear()

    def read(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Encode each scorer's prompts; those that are kept cost nothing."""
        for name, to_read in prompts.items():
            for start in range(0, len(to_read), SHARD_SIZE):
                self.encoded_prompts[name].of(to_read[start : start + SHARD_SIZE])

    def over(self, chunks: Iterable[Sequence[Item]]) -> Iterator[dict[str, Answer]]:
        """Each chunk's answers by scorer; the images of one prompt must be in one chunk."""
        to_answer, to_prepare = tee(chunks)
        launched: deque[list[_Sheet]] = deque()
        with closing(_ahead(self._prepared, chain.from_iterable(to_prepare))) as prepared:
            for chunk in to_answer:
                launched.append(self._launched(chunk, islice(prepared, len(chunk))))
                if len(launched) > self.read_later:
                    yield _answers(launched.popleft())
        for sheets in launched:
            yield _answers(sheets)

    def _prepared(self, item: Item) -> _Prepared:
        asked = [name for name in self.models if item.asks(name)]
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
                prepared.reasons[name] = reason_of(error)
        return prepared

    def _launched(self, chunk: Sequence[Item], prepared: Iterable[_Prepared]) -> list[_Sheet]:
        """Every scorer's sheet of a chunk, all batches handed to the networks."""
        sheets = [_Sheet(name, chunk) for name in self.models]
        for sheet in sheets:
            asked = [item.prompt for item in chunk if item.asks(sheet.scorer)]
            sheet.encoded, sheet.failed = self.encoded_prompts[sheet.scorer].of(asked)
        for row, one in enumerate(prepared):
            for sheet in sheets:
                waiting = sheet.take(row, one)
                if len(waiting) >= self.batch_sizes[sheet.scorer]:
                    self._score(sheet, waiting)
        for sheet in sheets:
            for waiting in sheet.waiting.values():
                self._score(sheet, waiting)
            if SCORERS[sheet.scorer].prompt_columns:
                self._prompt_columns(sheet)
        return sheets

    def _score(self, sheet: _Sheet, waiting: dict[int, Tensor]) -> None:
        """Score all that wait, which lets their inputs go."""
        while waiting:  # the batch size may fall on the way
            rows = list(islice(waiting, self.batch_sizes[sheet.scorer]))
            self._batch(sheet, rows, waiting)
            for row in rows:
                del waiting[row]

    def _batch(self, sheet: _Sheet, rows: list[int], inputs: Mapping[int, Tensor]) -> None:
        """Score the rows; in halves where memory runs out or the scorer throws."""
        name, encoded = sheet.scorer, [sheet.encoded[sheet.prompts[k]] for k in rows]
        try:
            scored = self.models[name].score_batch(torch.stack([inputs[k] for k in rows]), encoded)
        except Exception as error:  # noqa: BLE001 - one image must not cost the others
            if len(rows) == 1:
                sheet.answer.missing[rows[0]] = reason_of(error)
                return
            if is_out_of_memory(error):
                self.batch_sizes[name] = min(self.batch_sizes[name], (len(rows) + 1) // 2)
        else:
            sheet.scored.append((rows, scored))
            return
        # Outside the handler: the error keeps what filled the memory alive.
        half = (len(rows) + 1) // 2
        self._batch(sheet, rows[:half], inputs)
        self._batch(sheet, rows[half:], inputs)

    def _prompt_columns(self, sheet: _Sheet) -> None:
        scorer = cast(PromptScorer, self.models[sheet.scorer])
        for of_prompt in sheet.of_prompts.values():
            for alike in _alike(of_prompt):
                found = scorer.score_prompt(torch.stack([of_prompt[k] for k in alike]))
                for column, value in found.items():
                    sheet.answer.put_column(column, alike, value)
        sheet.of_prompts.clear()


def _alike(inputs: Mapping[int, Tensor]) -> list[list[int]]:
    """Rows whose tensors have one shape, together."""
    found: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, tensor in inputs.items():
        found[tuple(tensor.shape)].append(row)
    return list(found.values())


def _answers(sheets: Sequence[_Sheet]) -> dict[str, Answer]:
    """What the scorers say, off the device, by scorer."""
    for sheet in sheets:
        for rows, scored in sheet.scored:
            sheet.answer.put(rows, scored)
        sheet.answer.missing = dict(sorted(sheet.answer.missing.items()))
    return {sheet.scorer: sheet.answer for sheet in sheets}


def preprocessing_threads() -> int:
    """As many as this process may compute with."""
    return max(1, torch.get_num_threads())


def _ahead(
    prepare: Callable[[Item], _Prepared], items: Iterable[Item]
) -> Generator[_Prepared, None, None]:
    """Every item prepared, in order, up to `AHEAD` of them before they are asked for."""
    pool = ThreadPoolExecutor(preprocessing_threads())
    waiting: deque[Future[_Prepared]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
