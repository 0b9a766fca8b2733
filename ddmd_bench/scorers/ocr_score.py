"""How near what is read on an image comes to the texts that its prompt quotes. Loads no torch.

Flow-GRPO (Liu et al. 2025, arXiv 2505.05470) measures max(1 - edits / characters, 0) of the one
text that its prompts quote. Here a prompt may quote several, and an image may show others beside
them: each text is held against the run of words that comes nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence


def fewest_edits(text: str, words: Sequence[str]) -> int:
    """Characters to insert, delete or replace until a run of the words is the text.

    Of all runs of words beside each other, joined without spaces, the nearest one; an empty run is
    one too, so that it is len(text) at most. Sellers' algorithm (1980), whose matches begin and end
    at words here: SALE is not in SALEE.
    """
    # edits[k]: from the run that ends here to the first k characters of the text.
    empty = list(range(len(text) + 1))
    edits, best = empty, len(text)
    for word in words:
        edits = [min(pair) for pair in zip(edits, empty, strict=True)]  # a run may begin here
        for character in word:
            longer = [edits[0] + 1]
            for k, wanted in enumerate(text):
                replaced = edits[k] + (wanted != character)
                longer.append(min(replaced, edits[k + 1] + 1, longer[k] + 1))
            edits = longer
        best = min(best, edits[-1])
    return best


def accuracy(texts: Sequence[str], words: Sequence[str]) -> float:
    """1 - edits / characters over all texts, each not empty; in [0, 1], 1 where all are read."""
    edits = sum(fewest_edits(text, words) for text in texts)
    return 1 - edits / sum(map(len, texts))
