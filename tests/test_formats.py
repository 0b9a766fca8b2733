"""Published files load into the UNet that diffusers itself makes of them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ddmd_bench.backends.stable_diffusion.formats import FORMATS, guidance_embedding, load_unet
from ddmd_bench.errors import BenchError
from tests.tiny_sdxl import make_pipeline
from tests.tiny_students import (
    ALPHA,
    ATTENTION,
    LORA_WRITERS,
    RANK,
    kohya,
    lcm_unet,
    make_pairs,
    peft,
    student_state,
    write_bin,
    write_folder,
    write_safetensors,
)


@pytest.fixture(scope="module")
def base() -> Any:
    return make_pipeline().unet.eval()


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


@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("style", LORA_WRITERS)
def test_a_fused_lora_is_what_diffusers_pipeline_fuses(
    base: Any, tmp_path: Path, style: str, scale: float
) -> None:
    before = output(base)
    file = tmp_path / "student.safetensors"
    LORA_WRITERS[style](base, file)
    student = load_unet(base, file, "lora", scale)

    pipeline = make_pipeline()
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    pipeline.fuse_lora(lora_scale=scale)
    assert relative(output(student), output(pipeline.unet)) < 1e-6
    assert relative(output(student), before) > 1e-2  # it does change the network
    assert torch.equal(output(base), before)  # and not the base


def test_fusing_adds_alpha_over_rank_times_the_product(base: Any, tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    pairs = make_pairs(base)
    save_file(kohya(pairs), file)
    student = load_unet(base, file, "lora", 0.5)
    assert student.state_dict().keys() == base.state_dict().keys()  # a plain UNet
    assert not any(p.requires_grad for p in student.parameters())
    weights, plain = dict(student.named_modules()), dict(base.named_modules())
    for name, (a, b) in pairs.items():
        change = (b.flatten(1) @ a.flatten(1)).view(plain[name].weight.shape)
        expected = plain[name].weight + 0.5 * ALPHA / RANK * change
        assert torch.allclose(weights[name].weight, expected, atol=1e-6), name


@pytest.mark.parametrize(
    ("write", "name"), [(write_bin, "unet_fp16.bin"), (write_safetensors, "unet.safetensors")]
)
def test_a_state_dict_is_what_diffusers_loads(
    base: Any, tmp_path: Path, write: Callable[[Any, Path], None], name: str
) -> None:
    write(base, tmp_path / name)
    student = load_unet(base, tmp_path / name, "unet")
    expected = make_pipeline(seed=1).unet.eval()
    expected.load_state_dict({k: v.half().float() for k, v in student_state(base).items()})
    assert student.dtype == torch.float32  # the base's, not the file's
    assert relative(output(student), output(expected)) < 1e-6
    assert relative(output(student), output(base)) > 1e-2


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"max_shard_size": "100KB"}])
def test_a_folder_with_a_guidance_input_is_what_diffusers_loads(
    base: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    write_folder(base, tmp_path, **options)
    student = load_unet(base, tmp_path, "unet")
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


def test_a_lora_may_be_a_pickled_state_dict_or_a_folder(base: Any, tmp_path: Path) -> None:
    named = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(kohya(make_pairs(base)), named)
    torch.save(kohya(make_pairs(base)), tmp_path / "lora.bin")
    expected = output(load_unet(base, named, "lora"))
    for path in (tmp_path, tmp_path / "lora.bin"):
        assert torch.equal(output(load_unet(base, path, "lora")), expected)
    named.unlink()
    with pytest.raises(BenchError, match="no such file"):
        load_unet(base, tmp_path, "lora")


def test_half_precision_stays(base: Any, tmp_path: Path) -> None:
    half = make_pipeline().unet.half()
    for write, name, format in (
        (write_bin, "unet.bin", "unet"),
        (LORA_WRITERS["kohya"], "lora.safetensors", "lora"),
    ):
        write(base, tmp_path / name)
        student = load_unet(half, tmp_path / name, format)
        assert {p.dtype for p in student.parameters()} == {torch.float16}


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
        load_unet(base, tmp_path / "unet.safetensors", "unet")


def test_a_folder_with_other_heads_is_an_error(base: Any, tmp_path: Path) -> None:
    write_folder(base, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"attention_head_dim": [1, 2]}))
    with pytest.raises(BenchError, match=r"1 settings differ: attention_head_dim is \[1, 2\]"):
        load_unet(base, tmp_path, "unet")


@pytest.mark.parametrize("name", ["unet.bin", "unet.safetensors", "lora.safetensors"])
def test_a_truncated_file_is_an_error(base: Any, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    writers = {"unet.bin": write_bin, "unet.safetensors": write_safetensors}
    writers.get(name, LORA_WRITERS["kohya"])(base, file)
    for num in (0, 100, file.stat().st_size - 1000):
        file.write_bytes(file.read_bytes()[:num] if num else b"")
        with pytest.raises(BenchError, match="damaged or cut short"):
            load_unet(base, file, name[:4])
        writers.get(name, LORA_WRITERS["kohya"])(base, file)


class _Runs:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('a pickle ran code')",))


def test_a_pickle_runs_nothing(base: Any, tmp_path: Path) -> None:
    torch.save({"conv_in.bias": _Runs()}, tmp_path / "unet.bin")
    with pytest.raises(BenchError, match="not a plain state dict"):
        load_unet(base, tmp_path / "unet.bin", "unet")


def _for_another_model(base: Any) -> dict[str, Tensor]:
    return peft({f"transformer.{k}": v for k, v in make_pairs(base).items()})


def _with_text_encoder(base: Any) -> dict[str, Tensor]:
    text = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}
    return kohya(make_pairs(base)) | text


def _of_another_width(base: Any) -> dict[str, Tensor]:
    return peft({k: (a[:, :-1], b) for k, (a, b) in make_pairs(base, ATTENTION).items()})


def _one_sided(base: Any) -> dict[str, Tensor]:
    return {k: v for k, v in peft(make_pairs(base)).items() if "lora_A" in k}


def _kohya_one_sided(base: Any) -> dict[str, Tensor]:
    return {k: v for k, v in kohya(make_pairs(base)).items() if "lora_up" not in k}


def _dora(base: Any) -> dict[str, Tensor]:
    return kohya(make_pairs(base)) | {"lora_unet_conv_in.dora_scale": torch.ones(1)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_for_another_model, r"(\d+) of \1 layers: transformer.down.* is no layer"),
        (_with_text_encoder, "change the text encoders"),
        (_of_another_width, "does not fit"),
        (_one_sided, "has one side only"),
        (_kohya_one_sided, "not a LoRA that diffusers can read"),
        (_dora, "DoRA"),
        (student_state, "not a LoRA of the UNet|does not fit"),
    ],
)
def test_a_lora_that_does_not_fit_is_an_error(
    base: Any, tmp_path: Path, make: Callable[[Any], dict[str, Tensor]], message: str
) -> None:
    state = {k: v.contiguous() for k, v in make(base).items()}
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(BenchError, match=message):
        load_unet(base, tmp_path / "lora.safetensors", "lora")


def test_what_cannot_be_meant_is_an_error(base: Any, tmp_path: Path) -> None:
    file = tmp_path / "unet.safetensors"
    write_safetensors(base, file)
    with pytest.raises(BenchError, match="Did you mean 'lora'"):
        load_unet(base, file, "loras")
    with pytest.raises(BenchError, match="no LoRA scale"):
        load_unet(base, file, "unet", 0.5)
    with pytest.raises(BenchError, match="no such file"):
        load_unet(base, tmp_path / "absent.safetensors", "unet")
    with pytest.raises(BenchError, match="expected a file ending in"):
        load_unet(base, Path(__file__), "unet")
    assert set(FORMATS) == {"unet", "lora"}
