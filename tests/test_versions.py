"""Values that moved raise their version; settings that a method does not use move none."""

from __future__ import annotations

from typing import Any

import pytest
from version_values import GOLDEN, VALUES

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.files.records import read_json
from ddmd_bench.files.versions import VERSIONS
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.suite.used import USES, used_settings
from ddmd_bench.training.update import Training

KNOWN = read_json(GOLDEN)
# Neither has values of its own: they are those of drawing and of scoring, or a verdict on them;
# embeddings are with their backends', and training data are files as they came.
ELSEWHERE = {"evaluation", "doctor", "encode", "training data"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(k, marks=pytest.mark.long) if k == "train" else k for k in VALUES],
)
def test_values_that_moved_raise_their_version(name: str) -> None:
    found, known = VALUES[name](), KNOWN[name]
    moved = [
        f"{key}: {found.get(key)}, was {known['values'].get(key)}"
        for key in sorted(found.keys() | known["values"].keys())
        if None in (found.get(key), was := known["values"].get(key))
        or found[key] != pytest.approx(was, rel=5e-4, abs=1e-6)
    ]
    raised = VERSIONS[name] != known["version"]
    write = "write the values: python tests/version_values.py"
    assert not moved or raised, f"values moved: raise VERSIONS[{name!r}], then {write}\n{moved[:5]}"
    assert not raised, f"VERSIONS[{name!r}] was raised: {write}"


def test_every_version_has_values() -> None:
    scorers = {name for name in VERSIONS if name.startswith("scorer ")}
    assert VALUES.keys() | ELSEWHERE | scorers == VERSIONS.keys()


@pytest.fixture(scope="module")
def backend() -> Backend:
    return BACKENDS["shapes"](Model())


# Another value of every setting that not every method uses.
OTHERS: dict[str, Any] = {
    "guidance_scale": 2.0,
    "weight_ca": 0.5,
    "weight_dm": 0.5,
    "weight_mean_variance": 0.5,
    "mean_variance_targets": (0.1, 0.3),
    "weight_gan": 0.5,
    "weight_gan_fake_score": 0.5,
    "fake_score_learning_rate": 1e-3,
    "fake_score_updates": 2,
    "fake_score_samples": "fresh",
    "fake_score_sees": "step",
    "step_embedding_learning_rate": 1e-3,
    "lora_alpha": 2,
    "gradient_checkpointing": True,
    "checkpoint_every": 7,
    "samples_at_once": 4,
}


def test_each_setting_that_not_all_use_has_another_value() -> None:
    # Compiling is tested in test_training, sharding in test_sharding.
    assert OTHERS.keys() | {"compile", "sharding"} == USES.keys()


@pytest.mark.parametrize("method", ["dmd", "ca_only", "dm_only", "ca_mean_variance", "ca_gan"])
def test_settings_that_a_method_does_not_use_change_nothing(backend: Backend, method: str) -> None:
    """All of them at once: the second update's values are the same to the bit."""
    base = TrainSettings(batch_size=4, fake_score_updates=1)
    used = used_settings(base, METHODS[method])
    others = {name: value for name, value in OTHERS.items() if name not in used}
    assert others.keys() >= {"lora_alpha", "checkpoint_every", "gradient_checkpointing"}
    rows = []
    for settings in (base, base.model_copy(update=others)):
        training = Training(backend, METHODS[method], settings, 0, "cpu")
        rows.append([training.update(1), training.update(2)])
    assert repr(rows[0]) == repr(rows[1])  # NaN too


def test_settings_that_a_method_uses_are_in_its_key() -> None:
    """A setting of one method's own, where it has it and where not."""
    settings = TrainSettings()
    for name in ("weight_gan", "weight_gan_fake_score"):
        has = {method for method, row in METHODS.items() if name in used_settings(settings, row)}
        assert has == {"ca_gan", "dmd2", "decoupled_hybrid_gan"}
    row = METHODS["dmd"]
    assert "lora_alpha" in used_settings(settings.model_copy(update={"lora_rank": 2}), row)
    assert "step_embedding_learning_rate" not in used_settings(settings, row)
    step = settings.model_copy(update={"fake_score_sees": "step"})
    assert "step_embedding_learning_rate" in used_settings(step, row)
