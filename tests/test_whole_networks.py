"""Whole networks load into what diffusers itself makes of them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lora_styles
import pytest
import tiny_lumina2
import torch
from safetensors.torch import save_file
from torch import Tensor

from ddmd_bench.backends.lumina2.backend import TRANSFORMER
from ddmd_bench.backends.stable_diffusion.formats import UNET, guidance_embedding
from ddmd_bench.backends.weights import read_shapes, read_weights
from ddmd_bench.backends.whole_networks import load_whole
from ddmd_bench.errors import BenchError
from tests.tiny_sdxl import make_pipeline
from tests.tiny_students import (
    lcm_unet,
    student_state,
    write_bin,
    write_folder,
    write_safetensors,
)


@pytest.fixture(scope="module")
def base() -> Any:
    return make_pipeline().unet.eval()


WRITERS = {"unet_fp16.bin": write_bin, "unet.safetensors": write_safetensors}


def load(base: Any, place: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A student of the base's architecture: of the base, only the configuration is read."""
    return load_whole(UNET, dict(base.config), place, dtype).eval()


def output(unet: Any, timestep_cond: Tensor | None = None) -> Tensor:
    """A prediction [2, 4, 8, 8] for inputs that are always the same."""
    generator = torch.Generator().manual_seed(5)
    x, context, pooled = (
        torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 7, 64), (2, 32))
    )
    ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    added = {"text_embeds": pooled, "time_ids": ids}
    with torch.no_grad():
        result: Tensor = unet(
            x, 499, context, added_cond_kwargs=added, timestep_cond=timestep_cond, return_dict=False
        )[0]
    return result


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", WRITERS)
def test_a_state_dict_is_what_diffusers_loads(base: Any, tmp_path: Path, name: str) -> None:
    WRITERS[name](base, tmp_path / name)
    student = load(base, tmp_path / name)
    expected = make_pipeline(seed=1).unet.eval()
    expected.load_state_dict({k: v.half().float() for k, v in student_state(base).items()})
    assert student.dtype == torch.float32  # as asked, not the file's
    assert relative(output(student), output(expected)) < 1e-6
    assert relative(output(student), output(base)) > 1e-2


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"max_shard_size": "100KB"}])
def test_a_folder_with_a_guidance_input_is_what_diffusers_loads(
    base: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    write_folder(base, tmp_path, **options)
    student = load(base, tmp_path)
    assert student.config.time_cond_proj_dim == 8
    told, otherwise = (guidance_embedding(student, w, 2) for w in (8.0, 3.0))
    expected = output(lcm_unet(base), told)
    assert relative(output(student, told), expected) < 1e-6
    assert relative(output(student, otherwise), expected) > 1e-4  # it is read


def test_the_guidance_embedding_is_the_pipelines(base: Any) -> None:
    student = lcm_unet(base, dim=256)
    expected = make_pipeline().get_guidance_scale_embedding(torch.tensor([7.0, 7.0]), 256)
    found = guidance_embedding(student, 8.0, 2)
    assert found is not None
    assert torch.equal(found, expected)
    assert guidance_embedding(base, None, 2) is None
    with pytest.raises(BenchError, match="embedded_guidance_scale"):
        guidance_embedding(student, None, 2)
    with pytest.raises(BenchError, match="no guidance input"):
        guidance_embedding(base, 8.0, 2)


def _drop(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k != "conv_in.bias"}


def _widen(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: torch.zeros(*v.shape, 2) if k == "conv_in.bias" else v for k, v in state.items()}


def _poison(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v * float("nan") if k == "conv_in.bias" else v for k, v in state.items()}


def _strange(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.diffusion_model.{k}": v for k, v in state.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop, r"0 other shapes, 1 missing, 0 not known of 212 tensors: conv_in.bias is"),
        (_widen, r"1 other shapes, 0 missing.*conv_in.bias has shape \[16, 2\], not \[16\]"),
        (_poison, "1 of .* tensors hold NaN or infinity, first 'conv_in.bias'"),
        (_strange, "is missing; model.diffusion_model"),
    ],
)
def test_another_network_is_an_error_that_names_it(
    base: Any, tmp_path: Path, spoil: Callable[..., dict[str, Tensor]], message: str
) -> None:
    save_file(spoil(student_state(base)), tmp_path / "unet.safetensors")
    with pytest.raises(BenchError, match=message):
        load(base, tmp_path / "unet.safetensors")


def test_a_folder_with_other_heads_is_an_error(base: Any, tmp_path: Path) -> None:
    write_folder(base, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"attention_head_dim": [1, 2]}))
    with pytest.raises(BenchError, match=r"1 settings differ: attention_head_dim is \[1, 2\]"):
        load(base, tmp_path)


@pytest.mark.parametrize("read", [read_weights, read_shapes])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_truncated_file_is_an_error(
    base: Any, tmp_path: Path, write: Any, read: Callable[[Path], Any]
) -> None:
    file = tmp_path / next(name for name, one in WRITERS.items() if one is write)
    write(base, file)
    whole = file.read_bytes()
    for num in (0, 100, len(whole) - 1000):
        file.write_bytes(whole[:num])
        with pytest.raises(BenchError, match=r"cut, or no .* file"):
            read(file)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_shapes_are_known_without_the_tensors(base: Any, tmp_path: Path, write: Any) -> None:
    file = tmp_path / next(name for name, one in WRITERS.items() if one is write)
    write(base, file)
    found = read_shapes(file)
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in read_weights(file).items()
    }
    assert all(value.is_meta for value in found.values())


class _Runs:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('a pickle ran code')",))


def test_a_pickle_runs_nothing(base: Any, tmp_path: Path) -> None:
    torch.save({"conv_in.bias": _Runs()}, tmp_path / "unet.bin")
    with pytest.raises(BenchError, match="that could run code"):
        load(base, tmp_path / "unet.bin")


def test_a_network_is_loaded_in_the_dtype_that_it_is_sampled_in(base: Any, tmp_path: Path) -> None:
    """As if it had been loaded in float32 and cast then."""
    write_safetensors(base, tmp_path / "unet.safetensors")
    fine = load(base, tmp_path / "unet.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        found = load(base, tmp_path / "unet.safetensors", dtype)
        assert all(
            torch.equal(value, fine.state_dict()[key].to(dtype))
            for key, value in found.state_dict().items()
        )


def test_a_transformer_is_what_diffusers_loads(tmp_path: Path) -> None:
    """Its tables of positions are no weights, and are computed for each network."""
    base = tiny_lumina2.make_pipeline().transformer
    student = tiny_lumina2.make_pipeline(seed=3).transformer.eval()
    student.save_pretrained(tmp_path / "folder")
    save_file(student.state_dict(), tmp_path / "transformer.safetensors")
    for place in (tmp_path / "folder", tmp_path / "transformer.safetensors"):
        found = load_whole(TRANSFORMER, dict(base.config), place, torch.float32)
        assert torch.equal(lora_styles.output(found), lora_styles.output(student))
    base.save_pretrained(tmp_path / "unet")
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "_class_name": "Other"}))
    with pytest.raises(BenchError, match="holds a Other, not a Lumina2Transformer2DModel"):
        load_whole(TRANSFORMER, dict(base.config), tmp_path / "unet", torch.float32)


def test_what_cannot_be_meant_is_an_error(base: Any, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such file"):
        load(base, tmp_path / "absent.safetensors")
    with pytest.raises(BenchError, match="expected a file ending in"):
        load(base, Path(__file__))
