"""A LoRA in any style, on any layers, is what diffusers itself fuses, or an error."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_styles import (
    FAMILIES,
    STYLES,
    Tiny,
    adapted,
    config_of,
    dotted,
    kohya_keys,
    mixed_keys,
    new_keys,
    old_keys,
    output,
    pairs_of,
    peft_keys,
    relative,
    weights_apart,
    write_peft,
)
from safetensors.torch import load_file, save_file
from tiny_students import ALPHA, ATTENTION, RANK, Pairs, kohya, student_state
from torch import Tensor, nn

from ddmd_bench.backends.loras import fuse_lora, layer_names, read_lora
from ddmd_bench.backends.lumina2.backend import PUBLISHED, TRANSFORMER
from ddmd_bench.backends.stable_diffusion.backend import SD15, SDXL
from ddmd_bench.backends.stable_diffusion.formats import UNET
from ddmd_bench.errors import BenchError

FILE = "lora.safetensors"


@cache
def pipeline_of(family: str) -> Any:
    return FAMILIES[family].make_pipeline()


@pytest.fixture
def pipeline(family: str) -> Iterator[Any]:
    """A pipeline that a test may change: its network is put back."""
    made, component = pipeline_of(family), FAMILIES[family].kind.component
    before = getattr(made, component)
    setattr(made, component, copy.deepcopy(before))
    yield made
    setattr(made, component, before)


def fused(tiny: Tiny, network: Any, place: Path, scale: float = 1.0) -> Any:
    network = copy.deepcopy(network)
    fuse_lora(network, tiny.kind, place, scale)
    return network


CASES = [
    (family, style, layers)
    for family, tiny in FAMILIES.items()
    for style, how in STYLES.items()
    if family in how.families
    for layers in (*tiny.layers, "all")
]


@pytest.mark.filterwarnings("ignore")  # of peft, about the networks that it wraps
@pytest.mark.parametrize(("family", "style", "layers"), CASES)
def test_a_fused_lora_is_what_diffusers_fuses(
    family: str, style: str, layers: str, pipeline: Any, tmp_path: Path
) -> None:
    tiny = FAMILIES[family]
    network = tiny.network(pipeline)
    every = tuple(name for names in tiny.layers.values() for name in names)
    pairs = pairs_of(network, tiny.layers.get(layers, every))
    assert len(pairs) > 2
    STYLES[style].write(pipeline, tiny, pairs, tmp_path)
    found, before, plain = fused(tiny, network, tmp_path, 0.7), output(network), set()
    plain |= network.state_dict().keys()
    expected = STYLES[style].read(pipeline, tiny, tmp_path, 0.7)
    assert weights_apart(found, expected) < 1e-7
    assert relative(output(found), before) > 1e-3  # it does change the network
    assert found.state_dict().keys() == plain  # and leaves it a plain one


def product(pairs: Pairs, name: str) -> Tensor:
    down, up = pairs[name]
    return torch.einsum("or...,ri...->oi...", up, down)


@pytest.mark.parametrize(
    ("family", "keys", "scaling"),
    [
        ("sdxl", mixed_keys, 1.0),
        ("lumina2", mixed_keys, 1.0),
        ("sd15", old_keys, 1.0),
        ("sdxl", kohya_keys, ALPHA / RANK),
    ],
)
def test_fusing_adds_alpha_over_rank_times_the_product(
    family: str, keys: Any, scaling: float, tmp_path: Path
) -> None:
    tiny = FAMILIES[family]
    network = tiny.network(pipeline_of(family))
    every = tuple(name for names in tiny.layers.values() for name in names)
    # A name that diffusers' converter of kohya's keys spoils.
    pairs = pairs_of(network, (*every, "add_embedding.linear_1"))
    state = keys(network, tiny.kind.component, pairs)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / FILE)
    weights = fused(tiny, network, tmp_path / FILE, 0.5).state_dict()
    for name, value in network.state_dict().items():
        layer = name.removesuffix(".weight")
        step = 0.5 * scaling * product(pairs, layer) if layer in pairs else 0.0
        assert torch.allclose(weights[name], value + step, atol=1e-6), name


def test_each_layer_has_its_own_alpha(tmp_path: Path) -> None:
    """As kohya's trainer reads its file: diffusers 0.42 gives attention the commonest alpha."""
    tiny = FAMILIES["sdxl"]
    network = tiny.network(pipeline_of("sdxl"))
    pairs = pairs_of(network, ATTENTION)
    state, scalings = kohya(pairs), {}
    for number, name in enumerate(pairs):
        state[f"lora_unet_{name.replace('.', '_')}.alpha"] = torch.tensor(1.0 + number)
        scalings[name] = (1.0 + number) / RANK
    save_file(state, tmp_path / FILE)
    changes = read_lora(network, tiny.kind, tmp_path / FILE)
    assert {name: change.scaling for name, change in changes.items()} == scalings


