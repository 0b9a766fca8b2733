"""Students of a suite with LoRAs on top: planned, keyed, loaded; and whole ones without a base."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lora_styles import FAMILIES, new_keys, output, pairs_of, relative, weights_apart
from safetensors.torch import save_file
from tiny_lumina2 import write_repository as write_lumina2
from tiny_sd15 import write_repository as write_sd15
from tiny_sdxl import write_repository as write_sdxl
from tiny_students import ATTENTION, kohya, student_state

from ddmd_bench.backends import BACKENDS
from ddmd_bench.commands.options import raise_problems
from ddmd_bench.errors import BenchError
from ddmd_bench.planning.downloads import require_here
from ddmd_bench.planning.plan import make_plan, suite_downloads
from ddmd_bench.students.catalogue import StackedLora
from ddmd_bench.students.checkpoints import (
    inputs_of,
    load_network,
    load_whole_pipeline,
    lora_paths,
    row_of,
)
from ddmd_bench.students.pipeline_loras import fuse_into_pipeline
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.students import Student

WRITERS: dict[str, Callable[..., Path]] = {
    "sdxl": write_sdxl,
    "sd15": write_sd15,
    "lumina2": write_lumina2,
}
LORAS = {"first.safetensors": 1, "second.safetensors": 2}  # with the seed of each


@pytest.fixture(scope="module", params=WRITERS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A repository, two LoRAs and a whole network for it."""
    folder, tiny = tmp_path_factory.mktemp(request.param), FAMILIES[request.param]
    WRITERS[request.param](folder / "repository")
    network = tiny.network(tiny.make_pipeline()).eval()
    for name, seed in LORAS.items():
        pairs = pairs_of(network, ATTENTION, seed=seed)
        save_file(new_keys(network, tiny.kind.component, pairs), folder / name)
    student = copy.deepcopy(network)
    student.load_state_dict(student_state(network))
    student.save_pretrained(folder / "whole")
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    return folder, request.param, network, student


