"""Prompts as CLIP's byte-pair tokens, from the vocabulary that open_clip carries."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

LENGTH = 77  # with a start and an end


def tokens(prompt: str, prefix: str = "", mended: bool = True) -> tuple[Tensor, bool]:
    """Ids [77], padded with 0, and whether the prompt was cut so that its end is the last of them.

    The prefix comes before the prompt as tokens, as in DMD2's evaluation, which is the same as
    text before text. `mended` repairs broken Unicode, straightens quotes and resolves HTML
    entities, as OpenAI's and open_clip's tokenizers do; transformers' does not.
    """
    tokenizer = _tokenizer(mended)
    words = [*tokenizer.encode(prefix), *tokenizer.encode(prompt)]
    cut = len(words) > LENGTH - 2
    ids = torch.zeros(LENGTH, dtype=torch.long)
    read = [tokenizer.sot_token_id, *words[: LENGTH - 2], tokenizer.eot_token_id]
    ids[: len(read)] = torch.tensor(read)
    return ids, cut


@cache
def _tokenizer(mended: bool) -> Any:
    tokenizer = SimpleTokenizer()
    if not mended:
        tokenizer.clean_fn = lambda text: unicodedata.normalize("NFC", text).lower()
    return tokenizer