DRAWN = random.Random(3)
# Rank and alpha of each layer of a kohya file, by its place and name; without alpha it is the rank.
RANKS_AND_ALPHAS: dict[str, Callable[[int, str], tuple[int, float | None]]] = {
    "two ranks": lambda k, name: ((2, 8)[k % 2], 4.0),
    "random": lambda k, name: (DRAWN.randint(1, 9), DRAWN.uniform(0.5, 16)),
    "attention 1, the rest 4": lambda k, name: (4, 1.0 if "attn" in name else 4.0),
    "alpha on half": lambda k, name: (3, (None, 1.5)[k % 2]),
}


@pytest.mark.parametrize("case", RANKS_AND_ALPHAS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_its_weight_and_alpha_over_rank_of_its_own(
    family: str, case: str, tmp_path: Path
) -> None:
    tiny = FAMILIES[family]
    network = tiny.network(pipeline_of(family))
    every = tuple(name for names in tiny.layers.values() for name in names)
    state, steps = dict[str, Tensor](), dict[str, Tensor]()
    for k, name in enumerate(pairs_of(network, every)):
        rank, alpha = RANKS_AND_ALPHAS[case](k, name)
        pairs = pairs_of(network, (name,), seed=k, rank=rank)
        step = product(pairs, name).double()
        steps[name] = step * (1.0 if alpha is None else alpha / rank)
        state |= kohya(pairs)
        key = f"lora_unet_{name.replace('.', '_')}.alpha"
        del state[key]
        if alpha is not None:
            state[key] = torch.tensor(alpha)
    assert len(steps) > 20
    save_file(state, tmp_path / FILE)
    weights = fused(tiny, network, tmp_path / FILE).state_dict()
    for name, value in network.state_dict().items():
        expected = value + steps.get(name.removesuffix(".weight"), torch.zeros(()))
        assert torch.allclose(weights[name].double(), expected.double(), atol=1e-6), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_k": 3, r"attn1\.to_v": 5}},
        {"lora_bias": True},
        {"init_lora_weights": "gaussian"},
    ],
)
@pytest.mark.parametrize("family", ["sdxl"])
def test_settings_of_peft_are_obeyed(
    family: str, options: dict[str, Any], pipeline: Any, tmp_path: Path
) -> None:
    tiny = FAMILIES[family]
    network = tiny.network(pipeline)
    # Those of an attention that have a bias.
    pairs = pairs_of(network, ("to_out.0",) if "lora_bias" in options else ATTENTION)
    if "lora_bias" in options:
        model = adapted(network, pairs, config_of(pairs, **options))
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.endswith("lora_B.default.bias"):
                    value.fill_(0.3)
        model.save_lora_adapter(tmp_path)
        style = STYLES["save_lora_adapter"]
    else:
        write_peft(pipeline, tiny, pairs, tmp_path, **options)
        style = STYLES["save_pretrained"]
    found = fused(tiny, network, tmp_path)
    assert weights_apart(found, style.read(pipeline, tiny, tmp_path, 1.0)) < 1e-7


@pytest.mark.filterwarnings("ignore")  # of peft, about a second adapter
@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_loras_are_set_adapters(family: str, pipeline: Any, tmp_path: Path) -> None:
    """With scales, of which one takes away, and one in half precision."""
    tiny = FAMILIES[family]
    network, scales = tiny.network(pipeline), [0.8, -0.3, 0.5]
    places = []
    for number, layers in enumerate(("attention", "feed_forward", "attention")):
        folder = tmp_path / str(number)
        folder.mkdir()
        pairs = pairs_of(network, tiny.layers[layers], seed=number, rank=2 + number)
        state = new_keys(network, tiny.kind.component, pairs)
        state = {key: value.half() if number == 1 else value for key, value in state.items()}
        save_file(state, folder / FILE)
        places.append(folder / FILE)
    found = copy.deepcopy(network)
    for place, scale in zip(places, scales, strict=True):
        fuse_lora(found, tiny.kind, place, scale)
    for number, place in enumerate(places):
        pipeline.load_lora_weights(str(place.parent), weight_name=FILE, adapter_name=f"a{number}")
    pipeline.set_adapters(["a0", "a1", "a2"], scales)
    pipeline.fuse_lora()
    assert weights_apart(found, tiny.network(pipeline)) < 1e-7


