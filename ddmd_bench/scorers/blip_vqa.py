"""BLIP fine-tuned on VQA (arXiv:2201.12086, ViT-B with CapFilt-L), through transformers.

Yes is the answer where the decoder's first token is likelier "yes" than "no". The authors rank a
list of answers by likelihood too, and of two answers of one token it is the first that decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_record
from ddmd_bench.files.tensors import read_torch
from ddmd_bench.scorers.checkpoints import FETCH
from ddmd_bench.scorers.interface import on_device
from ddmd_bench.scorers.weights import Weights, require

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BlipForQuestionAnswering, PreTrainedTokenizerFast

# What is read of preprocessor_config.json.
FORMAT = {"size": {"width": int, "height": int}, "image_mean": [float], "image_std": [float]}
MAX_TOKENS = 35  # of a question: what the authors train and evaluate with
QUESTIONS_AT_ONCE = 128  # each with its image's tokens


class BlipVqa:
    """The network, its tokenizer, and how it wants its images."""

    def __init__(
        self,
        network: BlipForQuestionAnswering,
        tokenizer: PreTrainedTokenizerFast,
        image_format: Mapping[str, Any],
    ) -> None:
        """`image_format` is the repository's preprocessor_config.json."""
        text: Any = network.config.text_config
        self.network = network
        self.tokenizer = tokenizer
        self.size = image_format["size"]["width"], image_format["size"]["height"]
        self.mean = torch.tensor(image_format["image_mean"])[:, None, None]
        self.std = torch.tensor(image_format["image_std"])[:, None, None]
        self.pad, self.decode = text.pad_token_id, text.bos_token_id
        # The authors add two tokens to BERT's: [DEC], which starts an answer, and then [ENC], which
        # starts a question; the repository's configuration names the first alone.
        self.encode = self.decode + 1
        self.yes, self.no = (_single_token(tokenizer, word) for word in ("yes", "no"))

    def preprocess(self, image: Image) -> Tensor:
        """[3, H, W], squeezed to the network's square whatever the image's own shape."""
        from PIL.Image import Resampling

        resized = np.array(image.convert("RGB").resize(self.size, Resampling.BICUBIC))
        return (torch.from_numpy(resized).permute(2, 0, 1) / 255 - self.mean) / self.std

    def encode_questions(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids [Q, L], padded at the end."""
        rows = [self.tokenizer(question)["input_ids"] for question in questions]
        cut = any(len(row) > MAX_TOKENS for row in rows)
        # The end token stays.
        rows = [row[: MAX_TOKENS - 1] + row[-1:] if len(row) > MAX_TOKENS else row for row in rows]
        ids = [torch.tensor([self.encode, *row[1:]]) for row in rows]
        padded = pad_sequence(ids, True, self.pad)
        return {"input_ids": padded} | ({"truncated": torch.tensor(True)} if cut else {})

    @torch.inference_mode()
    def says_yes(self, inputs: Tensor, asked: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """Images [B, 3, H, W], each with its own token ids [Q, L] -> bool [Q] each.

        Questions of one length are asked together, so that none is padded: the decoder of
        transformers 5.24 reads the padding of a question whatever its mask says.
        """
        device, dtype = self.network.device, self.network.dtype
        pixels = on_device(inputs, device).to(dtype)
        images = self.network.vision_model(pixels).last_hidden_state
        questions = [ids[ids != self.pad] for row in asked for ids in row["input_ids"]]
        counts = [len(row["input_ids"]) for row in asked]
        image_of = torch.arange(len(asked)).repeat_interleave(torch.tensor(counts))
        lengths = torch.tensor([len(ids) for ids in questions])
        order = lengths.argsort(stable=True)
        padded = pad_sequence([questions[k] for k in order.tolist()], True, self.pad)
        ids, image_of = on_device(padded, device), on_device(image_of[order], device)
        found = [
            self._answers(images[image_of[rows]], ids[rows, :length])
            for length, rows in _of_one_length(lengths[order])
        ]
        yes = torch.empty(len(questions), dtype=torch.bool)
        yes[order] = torch.cat(found).cpu()
        return list(yes.split(counts))

    def _answers(self, images: Tensor, ids: Tensor) -> Tensor:
        """Image tokens [N, T, d] and questions [N, L] -> bool [N]."""
        states = self.network.text_encoder(
            input_ids=ids, encoder_hidden_states=images
        ).last_hidden_state
        logits = self.network.text_decoder(
            input_ids=torch.full_like(ids[:, :1], self.decode),
            encoder_hidden_states=states,
            use_cache=False,
        ).logits[:, -1]
        yes: Tensor = logits[:, self.yes] > logits[:, self.no]
        return yes


def _of_one_length(lengths: Tensor) -> Iterator[tuple[int, slice]]:
    """Ascending lengths [Q] -> each length with its rows, a batch at a time."""
    start = 0
    for length, count in zip(
        *(x.tolist() for x in lengths.unique(return_counts=True)), strict=True
    ):
        for first in range(start, start + count, QUESTIONS_AT_ONCE):
            yield length, slice(first, min(first + QUESTIONS_AT_ONCE, start + count))
        start += count


def load(weights: Weights, device: str, dtype: torch.dtype) -> BlipVqa:
    """The model of a repository in transformers' format, every key and shape matched."""
    from transformers import PreTrainedTokenizerFast

    files = require(weights)
    network: Any = load_network(files["pytorch_model.bin"], files["config.json"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(files["tokenizer.json"]))
    image_format = read_record(files["preprocessor_config.json"], FORMAT, FETCH)
    return BlipVqa(network.to(device, dtype), tokenizer, image_format)


def load_network(path: Path, config: Path) -> BlipForQuestionAnswering:
    """The network of a configuration with a file's weights, in float32 and evaluation mode."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    stored = read_torch(path, remedy=FETCH)
    read: Any = BlipForQuestionAnswering.from_pretrained
    network, seen = read(
        None,
        config=BlipConfig.from_json_file(config),
        state_dict=stored,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # so that they are listed with the others
        output_loading_info=True,
    )
    wrong = {
        "missing": sorted(seen["missing_keys"]),
        "unexpected": sorted(seen["unexpected_keys"]),
        "of another shape": sorted(key for key, *_ in seen["mismatched_keys"]),
    }
    if any(wrong.values()):
        lists = "; ".join(f"{len(v)} {kind}: {', '.join(v[:3])}" for kind, v in wrong.items() if v)
        raise BenchError(f"{path}: not the weights of this network. {lists}. Fetch it again")
    ready: BlipForQuestionAnswering = network.requires_grad_(False).eval()
    return ready


def _single_token(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    _, *ids, _ = tokenizer(word)["input_ids"]  # between [CLS] and [SEP]
    if tokenizer.convert_ids_to_tokens(ids) != [word]:
        raise BenchError(f"BLIP-VQA's tokenizer.json has no token {word!r}. Fetch it again")
    return int(ids[0])