def suite_of(folder: Path, backend: str, students: dict[str, Any]) -> Suite:
    data = {
        "name": "tiny",
        "title": "Tiny",
        "backend": backend,
        "model": {"repository": str(folder / "repository"), "resolution": 64},
        "prompts": {"some": {"source": str(folder / "prompts.txt"), "num_prompts": 2}},
        "students": students,
        "baseline": next(iter(students)),
        "metrics": ["mean"],
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return load_suite(str(folder / "suite.yaml"))


def checkpoint(place: Path | str, format: str, *adapters: Any, **more: Any) -> dict[str, Any]:
    own = {"repository": str(place), "format": format, "num_inference_steps": 1, **more}
    found: dict[str, Any] = {"source": "checkpoint", "checkpoint": own}
    return found | ({"adapters": list(adapters)} if adapters else {})


def adapter(place: Path, scale: float) -> dict[str, Any]:
    return {"repository": str(place), "scale": scale}


def of_diffusers(backend: str, network: Any, folder: Path, scales: dict[str, float]) -> Any:
    """The network with LoRAs fused as `set_adapters` of diffusers weighs them."""
    tiny = FAMILIES[backend]
    pipeline = tiny.make_pipeline()
    setattr(pipeline, tiny.kind.component, copy.deepcopy(network))
    for name in scales:
        pipeline.load_lora_weights(str(folder), weight_name=name, adapter_name=name[:5])
    pipeline.set_adapters([name[:5] for name in scales], list(scales.values()))
    pipeline.fuse_lora()
    return tiny.network(pipeline)


@pytest.mark.filterwarnings("ignore")  # of peft, about a second adapter
@pytest.mark.parametrize("whole", [False, True])
def test_loras_join_a_base_or_a_whole_network_in_their_order(world: Any, whole: bool) -> None:
    folder, backend, network, student = world
    format = FAMILIES[backend].kind.component
    first, second = (folder / name for name in LORAS)
    if whole:
        row = checkpoint(folder / "whole", format, adapter(first, 0.4), adapter(second, -0.7))
    else:
        row = checkpoint(first, "lora", adapter(second, -0.7), lora_scale=0.4)
    suite = suite_of(folder, backend, {"one": row})
    found = row_of(suite.students["one"])
    assert found is not None
    loaded: Any = load_network(found, BACKENDS[backend](suite.model))
    denoiser = loaded.denoiser if backend == "lumina2" else loaded
    scales = dict(zip(LORAS, (0.4, -0.7), strict=True))
    expected = of_diffusers(backend, student if whole else network, folder, scales)
    assert weights_apart(getattr(denoiser, format), expected) < 1e-7
    assert relative(output(expected), output(student if whole else network)) > 1e-3


def keys_of(suite: Suite, folder: Path) -> list[str]:
    plan = make_plan(suite, folder / "runs", folder / "reports")
    return [task.key for task in plan.of_stage("generate")]


def test_adapters_are_part_of_the_key_and_of_what_must_be_here(world: Any) -> None:
    folder, backend, *_ = world
    first, second = (folder / name for name in LORAS)
    students = {
        "plain": checkpoint(first, "lora"),
        "other": checkpoint(first, "lora", adapter(second, 1.0)),
        "weaker": checkpoint(first, "lora", adapter(second, 0.5)),
        "swapped": checkpoint(second, "lora", adapter(first, 1.0)),
    }
    suite = suite_of(folder, backend, students)
    keys = keys_of(suite, folder)
    assert len(set(keys)) == len(students)
    kept = second.read_bytes()
    shutil.copy(first, second)
    assert [a == b for a, b in zip(keys, keys_of(suite, folder), strict=True)] == [
        True, False, False, False
    ]  # fmt: skip
    second.write_bytes(kept)
    # Moved to another folder, they are what they were.
    (folder / "moved").mkdir()
    moved = {**students["other"], "adapters": [adapter(folder / "moved" / second.name, 1.0)]}
    shutil.copy(second, folder / "moved")
    again = suite_of(folder, backend, {**students, "other": moved})
    assert keys_of(again, folder) == keys
    names = {remote.what for remote in suite_downloads(suite).remotes}
    assert {f"{first}, LoRA 1", f"{second}, LoRA 1"} <= names
    (folder / "moved" / second.name).unlink()
    with pytest.raises(BenchError, match=r"students.other: .*there is no file or folder .*moved"):
        keys_of(again, folder)


def test_a_whole_network_needs_nothing_of_its_bases(world: Any, tmp_path: Path) -> None:
    """Neither to plan, nor to load: the base's network is not on this machine."""
    folder, backend, _, student = world
    component = FAMILIES[backend].kind.component
    shutil.copytree(folder / "repository", tmp_path / "repository")
    for weights in (tmp_path / "repository" / component).glob("*.safetensors"):
        weights.unlink()
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    whole = checkpoint(folder / "whole", component)
    suite = suite_of(tmp_path, backend, {"one": whole})
    require_here(suite_downloads(suite))
    assert len(keys_of(suite, tmp_path)) == 1
    row = row_of(suite.students["one"])
    assert row is not None
    loaded: Any = load_network(row, BACKENDS[backend](suite.model))
    denoiser = loaded.denoiser if backend == "lumina2" else loaded
    assert torch.equal(output(getattr(denoiser, component)), output(student))
    # A LoRA is nothing without it, nor is a training.
    lora = checkpoint(folder / "first.safetensors", "lora")
    for needs in ({"two": lora}, {"two": {"method": "dmd"}}):
        with pytest.raises(BenchError, match=rf"{component}: .*is not on this machine|has no file"):
            require_here(suite_downloads(suite_of(tmp_path, backend, {"one": whole, **needs})))


# ---- What is wrong is found in `plan`.


def refused(world: Any, row: dict[str, Any], message: str) -> None:
    folder, backend, *_ = world
    with pytest.raises(BenchError, match=message):
        refuse_unfit(suite_of(folder, backend, {"one": row}), folder)


def refuse_unfit(suite: Suite, folder: Path) -> None:
    """As the command `plan` does."""
    raise_problems(make_plan(suite, folder / "runs", folder / "reports").unfit_lines)


def test_what_does_not_fit_is_found_in_the_plan(world: Any) -> None:
    folder, backend, network, _ = world
    tiny = FAMILIES[backend]
    component = tiny.kind.component
    first = folder / "first.safetensors"
    state = new_keys(network, component, pairs_of(network, ATTENTION))
    save_file({**state, f"{component}.other": torch.ones(1)}, folder / "more.safetensors")
    more = r"students.one: .*more.safetensors: a LoRA that does not fit.*\.other names no layer"
    refused(world, checkpoint(folder / "more.safetensors", "lora"), more)
    refused(world, checkpoint(first, "lora", adapter(folder / "more.safetensors", 1)), more)
    broken = dict(list(network.state_dict().items())[1:])
    save_file(broken, folder / "broken.safetensors")
    refused(world, checkpoint(folder / "broken.safetensors", component), "1 missing")
    refused(world, checkpoint(first, component), "another network than the base's")
    refused(
        world,
        checkpoint(folder / "whole", component, lora_scale=0.5),
        "lora_scale: 0.5 with format",
    )
    other = "unet" if component == "transformer" else "transformer"
    refused(
        world,
        checkpoint(folder / "whole", other),
        rf"unknown format of backend {backend} '{other}'. Known: lora, pipeline, {component}",
    )
    (folder / "several").mkdir()
    for name in LORAS:
        shutil.copy(folder / name, folder / "several")
    refused(world, checkpoint(folder / "several", "lora"), "first.safetensors, second.safetensors")
    # Of a pipeline, what its class and the keys say.
    save_file({"unet.x.dora_scale": torch.ones(1)}, folder / "dora.safetensors")
    pipeline = checkpoint(
        folder / "repository", "pipeline", adapter(folder / "dora.safetensors", 1)
    )
    refused(world, pipeline, r"dora.safetensors: a DoRA \('unet.x.dora_scale'\)")


def test_a_damaged_file_keeps_no_other_student_from_running(world: Any) -> None:
    folder, backend, *_ = world
    component = FAMILIES[backend].kind.component
    shutil.copytree(folder / "whole", folder / "damaged")
    (weights,) = (folder / "damaged").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])
    rows = {name: checkpoint(folder / name, component) for name in ("whole", "damaged")}
    suite = suite_of(folder, backend, rows)
    plan = make_plan(suite, folder / "runs", folder / "reports")
    assert plan.unfit.keys() == {"damaged"}
    require_here(plan.downloads)  # of what the others need
    with pytest.raises(BenchError, match=r"^students.damaged: .*cut, or no safetensors file"):
        refuse_unfit(suite, folder)


