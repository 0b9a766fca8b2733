"""What is fetched of a repository in diffusers' format: what loading it reads, and no more.

The repositories hold what real ones hold beside their parts: single-file checkpoints, other
precisions, ONNX, OpenVINO and Flax, a second VAE. What diffusers' own download brings from the same
Hub is what is compared with.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants, hf_api
from pydantic import ValidationError
from tiny_sdxl import make_pipeline

from ddmd_bench.backends import BACKENDS
from ddmd_bench.errors import BenchError
from ddmd_bench.hub import (
    Layout,
    Remote,
    cache,
    download,
    folder_of,
    look,
    remote_identity,
    variant_of,
)
from ddmd_bench.hub.layout import chosen
from ddmd_bench.planning.downloads import bytes_to_come, download_lines, look_at
from ddmd_bench.students.catalogue import Sampling, StudentWeights
from ddmd_bench.students.checkpoints import base_remote, load_whole_pipeline, remote_of
from ddmd_bench.suite.settings import Model
from ddmd_bench.suite.students import Checkpoint
from tests.hub_server import Hub, client_of

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
WEIGHTS = {name: "model" if "text" in name else "diffusion_pytorch_model" for name in NETWORKS}
# Read by any loader, whatever the weights.
ALWAYS = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{name}/config.json" for name in NETWORKS),
}
# Beside a pipeline's parts, on the Hub.
UNREAD = (
    "README.md",
    "sd_xl_base_1.0.safetensors",
    "sd_xl_base_1.0_0.9vae.safetensors",
    "unet/model.onnx",
    "unet/openvino_model.bin",
    "unet/openvino_model.xml",
    "unet/diffusion_flax_model.msgpack",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "text_encoder/flax_model.msgpack",
    "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "vae_decoder/model.onnx",
)
ROW = StudentWeights(
    "tiny", "pipeline", "pipeline", "tiny/sdxl", Sampling("own", 2), base="tiny/sdxl"
)


@dataclass(frozen=True)
class Saved:
    """The same pipeline as it lies in repositories: plain, as fp16 with other weights, as .bin."""

    folder: Path
    plain: Any
    fp16: Any

    def files(self, *kinds: str) -> dict[str, bytes]:
        found = {}
        for kind in kinds:
            root = self.folder / kind
            paths = [path for path in root.rglob("*") if path.is_file()]
            found |= {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("saved")
    plain, fp16 = make_pipeline(seed=0), make_pipeline(seed=1)
    plain.save_pretrained(folder / "plain")
    fp16.save_pretrained(folder / "fp16", variant="fp16")
    plain.save_pretrained(folder / "shards", max_shard_size="150KB")
    fp16.save_pretrained(folder / "fp16 shards", variant="fp16", max_shard_size="150KB")
    shutil.copytree(folder / "plain", folder / "bin")
    for name in NETWORKS:
        (folder / "bin" / name / f"{WEIGHTS[name]}.safetensors").unlink()
        stem = "pytorch_model" if "text" in name else WEIGHTS[name]
        torch.save(getattr(plain, name).state_dict(), folder / "bin" / name / f"{stem}.bin")
    return Saved(folder, plain, fp16)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # for diffusers' own download
    with client_of(Hub(), tmp_path, monkeypatch) as hub:
        monkeypatch.setattr(hf_api.api, "endpoint", hub.endpoint)  # likewise
        yield hub


def tokenizers(files: dict[str, bytes]) -> set[str]:
    return {name for name in files if name.startswith("tokenizer")}


def weights(mark: str = "", kind: str = "safetensors") -> set[str]:
    """The names of every network's weights in one file."""
    names = {n: WEIGHTS[n] for n in NETWORKS}
    if kind == "bin":
        names |= {n: "pytorch_model" for n in NETWORKS if "text" in n}
    return {f"{name}/{stem}{mark}.{kind}" for name, stem in names.items()}


def shards(files: dict[str, bytes], mark: str = "") -> set[str]:
    """Of every network that is in shards, the shards and their index; of others the one file."""
    index = f".safetensors.index{mark}.json"
    names = [name for name in files if bool(mark) == (".fp16" in name)]
    parts = {name for name in names if f"{mark}-0" in name or name.endswith(index)}
    whole = {name.split("/")[0] for name in parts}
    return parts | {name for name in weights(mark) if name.split("/")[0] not in whole}


def both(saved: Saved) -> dict[str, bytes]:
    return saved.files("plain", "fp16") | dict.fromkeys(UNREAD, b"unread")


def mixed(saved: Saved) -> dict[str, bytes]:
    """fp16 of the UNet alone, beside plain weights of all."""
    files = saved.files("plain", "fp16")
    return {n: b for n, b in files.items() if ".fp16." not in n or n.startswith("unet/")}


