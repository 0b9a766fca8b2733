"""DPG-Bench: which of its prompt's questions an image passes, asked of a model of `VQA`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddmd_bench.scorers import Scored
from ddmd_bench.scorers.dpg_questions import (
    CATEGORIES,
    QUESTIONS,
    DpgPrompt,
    prompt_of,
    read_questions,
)
from ddmd_bench.scorers.dpg_score import after_dependencies, count_column, share_column
from ddmd_bench.scorers.vqa import VQA, VqaModel
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from PIL.Image import Image


class DpgScorer:
    """The benchmark's questions and the model that answers them."""

    def __init__(self, metric: str, vqa: VqaModel, prompts: Mapping[str, DpgPrompt]) -> None:
        self.metric = metric
        self.vqa = vqa
        self.prompts = prompts

    def preprocess(self, image: Image) -> Tensor:
        """What the model reads of an image."""
        return self.vqa.preprocess(image)

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The questions of each prompt, with `category` [Q] and `parents` [Q, Q], child by parent.

        A prompt that is not of the benchmark is an error.
        """
        return [self._encode(prompt_of(self.prompts, text)) for text in prompts]

    def _encode(self, prompt: DpgPrompt) -> dict[str, Tensor]:
        questions = prompt.questions
        parents = torch.zeros(len(questions), len(questions), dtype=torch.bool)
        for k, question in enumerate(questions):
            parents[k, list(question.parents)] = True
        category = torch.tensor([CATEGORIES.index(question.category) for question in questions])
        encoded = self.vqa.encode_questions([question.text for question in questions])
        return {**encoded, "category": category, "parents": parents}

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Images with their prompts' questions -> the share passed, after dependencies.

        Beside it, of each category the share of yes before dependencies, and how many questions.
        """
        answers = self.vqa.says_yes(inputs, text)
        rows = [self._row(yes, asked) for yes, asked in zip(answers, text, strict=True)]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return Scored({k: torch.tensor(v, dtype=torch.float64) for k, v in columns.items()}, None)

    def _row(self, yes: Tensor, asked: Mapping[str, Tensor]) -> dict[str, float]:
        parents = [row.nonzero()[:, 0].tolist() for row in asked["parents"]]
        passed = after_dependencies(yes.tolist(), parents)
        row = {self.metric: sum(passed) / len(passed)}
        for k, category in enumerate(CATEGORIES):
            of_category = yes[asked["category"] == k]
            row[share_column(self.metric, category)] = float(of_category.double().mean())
            row[count_column(self.metric, category)] = len(of_category)
        return row


def load(name: str, device: str, dtype: torch.dtype) -> DpgScorer:
    """The scorer dpg_VQA, with the benchmark's questions and that model."""
    vqa = name.removeprefix("dpg_")
    (path,) = require(QUESTIONS).values()
    return DpgScorer(f"dpg_bench_{vqa}", VQA[vqa].load(device, dtype), read_questions(path))