def test_a_verdict_is_remembered(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a plan does not read weights again; until they change."""
    from ddmd_bench.backends import student_weights

    folder, backend, network, _ = world
    place = folder / "fits.safetensors"
    component = FAMILIES[backend].kind.component
    state = new_keys(network, component, pairs_of(network, ATTENTION, seed=9))
    save_file(state, place)
    suite = suite_of(folder, backend, {"one": checkpoint(place, "lora")})
    read = []
    original = student_weights.read_lora
    monkeypatch.setattr(
        student_weights, "read_lora", lambda *given: read.append(1) or original(*given)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keys_of(suite, folder)
    keys_of(suite, folder)
    assert len(read) == 1
    save_file({**state, "x": torch.ones(1)}, place)
    with pytest.raises(BenchError, match="x names no layer"):
        refuse_unfit(suite, folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"source": "teacher", "num_inference_steps": 1, "guidance_scale": 1}, "takes no"),
        ({"method": "dmd"}, "takes no"),
    ],
)
def test_only_what_was_trained_elsewhere_takes_loras(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Student.model_validate({**row, "adapters": [{"repository": "x"}]})


def test_a_published_student_takes_loras() -> None:
    given = {"repository": "owner/style", "revision": "0" * 40, "file": "a.safetensors"}
    student = Student.model_validate(
        {"source": "published", "published": "dmd2", "adapters": [{**given, "scale": 0.8}]}
    )
    row = row_of(student)
    assert row is not None
    assert row.adapters == (StackedLora(**given, scale=0.8),)
    assert row.repository == PUBLISHED["dmd2"].repository
    (told,) = inputs_of(row)["row"]["adapters"]
    assert told["weights"] == f"owner/style@{'0' * 40}"


# ---- On a whole pipeline, by its own loader.


@pytest.mark.filterwarnings("ignore:Already found")  # of diffusers' own, which is compared with
def test_loras_join_a_pipeline_as_diffusers_has_it(world: Any) -> None:
    folder, backend, network, _ = world
    scales = dict(zip(LORAS, (0.4, -0.7), strict=True))
    stacked = [adapter(folder / name, scale) for name, scale in scales.items()]
    row = row_of(Student.model_validate(checkpoint(folder / "repository", "pipeline", *stacked)))
    assert row is not None
    pipeline = load_whole_pipeline(row, torch.float32)
    fuse_into_pipeline(pipeline, lora_paths(row))
    own = FAMILIES[backend].network(pipeline).eval()
    # Fused, a plain one again.
    assert weights_apart(own, of_diffusers(backend, network, folder, scales)) < 1e-7


def of_text_encoders() -> dict[str, torch.Tensor]:
    """A part of a kohya file: the products are fours."""
    state = {}
    for encoder in ("lora_te1", "lora_te2"):
        for kind in ("q_proj", "k_proj", "v_proj", "out_proj"):
            layer = f"{encoder}_text_model_encoder_layers_0_self_attn_{kind}"
            state[f"{layer}.lora_down.weight"] = torch.ones(4, 32)
            state[f"{layer}.lora_up.weight"] = torch.ones(32, 4)
            state[f"{layer}.alpha"] = torch.tensor(2.0)
    return state


def test_the_text_encoders_of_a_pipeline_are_its_own(tmp_path: Path) -> None:
    """Other than those that a suite's students share: its LoRA may change them."""
    pipeline = FAMILIES["sdxl"].make_pipeline()
    before = {key: value.clone() for key, value in pipeline.text_encoder.state_dict().items()}
    state = kohya(pairs_of(pipeline.unet, ATTENTION)) | of_text_encoders()
    save_file(state, tmp_path / "lora.safetensors")
    fuse_into_pipeline(pipeline, [(tmp_path, 0.5)])
    after = pipeline.text_encoder.state_dict()
    assert after.keys() == before.keys()
    changes = {key: after[key] - value for key, value in before.items()}
    changed = {key: change for key, change in changes.items() if change.any()}
    assert len(changed) == 4
    for change in changed.values():  # 0.5 * alpha / rank * the product of four ones
        assert torch.allclose(change, torch.ones(32, 32))


def test_a_pipeline_that_scales_layers_otherwise_is_refused(tmp_path: Path) -> None:
    """diffusers 0.42 gives layers the commonest alpha, those too that state another or none."""
    unet = FAMILIES["sdxl"].make_pipeline().unet
    state = kohya(pairs_of(unet, ATTENTION)) | of_text_encoders()
    alphas = [key for key in state if key.endswith("attn1_to_q.alpha")]
    other = {"another": {alphas[0]: torch.tensor(3.0)}, "none": dict.fromkeys(alphas)}
    for name, changed in other.items():
        alike = {key: value for key, value in (state | changed).items() if value is not None}
        save_file(alike, tmp_path / f"{name}.safetensors")
        with pytest.raises(BenchError, match="does not scale each layer by its own alpha / rank"):
            fuse_into_pipeline(
                FAMILIES["sdxl"].make_pipeline(), [(tmp_path / f"{name}.safetensors", 1.0)]
            )


def test_a_pipeline_that_passes_over_a_key_is_refused(world: Any) -> None:
    folder, backend, network, _ = world
    component = FAMILIES[backend].kind.component
    state = new_keys(network, component, pairs_of(network, ATTENTION))
    make_pipeline = FAMILIES[backend].make_pipeline
    for extra in (
        "other.lora.down.weight",
        f"{component}.other.lora.down.weight",
        f"{component}.to_q.dora_scale",
        "no_key_of_a_lor",
    ):
        place = folder / "extra.safetensors"
        save_file({**state, extra: torch.ones(2, 2)}, place)
        with pytest.raises(BenchError, match=r"extra\.safetensors: "):
            fuse_into_pipeline(make_pipeline(), [(place, 1.0)])
    unprefixed = {key.removeprefix(f"{component}."): value for key, value in state.items()}
    save_file(unprefixed, folder / "extra.safetensors")
    pipelines = make_pipeline(), make_pipeline()
    fuse_into_pipeline(pipelines[0], [(folder / "extra.safetensors", 0.5)])
    save_file(state, folder / "extra.safetensors")
    fuse_into_pipeline(pipelines[1], [(folder / "extra.safetensors", 0.5)])
    one, other = (FAMILIES[backend].network(pipeline).eval() for pipeline in pipelines)
    assert torch.equal(output(one), output(other))  # as `save_lora_adapter` names its keys


def test_a_pipeline_without_a_loader_of_loras_is_refused(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    options = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(8, **options, **blocks)
    pipeline = DDPMPipeline(unet, DDPMScheduler())
    fuse_into_pipeline(pipeline, [])
    with pytest.raises(BenchError, match="DDPMPipeline has no loader of LoRAs"):
        fuse_into_pipeline(pipeline, [(tmp_path, 1.0)])
