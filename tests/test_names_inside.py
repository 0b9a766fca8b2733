"""No file of others, an index, a pipeline's list, a listing of the Hub, leads out of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ddmd_bench.backends.weight_files import network_files
from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.hub import Layout, Remote, folder_of, look, remote_identity
from ddmd_bench.hub.online import ask_hub

NETWORK = "diffusion_pytorch_model"
LEADING_OUT = ["../../x.safetensors", "{outside}", "unet/../../x.safetensors", "..\\x.safetensors"]


def sharded(folder: Path, shard: Any, index: str = f"{NETWORK}.safetensors.index.json") -> Path:
    """A network in one shard, whose index says where it lies."""
    folder.mkdir(parents=True)
    save_file({"a": np.zeros(3, np.float32)}, folder / f"{NETWORK}-00001-of-00001.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}))
    return folder


def outside(tmp_path: Path, shard: str) -> str:
    """What an index could reach: weights beside the repository."""
    for path in (tmp_path / "x.safetensors", tmp_path / "repository" / "x.safetensors"):
        path.parent.mkdir(exist_ok=True)
        save_file({"a": np.ones(3, np.float32)}, path)
    return shard.format(outside=tmp_path / "x.safetensors")


@pytest.mark.parametrize("shard", LEADING_OUT)
def test_an_index_of_shards(tmp_path: Path, shard: str) -> None:
    shard = outside(tmp_path, shard)
    folder = sharded(tmp_path / "repository/unet", shard)
    remote = Remote(str(tmp_path / "repository"), None, (), "model", "base", Layout(("unet",)))
    for read in (lambda: network_files(folder), lambda: folder_of(remote),
                 lambda: remote_identity(remote)):  # fmt: skip
        with pytest.raises(BenchError, match="no plain path below its folder"):
            read()
    assert any("no plain path" in problem for problem in look(remote).problems)


def test_an_index_that_is_not_read_today(tmp_path: Path) -> None:
    """Of pickles, or of a variant: which one is loaded is the loader's to choose."""
    folder = sharded(tmp_path / "repository/unet", f"{NETWORK}-00001-of-00001.safetensors")
    remote = Remote(str(tmp_path / "repository"), None, (), "model", "base", Layout(("unet",)))
    assert folder_of(remote)
    other = {"weight_map": {"a": "../../x.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(other))
    with pytest.raises(BenchError, match="no plain path below its folder"):
        folder_of(remote)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}'])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    folder = sharded(tmp_path / "unet", "x")
    (folder / f"{NETWORK}.safetensors.index.json").write_text(text)
    with pytest.raises(BenchError):
        network_files(folder)
    if "[1]" not in text:
        with pytest.raises(Unreadable):
            network_files(folder)


@pytest.mark.parametrize("part", ["../unet", "/etc", "..", "unet/../../vae", "c:unet"])
def test_the_parts_of_a_pipeline(tmp_path: Path, part: str) -> None:
    sharded(tmp_path / "repository/unet", f"{NETWORK}-00001-of-00001.safetensors")
    index = {"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]}
    path = tmp_path / "repository/model_index.json"
    path.write_text(json.dumps(index))
    remote = Remote(str(tmp_path / "repository"), None, (), "model", "base", Layout())
    assert folder_of(remote) == tmp_path / "repository"
    path.write_text(json.dumps({**index, part: ["diffusers", "UNet2DConditionModel"]}))
    with pytest.raises(BenchError, match="no plain path below its folder"):
        folder_of(remote)


@pytest.mark.parametrize(
    ("name", "commit", "sha256"),
    [
        ("../../../x.bin", "c" * 40, "a" * 64),
        ("a.bin", "../../../etc", "a" * 64),
        ("a.bin", "c" * 40, "../../../../x"),
    ],
)
def test_a_listing_of_the_hub(
    name: str, commit: str, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    file = SimpleNamespace(rfilename=name, size=3, lfs=SimpleNamespace(sha256=sha256))
    info = SimpleNamespace(siblings=[file], sha=commit, gated=False)
    monkeypatch.setattr(HfApi, "repo_info", lambda self, *args, **options: info)
    with pytest.raises(BenchError, match="no plain path below its folder"):
        ask_hub(Remote("owner/name", None, ("*.bin",), "model", "base"))
