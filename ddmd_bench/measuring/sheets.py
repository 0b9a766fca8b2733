"""One image to score, and what scorers say of those that are answered together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ddmd_bench.measuring.encoded_prompts import EncodedPrompt
from ddmd_bench.scorers import METRICS, SCORERS, Scored

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TRUNCATED = "truncated"


class Item(NamedTuple):
    """One image to score."""

    name: str  # what an error calls it
    prompt: str
    open: Callable[[], Image]  # raises Unusable where it cannot be scored
    scorers: frozenset[str] | None = None  # that are asked; None: all
    # Images of one are compared with each other; a list may hold its text twice. "": with none.
    prompt_id: str = ""

    def asks(self, scorer: str) -> bool:
        """Whether a scorer has something to say of it."""
        return self.scorers is None or scorer in self.scorers

    @classmethod
    def in_memory(cls, name: str, prompt: str, image: Image) -> Item:
        """One that needs no opening."""
        return cls(name, prompt, lambda: image, prompt_id=prompt)


@dataclass
class Answer:
    """What one scorer says of n images, rows in the images' order; NaN where it says nothing."""

    num_images: int
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # [n] each
    features: NDArray[np.float32] | None = None  # [n, d]
    missing: dict[int, str] = field(default_factory=dict)  # why, by row
    truncated: set[int] = field(default_factory=set)  # rows whose prompt is longer than it reads
    not_asked: set[int] = field(default_factory=set)  # rows whose prompts are none of its business
    unread: set[int] = field(default_factory=set)  # rows whose files this machine did not give

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


class Prepared(NamedTuple):
    inputs: dict[str, Tensor]  # by scorer
    reasons: dict[str, str]  # why a scorer has none
    unread: bool = False  # which says nothing of the image


class Sheet:
    """One scorer's answer to a chunk in the making."""

    def __init__(self, scorer: str, chunk: Sequence[Item]) -> None:
        self.scorer = scorer
        self.prompts = [item.prompt for item in chunk]
        self.prompt_ids = [item.prompt_id for item in chunk]
        self.encoded: Mapping[str, EncodedPrompt] = {}
        self.failed: Mapping[str, str] = {}
        not_asked = {row for row, item in enumerate(chunk) if not item.asks(scorer)}
        self.answer = Answer(len(chunk), not_asked=not_asked)
        # Inputs by row: those of one shape until they fill a batch, and where a scorer compares
        # the images of a prompt, all of the prompt.
        self.waiting: dict[tuple[int, ...], dict[int, Tensor]] = defaultdict(dict)
        self.of_prompts: dict[str, dict[int, Tensor]] = defaultdict(dict)
        self.scored: list[tuple[Sequence[int], Scored]] = []

    def take(self, row: int, one: Prepared) -> dict[int, Tensor]:
        """Note an image; all inputs of its shape that wait."""
        if row in self.answer.not_asked:
            return {}
        prompt = self.prompts[row]
        if (reason := one.reasons.get(self.scorer) or self.failed.get(prompt)) is not None:
            self.answer.missing[row] = reason
            if one.unread:
                self.answer.unread.add(row)
            return {}
        if TRUNCATED in self.encoded[prompt]:
            self.answer.truncated.add(row)
        inputs = one.inputs[self.scorer]
        if SCORERS[self.scorer].prompt_columns and self.prompt_ids[row]:
            self.of_prompts[self.prompt_ids[row]][row] = inputs
        waiting = self.waiting[tuple(inputs.shape)]
        waiting[row] = inputs
        return waiting

    def note(self, found: Sequence[tuple[Sequence[int], Scored | str]]) -> None:
        """Note rows with their scores, which stay on the device, or with why they have none."""
        for rows, scored in found:
            if isinstance(scored, str):
                self.answer.missing |= dict.fromkeys(rows, scored)
            else:
                self.scored.append((rows, scored))

    def finished(self) -> Answer:
        """The answer, all of it off the device."""
        for rows, scored in self.scored:
            self.answer.put(rows, scored)
        self.answer.missing = dict(sorted(self.answer.missing.items()))
        return self.answer
