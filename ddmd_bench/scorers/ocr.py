"""Is the text that a prompt quotes on its image? Read by PP-OCRv6 through RapidOCR, on the CPU.

The three networks (where text is, whether it stands upside down, what it says) are the ONNX files
inside the PyPI package `rapidocr`, the small ones of PaddleOCR (Apache-2.0). They read at the
package's own settings: lines of a confidence of 0.5 at least, in Latin letters with their accents,
Chinese and Japanese; neither Cyrillic, Korean nor Arabic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.ocr_score import accuracy
from ddmd_bench.scorers.pixels import levels
from ddmd_bench.scorers.quoted import quoted_texts, why_no_text, words_of
from ddmd_bench.scorers.weights import RAPIDOCR, install_extra, require

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SEPARATOR = 0  # between the characters of two texts


class OcrScorer:
    """A reader of images, held against what prompts quote."""

    def __init__(self, read: Callable[[NDArray[np.uint8]], Sequence[str]]) -> None:
        """`read` gives the lines, downwards, of an image [H, W, 3] of blue, green and red."""
        self.read = read

    def preprocess(self, image: Image) -> Tensor:
        """Levels, uint8 [H, W, 3], as they are."""
        return levels(image)

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Each prompt's `texts` as they are compared, int32 [n].

        A prompt that quotes none is an error.
        """
        return [{"texts": _encoded(prompt)} for prompt in prompts]

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Images uint8 [B, H, W, 3] -> `ocr_accuracy` in [0, 1] and `ocr_exact`, 0 or 1, [B]."""
        found = []
        for image, prompt in zip(inputs.numpy(), text, strict=True):
            lines = self.read(np.ascontiguousarray(image[..., ::-1]))
            words = [word for line in lines for word in words_of(line)]
            found.append(accuracy(_decoded(prompt["texts"]), words))
        values = torch.tensor(found, dtype=torch.float64)
        return Scored({"ocr_accuracy": values, "ocr_exact": (values == 1).double()}, None)


def _encoded(prompt: str) -> Tensor:
    if (reason := why_no_text(prompt)) is not None:
        raise BenchError(reason)
    joined = chr(SEPARATOR).join("".join(words_of(text)) for text in quoted_texts(prompt))
    return torch.tensor([ord(character) for character in joined], dtype=torch.int32)


def _decoded(texts: Tensor) -> list[str]:
    return "".join(map(chr, texts.tolist())).split(chr(SEPARATOR))


def load(name: str, device: str, dtype: torch.dtype) -> OcrScorer:
    """In float32 on the CPU, whatever is asked for, with as many threads as torch has."""
    detector, direction, recogniser = (
        str(path) for weights in SCORERS[name].weights for path in require(weights).values()
    )
    try:
        import cv2
        import onnxruntime  # noqa: F401  # which rapidocr asks for at the first image alone
        from rapidocr import RapidOCR
    except ImportError as error:
        raise BenchError(f"OCR needs the package {error.name!r}: {install_extra('ocr')}") from error
    if (found := version("rapidocr")) != RAPIDOCR:
        raise BenchError(
            f"rapidocr {found} is installed, and OCR is measured with {RAPIDOCR}: others read by "
            f"other settings. {install_extra('ocr')}"
        )
    threads = torch.get_num_threads()
    cv2.setNumThreads(threads)
    engine = RapidOCR(
        params={
            # Files that are named are read as they are; others it would look for and download.
            "Det.model_path": detector,
            "Cls.model_path": direction,
            "Rec.model_path": recogniser,
            "Global.log_level": "critical",  # it warns of every image without text
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
    return OcrScorer(lambda image: engine(image).txts or ())
