"""Our scorers on what a vendor was given: the same seeded weights, images and prompts."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from ddmd_bench.scorers import SCORERS, ScorerModel
from ddmd_bench.scorers.weights import OWN_FOLDER
from parity import qwen2_vl
from parity.bert import MED_CONFIG, vocabulary_text
from parity.golden import Golden, Pair
from parity.images import as_shown
from parity.weights import checkpoint, unfold

# Largest difference between a vendor's score and ours.
TOLERANCE = {"hps_v21": 1e-5, "hps_v20": 1e-5, "image_reward": 1e-4, "hps_v3": 1e-3}
BATCH = 8


def _hps_v2(golden: Golden, folder: Path) -> ScorerModel:
    (weights,) = SCORERS[golden.scorer].weights
    torch.save({"state_dict": checkpoint(unfold(golden.shapes))}, folder / weights.files[0])
    return SCORERS[golden.scorer].load(golden.scorer, "cpu", torch.float32)


def _image_reward(golden: Golden, folder: Path) -> ScorerModel:
    torch.save(checkpoint(unfold(golden.shapes)), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    (folder / "vocab.txt").write_text(vocabulary_text(golden.vocabulary), encoding="utf-8")
    return SCORERS[golden.scorer].load(golden.scorer, "cpu", torch.float32)


def _hps_v3(golden: Golden, folder: Path) -> ScorerModel:
    """The scorer's own `load` knows the published size alone; here its parts are put together."""
    from ddmd_bench.scorers.hps_v3 import HpsV3, load_tokenizer
    from ddmd_bench.scorers.hps_v3.network import load_network

    checkpoint_path, architecture = folder / "HPSv3.safetensors", qwen2_vl.architecture()
    save_file(checkpoint(unfold(golden.shapes)), checkpoint_path)
    qwen2_vl.write_files(folder)
    vocab_size = architecture["text_config"]["vocab_size"]
    tokenizer = load_tokenizer(folder / "tokenizer.json", vocab_size)
    return HpsV3(load_network(checkpoint_path, architecture, "cpu", torch.float32), tokenizer)


LOADERS: Mapping[str, Callable[[Golden, Path], ScorerModel]] = {
    "hps_v21": _hps_v2,
    "hps_v20": _hps_v2,
    "image_reward": _image_reward,
    "hps_v3": _hps_v3,
}


def load(golden: Golden, folder: Path) -> ScorerModel:
    """Our scorer with the seeded weights, written to an empty folder as they are published."""
    before = os.environ.get(OWN_FOLDER)
    os.environ[OWN_FOLDER] = str(folder)
    try:
        return LOADERS[golden.scorer](golden, folder)
    finally:
        del os.environ[OWN_FOLDER]
        if before is not None:
            os.environ[OWN_FOLDER] = before


def scores(
    golden: Golden, model: ScorerModel, pairs: Sequence[Pair], images: Mapping[str, Path]
) -> dict[Pair, float]:
    """Our score of each pair; images of one shape go through the network together."""
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    text = dict(zip(prompts, model.encode_prompts(prompts), strict=True))
    shaped = defaultdict(list)
    for pair in pairs:
        inputs = model.preprocess(as_shown(images[pair.image]))
        shaped[inputs.shape].append((pair, inputs))
    found: dict[Pair, float] = {}
    for alike in shaped.values():
        for start in range(0, len(alike), BATCH):
            batch = alike[start : start + BATCH]
            rows = [text[pair.prompt] for pair, _ in batch]
            scored = model.score_batch(torch.stack([inputs for _, inputs in batch]), rows)
            column = scored.columns[golden.scorer]
            found |= {pair: float(v) for (pair, _), v in zip(batch, column, strict=True)}
    return found
