"""What benchmarks/scorers.py times, each in a process of its interpreter, which answers over pipes.

    python -m benchmarks.contenders OURS FOLDER THREADS    # then a JSON object a line

A family is loaded once, untimed; a request names one of its contenders and the images, and is
answered with the seconds that it took. What it said of the images is left in a file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Contender = Callable[[Sequence[str], Sequence[str]], Any]  # paths, prompts -> [n] or [n, d]
Family = Mapping[str, Contender]
HPS_FILE, REWARD_FILE = "HPS_v2.1_compressed.pt", "ImageReward.pt"
HPS_BATCH = 20  # of hpsv2.evaluate
CLEAN_BATCH = 32  # of cleanfid's compute_fid


class _Files(torch.utils.data.Dataset[Any]):
    """Images with what is made of their prompts, as evaluation loops of the vendors have them."""

    def __init__(self, paths: Sequence[str], read: Callable[[int], Any]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, k: int) -> Any:
        return self.read(k)


def hpsv2(folder: Path) -> Family:
    """`hpsv2.score` by image and by list, and the loop of `hpsv2.evaluate`."""
    from ddmd_bench.vendors.authors import hpsv2_network

    img_score = hpsv2_network(folder / HPS_FILE)
    import hpsv2

    model, preprocess = (img_score.model_dict[k] for k in ("model", "preprocess_val"))

    def by_image(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        scores = [
            hpsv2.score(p, t, hps_version="v2.1") for p, t in zip(paths, prompts, strict=True)
        ]
        return np.array(scores)[:, 0]

    def by_list(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        return np.array(hpsv2.score(list(paths), prompts[0], hps_version="v2.1"))

    def in_batches(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        # hpsv2.evaluation cannot be imported without what only training needs.
        tokenizer = img_score.get_tokenizer("ViT-H-14")
        files = _Files(
            paths, lambda k: (preprocess(Image.open(paths[k])), tokenizer(prompts[k])[0])
        )
        scores = []
        with torch.no_grad():
            for images, texts in torch.utils.data.DataLoader(files, HPS_BATCH):
                found = model(images, texts)
                scores += torch.diagonal(
                    found["image_features"] @ found["text_features"].T
                ).tolist()
        return np.array(scores)

    return {"by image": by_image, "by list": by_list, "in batches": in_batches}


def image_reward(folder: Path) -> Family:
    """`ImageReward.load(...).score`, and over the images of one prompt at once."""
    from ddmd_bench.vendors.authors import image_reward_package

    package, _ = image_reward_package(folder / "vocab.txt")
    config = folder / "med_config.json"
    model = package.load(str(folder / REWARD_FILE), device="cpu", med_config=str(config))

    @torch.no_grad()
    def by_image(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        return np.array([model.score(t, p) for p, t in zip(paths, prompts, strict=True)])

    @torch.no_grad()
    def by_list(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        return np.array(model.score(prompts[0], list(paths)))

    return {"by image": by_image, "by list": by_list}


def fid(folder: Path) -> Family:
    """clean-fid, torch-fidelity and torchmetrics."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchvision.transforms.functional import pil_to_tensor

    # The names of parity.inception_files, which needs our package.
    (fidelity,) = folder.glob("weights-inception-*.pth")
    clean_model = InceptionV3W(str(folder), download=False).eval()
    extractor = create_feature_extractor(
        "inception-v3-compat", ["2048"], cuda=False, feature_extractor_weights_path=str(fidelity)
    )
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(fidelity))

    def clean_fid(workers: int) -> Contender:
        def run(paths: Sequence[str], prompts: Sequence[str]) -> Any:
            return get_folder_features(
                str(Path(paths[0]).parent), clean_model, num_workers=workers, num=len(paths),
                batch_size=CLEAN_BATCH, device=torch.device("cpu"), verbose=False,
            )  # fmt: skip

        return run

    def torch_fidelity(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        with tempfile.TemporaryDirectory() as links:
            for path in paths:  # it takes a whole folder
                (Path(links) / Path(path).name).symlink_to(path)
            found = extract_featuresdict_from_input_id(
                1, extractor, input1=links, cuda=False, verbose=False
            )
        return found["2048"].numpy()

    @torch.no_grad()
    def torchmetrics(paths: Sequence[str], prompts: Sequence[str]) -> Any:
        files = _Files(paths, lambda k: pil_to_tensor(Image.open(paths[k]).convert("RGB")))
        metric.reset()
        for batch in torch.utils.data.DataLoader(files, 32, num_workers=os.cpu_count() or 1):
            metric.update(batch, real=False)
        return (metric.fake_features_sum / len(paths))[None].numpy()

    return {
        "clean-fid": clean_fid(12),  # its default
        "clean-fid, no workers": clean_fid(0),
        "torch-fidelity": torch_fidelity,
        "torchmetrics": torchmetrics,
    }


def ours(folder: Path) -> Family:
    """The pass of the score stage, on files."""
    os.environ["DDMD_BENCH_WEIGHTS"] = str(folder)
    from ddmd_bench.files.decoding import decoded
    from ddmd_bench.measuring.measure import Images, measure
    from ddmd_bench.scorers import METRICS

    def scorer(metric: str, dtype: torch.dtype = torch.float32) -> Contender:
        def run(paths: Sequence[str], prompts: Sequence[str]) -> Any:
            rows = [
                {"prompt_id": f"{k:05}", "prompt_set": "all images", "prompt": prompt,
                 "image_index": 0, "out_of_range": None}
                for k, prompt in enumerate(prompts)
            ]  # fmt: skip
            images = Images(rows, paths, lambda k: decoded(Path(paths[k])))
            measured = measure(images, [metric], "", dtype=dtype)
            extractor = METRICS[metric].extractor
            return measured.features[extractor] if extractor else measured.table[metric].to_numpy()

        return run

    return {
        "hps_v21": scorer("hps_v21"),
        "hps_v21 in bfloat16": scorer("hps_v21", torch.bfloat16),
        "image_reward": scorer("image_reward"),
        "image_reward in bfloat16": scorer("image_reward", torch.bfloat16),
        "fid": scorer("fid"),
    }


FAMILIES = {"hpsv2": hpsv2, "image_reward": image_reward, "fid": fid, "ours": ours}


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    # Vendors print, also from C: the pipe is for answers only.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contenders = FAMILIES[name](folder)
    answers.write("ready\n")
    for line in sys.stdin:
        request = json.loads(line)
        run = contenders[request["contender"]]
        start = time.perf_counter()
        values = run(request["paths"], request["prompts"])
        seconds = time.perf_counter() - start
        np.save(request["output"], values)
        answers.write(json.dumps({"seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
