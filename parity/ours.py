"""Our scorers on what a vendor was given: the same seeded weights, images and prompts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from ddmd_bench.files.decoding import decoded
from ddmd_bench.measuring.one_pass import OnePass
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.scorers import SCORERS, loaded
from ddmd_bench.scorers.weights import OWN_FOLDER
from ddmd_bench.vendors.catalogue import VENDORS
from parity import qwen2_vl
from parity.bert import MED_CONFIG, vocabulary_text
from parity.golden import Golden, Pair
from parity.weights import checkpoint, unfold


def _save(state: Any, path: Path) -> None:
    """Without sums over the bytes, which take longer than writing them."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    torch.save(state, path)
    torch.serialization.set_crc32_options(before)


def _hps_v2(golden: Golden, folder: Path) -> OnePass:
    (weights,) = SCORERS[golden.scorer].weights
    _save({"state_dict": checkpoint(unfold(golden.shapes))}, folder / weights.files[0])
    return OnePass([golden.scorer])


def _image_reward(golden: Golden, folder: Path) -> OnePass:
    _save(checkpoint(unfold(golden.shapes)), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    (folder / "vocab.txt").write_text(vocabulary_text(golden.vocabulary), encoding="utf-8")
    return OnePass([golden.scorer])


def _hps_v3(golden: Golden, folder: Path) -> OnePass:
    save_file(checkpoint(unfold(golden.shapes)), folder / "HPSv3.safetensors")
    qwen2_vl.write_tokenizer(folder)
    # Of the published model the size is no part of its files.
    with patch("ddmd_bench.scorers.hps_v3.ARCHITECTURE", qwen2_vl.architecture()):
        return OnePass([golden.scorer])


LOADERS: Mapping[str, Callable[[Golden, Path], OnePass]] = {
    "hps_v21": _hps_v2,
    "hps_v20": _hps_v2,
    "image_reward": _image_reward,
    "hps_v3": _hps_v3,
}
# Largest difference between a vendor's score and ours.
TOLERANCE = {scorer: VENDORS[scorer].tolerance for scorer in LOADERS}


def load(golden: Golden, folder: Path) -> OnePass:
    """Our scorer with the seeded weights, written to an empty folder as they are published."""
    loaded.cache_clear()
    try:
        with patch.dict(os.environ, {OWN_FOLDER: str(folder)}):
            return LOADERS[golden.scorer](golden, folder)
    finally:
        loaded.cache_clear()  # no other test is to find these weights, nor the memory full of them


def scores(
    golden: Golden, one_pass: OnePass, pairs: Sequence[Pair], images: Mapping[str, Path]
) -> list[float]:
    """Our score of each pair, from its image file, in one pass."""
    items = [Item(p.image, p.prompt, partial(decoded, images[p.image])) for p in pairs]
    (answers,) = one_pass.over([items])
    answer = answers[golden.scorer]
    assert not answer.missing, answer.missing
    return [float(value) for value in answer.columns[golden.scorer]]
