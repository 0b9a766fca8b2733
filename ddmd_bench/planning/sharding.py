"""What the ranks of a training keep in parts: as little as lets it fit into a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from ddmd_bench.files.ranks import Group
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.sizes import TrainingMemory
from ddmd_bench.planning.training import TRAINING
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import TrainSettings

WAYS = ("none", "optimizer", "weights")  # each takes less memory than the one before
# Of a GPU's memory; the rest is for activations and for blocks that are gathered whole.
ROOM = 0.75


def settings_on_ranks(suite: Suite, student: str, group: Group) -> TrainSettings:
    """A student's settings as these ranks train it: `sharding` is chosen."""
    settings = suite.train_settings(student)
    if group.num > 1 and settings.sharding != "auto":
        return settings
    sharding = "none"
    if group.num > 1 and group.gpu_memory is not None:
        memory = TRAINING.costs(Asked.of(suite))["train", student].memory
        assert memory is not None
        sharding = sharding_of(settings, memory, group)
    return settings.model_copy(update={"sharding": sharding})


def sharding_of(settings: TrainSettings, memory: TrainingMemory, group: Group) -> str:
    """What a training keeps in parts on these ranks, which have GPUs."""
    if group.num == 1 or settings.sharding != "auto":
        return "none" if group.num == 1 else settings.sharding
    assert group.gpu_memory is not None
    room = ROOM * group.gpu_memory
    ways = [way for way in WAYS if not any(sharding_problems(settings, way, group.num))]
    return next((way for way in ways if memory.each(way, group) <= room), ways[-1])


def sharding_problems(settings: TrainSettings, sharding: str, num_ranks: int) -> Iterator[str]:
    """Why a training cannot be kept so, in words."""
    if sharding == "none":
        return
    told = f"train.sharding {sharding}"
    if settings.optimizer != "adamw":
        yield f"{told}: the states of {settings.optimizer} cannot be in parts. Set adamw"
    if sharding == "weights" and settings.compile:
        yield f"{told}: a compiled network keeps its weights whole. Set train.compile to false"
    if sharding == "weights" and settings.batch_size % num_ranks:
        yield (
            f"{told}: the ranks go through a network together, and {settings.batch_size} samples "
            f"(train.batch_size) are not the same number for each of {num_ranks}"
        )