def test_the_authors_own_names_of_lumina_are_those_of_diffusers(tmp_path: Path) -> None:
    """At its real widths, which diffusers' converter is made for; no weights are needed."""
    from diffusers import Lumina2Pipeline

    transformer = TRANSFORMER.empty({**PUBLISHED, "num_layers": 2})
    generator = torch.Generator().manual_seed(0)
    state = {}
    for block in ("noise_refiner.0", "context_refiner.1", "noise_refiner.1", "context_refiner.0",
                  "layers.0", "layers.1"):  # fmt: skip
        for name, (out, width) in {
            "attention.qkv": (3840, 2304),
            "attention.out": (2304, 2304),
            "feed_forward.w1": (9216, 2304),
            "feed_forward.w2": (2304, 9216),
            "feed_forward.w3": (9216, 2304),
            "adaLN_modulation.1": (9216, 1024),
        }.items():
            if "adaLN" in name and "context" in block:
                continue
            key = f"diffusion_model.{block}.{name}"
            state[f"{key}.lora_A.weight"] = torch.randn(1, width, generator=generator)
            state[f"{key}.lora_B.weight"] = torch.randn(out, 1, generator=generator)
    save_file(state, tmp_path / FILE)
    expected = Lumina2Pipeline.lora_state_dict(dict(state))
    found = read_lora(transformer, TRANSFORMER, tmp_path / FILE)
    assert len(expected) == 2 * len(found)
    for name, change in found.items():
        assert torch.equal(change.down, expected[f"transformer.{name}.lora_A.weight"])
        assert torch.equal(change.up, expected[f"transformer.{name}.lora_B.weight"])


@pytest.mark.parametrize(
    ("kind", "config"),
    [(UNET, SDXL.unet), (UNET, SD15.unet), (TRANSFORMER, PUBLISHED)],
    ids=["sdxl", "sd15", "lumina2"],
)
def test_no_name_means_two_layers_of_the_published_networks(kind: Any, config: Any) -> None:
    network = kind.empty(config)
    original = kind.original_names(network)
    own = [name for name, _ in network.named_modules() if name]
    assert len({name.replace(".", "_") for name in own}) == len(own)
    assert not {name.replace(".", "_") for name in original} & {n.replace(".", "_") for n in own}
    if kind is UNET:  # every layer that a LoRA may join has a name in the original code
        joined = (nn.Linear, nn.Conv2d)
        layers = {name for name, layer in network.named_modules() if isinstance(layer, joined)}
        assert layers <= {name for (name,) in original.values()}
    names = layer_names(own, kind.component, original)
    plain = [name for name in own if not name.endswith("to_out")]  # diffusers' first keys' to_out.0
    assert all(names[f"{kind.component}.{name}"] == (name,) for name in plain)


# ---- Folders and files.


def test_a_lora_may_be_a_pickled_state_dict_or_a_folder(tmp_path: Path) -> None:
    tiny = FAMILIES["sdxl"]
    network = tiny.network(pipeline_of("sdxl"))
    state = kohya(pairs_of(network, ATTENTION))
    torch.save(state, tmp_path / "lora.bin")
    expected = output(fused(tiny, network, tmp_path / "lora.bin"))
    assert torch.equal(output(fused(tiny, network, tmp_path)), expected)  # the only one
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BenchError, match=r"several files of weights: lora.bin, other.safetensors"):
        fused(tiny, network, tmp_path)
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")  # diffusers' name goes first
    assert torch.equal(output(fused(tiny, network, tmp_path)), expected)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="one file of weights; the folder holds nothing"):
        fused(tiny, network, tmp_path / "empty")
    with pytest.raises(BenchError, match="no such file"):
        fused(tiny, network, tmp_path / "absent.safetensors")


def test_half_precision_stays(tmp_path: Path) -> None:
    tiny = FAMILIES["sdxl"]
    network = copy.deepcopy(tiny.network(pipeline_of("sdxl"))).half()
    save_file(kohya(pairs_of(network, ATTENTION)), tmp_path / FILE)
    assert {p.dtype for p in fused(tiny, network, tmp_path).parameters()} == {torch.float16}
    with pytest.raises(BenchError, match=r"scale 100000000.0: .*is no longer finite"):
        fused(tiny, network, tmp_path, 1e8)


