"""What the tests share: one thread, and a suite small enough to train in a second."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddmd_bench.files.threads import limit_threads

# A sum's last bits depend on how it is split among threads.
limit_threads(1)

TINY: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "backend": "shapes",
    "prompts": {
        "seen": {"source": "shapes/seen", "num_prompts": 3},
        "compositional": {"source": "shapes/held_out", "num_prompts": 2},
    },
    "reference": {"images_per_prompt": 1},
    "train": {
        "num_iterations": 6,
        "batch_size": 8,
        "checkpoint_every": 2,
        "fake_score_updates": 2,
    },
    "students": {
        "real": {"source": "real"},
        "teacher_2": {"source": "teacher", "num_inference_steps": 2, "guidance_scale": 4},
        "dmd": {"method": "dmd"},
        "ca_only": {"method": "ca_only"},
    },
    "baseline": "dmd",
    # No Fréchet distance: it needs more images than features.
    "metrics": ["prompt_accuracy", "saturation", "mean", "std", "diversity"],
}


# Half a minute and more each, by measure, the longest first. Begun last, they would leave the
# other worker idle at the end.
LONG = (
    "test_real_models.py",
    "test_resume.py",
    "test_training.py",
    "test_golden.py",
    "test_fetch.py",
    "test_assumptions.py",
    "test_failures.py",
    "test_loras.py",
    "test_train_stage.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `nox -s fuzz` and CI give."""
    parser.addoption("--whole", action="store_true", help="let every write fail in every way")
    parser.addoption("--long", action="store_true", help="also what takes three seconds or more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long files first, which stay together on one worker; long tests where asked for."""
    if not (config.getoption("long") or config.getoption("whole")):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in {*long}]
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A valid suite as data, for a test to change."""
    return copy.deepcopy(TINY)


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[[Any], str]:
    """Writes a suite's data and returns the file's name, as given to a command."""

    def write(data: Any) -> str:
        path = tmp_path / "tiny.yaml"
        path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
        return str(path)

    return write