# What the repository holds, the variant that is asked for, what must be read of weights, and whose.
CASES: dict[str, tuple[Callable[[Saved], dict[str, bytes]], str | None, Any, str]] = {
    "plain": (both, None, lambda f: weights(), "plain"),
    "a variant": (both, "fp16", lambda f: weights(".fp16"), "fp16"),
    "the only variant": (lambda s: s.files("fp16"), None, lambda f: weights(".fp16"), "fp16"),
    "a variant of some": (
        mixed,
        "fp16",
        lambda f: (
            weights() - {"unet/diffusion_pytorch_model.safetensors"}
            | {"unet/diffusion_pytorch_model.fp16.safetensors"}
        ),
        "fp16",
    ),
    "shards": (lambda s: s.files("shards", "fp16 shards"), None, shards, "plain"),
    "shards of a variant": (
        lambda s: s.files("shards", "fp16 shards"),
        "fp16",
        lambda f: shards(f, ".fp16"),
        "fp16",
    ),
    "pickles": (lambda s: s.files("bin"), None, lambda f: weights(kind="bin"), "plain"),
    "pickles beside": (lambda s: s.files("bin", "plain"), None, lambda f: weights(), "plain"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pipeline_is_fetched_as_it_is_loaded(
    saved: Saved, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, variant, expected_weights, whose = CASES[case]
    files = make(saved)
    expected = ALWAYS | tokenizers(files) | expected_weights(files)
    hub.add("tiny/sdxl", files)
    row = replace(ROW, variant=variant)
    remote = remote_of(row)
    size = sum(len(files[name]) for name in expected)
    assert look(remote).size.total == look(remote).size.missing == size
    assert look(remote).problems == ()
    assert not Path(constants.HF_HUB_CACHE).exists()  # a look leaves nothing

    folder = download(remote)
    read = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert read == expected
    blobs = [b for b in (folder.parents[1] / "blobs").iterdir() if b.is_file()]
    assert sum(blob.stat().st_size for blob in blobs) <= size  # two tokenizers may share one
    if case != "the only variant":  # which diffusers must be told
        options = {"variant": variant, "cache_dir": tmp_path / "diffusers"}
        own = Path(DiffusionPipeline.download("tiny/sdxl", **options))
        theirs = {p.relative_to(own).as_posix() for p in own.rglob("*") if p.is_file()}
        assert read == theirs - set(UNREAD)  # it brings vae_1_0's weights too

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded, pipeline = load_whole_pipeline(row, torch.float32), getattr(saved, whose)
    assert variant_of(remote) == (None if whose == "plain" else "fp16")
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], value)


def test_a_part_and_the_rest_of_its_base_are_fetched_apart(saved: Saved, hub: Hub) -> None:
    """A student that is one part: its folder, and of the base all but that part."""
    files = saved.files("fp16") | dict.fromkeys(UNREAD, b"unread")
    hub.add("tiny/sdxl", files)
    unet = saved.files("plain")
    student = {n.replace("unet/", "Student/"): b for n, b in unet.items() if n.startswith("unet/")}
    hub.add("tiny/student", student | {"Other/diffusion_pytorch_model.safetensors": b"unread"})
    row = replace(ROW, repository="tiny/student", file="Student", component="unet")
    base = base_remote(row)
    assert base is not None
    read = {
        remote.repository: {
            p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
        }
        for remote in (remote_of(row), base)
        for folder in [download(remote)]
    }
    assert read["tiny/student"] == set(student)
    rest = ALWAYS | tokenizers(files) | weights(".fp16")
    assert read["tiny/sdxl"] == {name for name in rest if not name.startswith("unet/")}
    loaded = load_whole_pipeline(row, torch.float32)
    found = loaded.unet.state_dict()
    assert all(torch.equal(found[k], v) for k, v in saved.plain.unet.state_dict().items())
    expected = saved.fp16.vae.quant_conv.weight
    assert torch.equal(loaded.vae.quant_conv.weight, expected)


def test_a_backends_parts_are_those_of_its_variant(saved: Saved, hub: Hub) -> None:
    files = both(saved)
    hub.add("tiny/sdxl", files)
    for variant, mark in ((None, ""), ("fp16", ".fp16")):
        backend = BACKENDS["sdxl"](Model(repository="tiny/sdxl", variant=variant, resolution=64))
        for remote in backend.remotes:
            download(remote)
            assert look(remote).problems == ()
        folder = folder_of(backend.remotes[0])
        read = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert {name for name in read if mark in name or not mark} >= weights(mark)
        if variant is None:
            assert read == ALWAYS | tokenizers(files) | weights()
        else:  # beside the plain ones that are here by now
            assert read == ALWAYS | tokenizers(files) | weights() | weights(".fp16")
    hub.add("tiny/fp16", saved.files("fp16"))
    backend = BACKENDS["sdxl"](Model(repository="tiny/fp16", resolution=64))
    [problem] = look(backend.remotes[0]).problems  # its loader would not find them
    assert "no file 'unet/*model.safetensors'" in problem
    assert "give fp16 as variant" in problem


def test_sizes_are_told_before(saved: Saved, hub: Hub) -> None:
    files = both(saved)
    hub.add("tiny/sdxl", files)
    expected = ALWAYS | tokenizers(files) | weights()
    size = sum(len(files[name]) for name in expected) / 1e6
    assert download_lines([remote_of(ROW)]) == [f"tiny: tiny/sdxl@main  to download {size:.3f} MB"]
    part = Remote("tiny/sdxl", None, ("unet/*.safetensors",), "model", "a part of it")
    looks = look_at([remote_of(ROW), part])
    other = {name: data for name, data in files.items() if name.startswith("unet/")}
    more = sum(len(other[n]) for n in other if n.endswith(".safetensors") and n not in expected)
    assert bytes_to_come(looks) == round(size * 1e6) + more  # what both want, once
    download(remote_of(ROW))
    assert download_lines([remote_of(ROW)]) == ["tiny: tiny/sdxl@main  complete"]


LACKING = {
    "no such variant": (
        both,
        "bf16",
        r"no file 'unet/\*model.bf16.safetensors'; .*\. Its weights are a variant: give fp16 as",
    ),
    "a part without weights": (
        lambda s: {
            n: b
            for n, b in s.files("plain").items()
            if not n.endswith("unet/diffusion_pytorch_model.safetensors")
        },
        None,
        r"no file 'unet/\*model.safetensors'",
    ),
    "a part that is not there": (
        lambda s: {n: b for n, b in s.files("plain").items() if not n.startswith("tokenizer_2/")},
        None,
        r"no file 'tokenizer_2/\*'",
    ),
    "one file of another program": (
        lambda s: dict.fromkeys(UNREAD, b"unread"),
        None,
        r"no file 'model_index.json'; expected a pipeline in diffusers' format; it has README.md",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_loading_would_miss_is_said_before(
    saved: Saved, hub: Hub, tmp_path: Path, case: str
) -> None:
    make, variant, said = LACKING[case]
    files = make(saved)
    hub.add("tiny/sdxl", files)
    remote = remote_of(replace(ROW, variant=variant))
    assert re.search(said, "\n".join(look(remote).problems))
    assert not hub.bytes_served(".safetensors")
    own = tmp_path / "own"
    for name, data in files.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(data)
    local = replace(remote, repository=str(own))
    assert re.search(said, "\n".join(look(local).problems))
    with pytest.raises(BenchError, match=said):
        folder_of(local)


def test_two_variants_and_no_plain_weights_are_a_question(saved: Saved) -> None:
    files = saved.files("fp16")
    files |= {name.replace(".fp16.", ".bf16."): data for name, data in files.items()}
    index = json.loads(files["model_index.json"])
    found = chosen((), Layout(), sorted(files), index)
    assert found.variants == ("bf16", "fp16")
    assert "unet/*model.safetensors" in found.lacking
    assert chosen((), Layout(variant="bf16"), sorted(files), index).lacking == ()


def test_a_list_of_parts_that_is_none_is_a_fault(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved.folder / "plain", tmp_path / "own")
    (tmp_path / "own" / "model_index.json").write_text("{")
    remote = replace(remote_of(ROW), repository=str(tmp_path / "own"))
    [problem] = look(remote).problems
    assert "model_index.json is no list of a pipeline's parts (JSON)" in problem


def test_the_identity_of_a_folder_is_that_of_what_is_read(saved: Saved, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(saved.folder / "plain", own)
    remote = replace(remote_of(ROW), repository=str(own))
    before = remote_identity(remote)
    (own / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"unread")
    (own / "checkpoint.safetensors").write_bytes(b"unread")
    assert remote_identity(remote) == before
    (own / "tokenizer_2" / "more.txt").write_bytes(b"read")
    assert remote_identity(remote) != before


def test_a_cache_that_another_client_filled_is_read_without_a_listing(
    saved: Saved, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("tiny/sdxl", saved.files("shards"))
    remote = remote_of(ROW)
    folder = download(remote)
    monkeypatch.setattr(cache, "_listed_sizes", lambda remote, commit: None)
    asked = len(hub.requests)
    assert look(remote).problems == ()
    shard = next(folder.glob("unet/*-00002-of-*.safetensors"))
    shard.unlink()
    [problem] = look(remote).problems
    assert f"names {shard.name}, which is not beside it" in problem
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(BenchError, match=r"not all of it: vae/config.json"):
        folder_of(remote)
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"format": "lora", "variant": "fp16"}, "variant is of format pipeline; of a lora name"),
        ({"format": "pipeline", "file": "unet.safetensors"}, "leave file out"),
    ],
)
def test_files_are_named_as_their_format_has_them(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Checkpoint.model_validate({"repository": "a/b", "num_inference_steps": 2, **given})


def test_one_file_is_no_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    remote = remote_of(replace(ROW, repository=str(tmp_path / "model.safetensors")))
    assert look(remote).problems == (
        f"tiny: {tmp_path}/model.safetensors is no folder; expected one with model_index.json",
    )


def test_a_layout_without_networks_is_its_files_alone() -> None:
    names = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    assert chosen(("unet/*.json",), Layout(()), names, None).files == names[:1]