@pytest.mark.filterwarnings("ignore")
def test_settings_that_are_no_plain_lora_are_an_error(tmp_path: Path) -> None:
    tiny = FAMILIES["sdxl"]
    made = pipeline_of("sdxl")
    network = tiny.network(made)
    write_peft(made, tiny, pairs_of(network, ATTENTION), tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"use_dora": True}, "not a plain LoRA: use_dora is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"peft_type": "VBLORA"}, "peft_type is VBLORA"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is"),
        ({"invented_later": 3}, "invented_later is 3"),
        ({"r": 8}, "has rank 4, its settings say 8"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(BenchError, match=message):
            fused(tiny, network, tmp_path)
    path.unlink()
    with pytest.raises(
        BenchError, match=r"adapter_config\.json, which states alpha, is not beside"
    ):
        fused(tiny, network, tmp_path)


# ---- What does not fit.


def _for_another_model(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    return peft_keys(network, "transformer", pairs)


def _with_text_encoder(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    text = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}
    return kohya(pairs) | text


def _of_another_width(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    return peft_keys(network, "unet", {k: (a[:, :-1], b) for k, (a, b) in pairs.items()})


def _one_sided(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    return {k: v for k, v in kohya(pairs).items() if "lora_up" not in k}


def _dora(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    return kohya(pairs) | {"lora_unet_conv_in.dora_scale": torch.ones(1)}


def _both_names(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    first = next(iter(pairs))
    pair = (pairs[first][0].clone(), pairs[first][1].clone())
    return kohya(pairs) | dotted({first: pair}, "unet.", "lora.down", "lora.up")


def _of_a_norm(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    return dotted({"conv_norm_out": (torch.ones(1, 16), torch.ones(16, 1))}, "", "lora_A", "lora_B")


def _whole(network: Any, pairs: Pairs) -> dict[str, Tensor]:
    return student_state(network)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_for_another_model, r"64 faults in 64 tensors: transformer.down.*A.weight names no layer"),
        (_with_text_encoder, "change the text encoders, which all students share"),
        (_of_another_width, r"does not fit the base's UNet2DConditionModel.* for \[32, 32\]"),
        (_one_sided, "to_q has alpha, down and not both"),
        (_dora, "DoRA"),
        (_both_names, "gives .* a second down; .* a second up"),
        (_of_a_norm, "conv_norm_out is a GroupNorm"),
        (_whole, "212 faults in 212 tensors: .* names no layer"),
        (lambda network, pairs: {}, "it names no layer"),
    ],
)
def test_a_lora_that_does_not_fit_is_an_error(
    make: Callable[..., dict[str, Tensor]], message: str, tmp_path: Path
) -> None:
    tiny = FAMILIES["sdxl"]
    network = tiny.network(pipeline_of("sdxl"))
    state = make(network, pairs_of(network, ATTENTION))
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / FILE)
    with pytest.raises(BenchError, match=message):
        fused(tiny, network, tmp_path / FILE)


PARTS = ["unet.", "lora_unet_", ".lora_A.weight", ".lora.up.weight", "_lora.down.weight", ".alpha",
         "down_blocks.1", "down_blocks_1", ".attn1.to_q", "mid_block", ".processor", "conv_in",
         "base_model.model.", "diffusion_model.", "input_blocks.1.1", "x", "."]  # fmt: skip


@pytest.mark.parametrize("keys", [new_keys, old_keys, kohya_keys, peft_keys])
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_unknown_key_is_never_passed_over(
    keys: Any, tmp_path: Path, data: st.DataObject
) -> None:
    tiny = FAMILIES["sdxl"]
    network = tiny.network(pipeline_of("sdxl"))
    pairs = pairs_of(network, ("attn1.to_q", "conv1"))
    state = keys(network, "unet", pairs)
    known = st.sampled_from(list(state))
    joined = st.lists(st.sampled_from(PARTS) | known, min_size=1, max_size=4).map("".join)
    changed = st.builds(
        lambda key, place, text: key[: place % len(key)] + text + key[place % len(key) + 1 :],
        known, st.integers(0, 200), st.text(max_size=3),
    )  # fmt: skip
    extra = data.draw(st.text(min_size=1) | joined | changed)
    if extra in state or _states_alpha(extra, keys, pairs):
        return
    try:
        extra.encode()
    except UnicodeEncodeError:  # no key of a file
        return
    save_file({**state, extra: torch.ones(4, 4)}, tmp_path / FILE)
    with pytest.raises(BenchError):
        fused(tiny, network, tmp_path / FILE)


def _states_alpha(extra: str, keys: Any, pairs: Pairs) -> bool:
    """A key that would be a layer's alpha, which is no unknown one."""
    return extra.endswith(".alpha") and keys is not kohya_keys


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    """So that the styles above are the real ones: what diffusers and peft write is as stated."""
    tiny = FAMILIES["sdxl"]
    made = pipeline_of("sdxl")
    network = tiny.network(made)
    pairs = pairs_of(network, ("attn1.to_q",))
    first = next(iter(pairs))
    for style, key in {
        "save_lora_weights": f"unet.{first}.lora_A.weight",
        "save_lora_adapter": f"{first}.lora_A.weight",
        "save_pretrained": f"base_model.model.{first}.lora_A.weight",
    }.items():
        folder = tmp_path / style
        folder.mkdir()
        STYLES[style].write(made, tiny, pairs, folder)
        (file,) = folder.glob("*.safetensors")
        assert key in load_file(file)
