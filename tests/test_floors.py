"""Imports point down only, and the light commands load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ddmd_bench

PACKAGE = Path(ddmd_bench.__file__).parent

# A module has the floor of its longest prefix here.
FLOORS = {
    "ddmd_bench.methods": 0,
    "ddmd_bench.diffusion": 0,
    "ddmd_bench.errors": 0,
    "ddmd_bench.stats": 0,
    "ddmd_bench.settings": 1,
    "ddmd_bench.suite": 1,
    "ddmd_bench.suite_files": 1,
    "ddmd_bench.published_values": 1,
    "ddmd_bench.prompts": 1,
    "ddmd_bench.records": 1,
    "ddmd_bench.images": 1,
    "ddmd_bench.provenance": 1,
    "ddmd_bench.distill": 1,
    "ddmd_bench.embeddings": 1,
    "ddmd_bench.latents": 1,
    "ddmd_bench.hub": 1,
    "ddmd_bench.backends": 2,
    "ddmd_bench.published": 2,
    "ddmd_bench.scorers": 2,
    "ddmd_bench.image_folders": 1,
    "ddmd_bench.published_files": 2,
    "ddmd_bench.student_plan": 3,
    "ddmd_bench.tasks": 3,
    "ddmd_bench.contenders": 3,
    "ddmd_bench.memory_plan": 3,
    "ddmd_bench.doctor": 4,
    "ddmd_bench.folder_scores": 4,
    "ddmd_bench.estimates": 3,
    "ddmd_bench.disk_plan": 3,
    "ddmd_bench.time_plan": 3,
    "ddmd_bench.flops": 3,
    "ddmd_bench.export": 4,
    "ddmd_bench.data_files": 2,
    "ddmd_bench.prompt_downloads": 2,
    "ddmd_bench.prompt_readers": 2,
    "ddmd_bench.prompt_sources": 2,
    "ddmd_bench.train_streams": 2,
    "ddmd_bench.reference_statistics": 2,
    "ddmd_bench.statistics_build": 3,
    "ddmd_bench.training_data": 3,
    "ddmd_bench.plan": 3,
    "ddmd_bench.downloads": 3,
    "ddmd_bench.training": 3,
    "ddmd_bench.training_plan": 3,
    "ddmd_bench.sampling": 3,
    "ddmd_bench.decoding": 1,
    "ddmd_bench.panel": 3,
    "ddmd_bench.kept": 3,
    "ddmd_bench.scoring": 3,
    "ddmd_bench.evaluation": 3,
    "ddmd_bench.evaluation_plan": 3,
    "ddmd_bench.reporting": 3,
    "ddmd_bench.world": 3,
    "ddmd_bench.stages": 4,
    "ddmd_bench.run": 5,
    "ddmd_bench.cli": 6,
    "ddmd_bench.commands": 6,
    "ddmd_bench.display": 6,
    "ddmd_bench.__main__": 6,
}
# Importing them loads no torch.
LIGHT = (
    "ddmd_bench",
    "ddmd_bench.errors",
    "ddmd_bench.methods",
    "ddmd_bench.settings",
    "ddmd_bench.suite",
    "ddmd_bench.suite_files",
    "ddmd_bench.published_values",
    "ddmd_bench.records",
    "ddmd_bench.prompts",
    "ddmd_bench.provenance",
    "ddmd_bench.images",
    "ddmd_bench.hub",
    "ddmd_bench.stats.intervals",
    "ddmd_bench.stats.frechet",
    "ddmd_bench.stats.distances",
    "ddmd_bench.scorers",
    "ddmd_bench.scorers.weights",
    "ddmd_bench.decoding",
    "ddmd_bench.embeddings",
    "ddmd_bench.backends",
    "ddmd_bench.backends.schedulers",
    "ddmd_bench.published",
    "ddmd_bench.data_files",
    "ddmd_bench.prompt_downloads",
    "ddmd_bench.prompt_readers",
    "ddmd_bench.prompt_sources",
    "ddmd_bench.train_streams",
    "ddmd_bench.reference_statistics",
    "ddmd_bench.evaluation_plan",
    "ddmd_bench.downloads",
    "ddmd_bench.disk_plan",
    "ddmd_bench.time_plan",
    "ddmd_bench.plan",
    "ddmd_bench.stages.check",
    "ddmd_bench.run",
    "ddmd_bench.commands.stats",
    "ddmd_bench.cli",
)


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module: str) -> int:
    prefix = module
    while prefix not in FLOORS:
        prefix, dot, _ = prefix.rpartition(".")
        assert dot, f"{module} has no floor: give it one in FLOORS"
    return FLOORS[prefix]


def _statements(body: list[ast.stmt], inside_functions: bool) -> Iterator[ast.stmt]:
    """Every statement that runs: the bodies of `if TYPE_CHECKING` are left out."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if isinstance(node, ast.FunctionDef) and not inside_functions:
            continue
        for child in ("body", "orelse", "finalbody", "handlers"):
            nested = getattr(node, child, [])
            yield from _statements(nested, inside_functions)


def imports_of(module: str, inside_functions: bool = True) -> set[str]:
    """Modules of the package that a module imports."""
    found: set[str] = set()
    tree = ast.parse(MODULES[module].read_text())
    for node in _statements(tree.body, inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {node.module or ""}
    return {name for name in found if name.split(".")[0] == "ddmd_bench"}


def test_the_package_is_read_whole() -> None:
    assert len(MODULES) > 30
    assert "ddmd_bench.suite" in imports_of("ddmd_bench.plan")
    assert "ddmd_bench.plan" not in imports_of("ddmd_bench.stages.train")  # for types alone
    assert "ddmd_bench.stages.report" in imports_of("ddmd_bench.cli")  # inside a function
    assert "ddmd_bench.stages.report" not in imports_of("ddmd_bench.cli", inside_functions=False)


@pytest.mark.parametrize("module", [m for m in MODULES if m != "ddmd_bench"])
def test_imports_point_down_only(module: str) -> None:
    up = {name for name in imports_of(module) - {"ddmd_bench"} if floor(name) > floor(module)}
    assert not up


def test_no_stage_imports_another() -> None:
    stages = {name for name in MODULES if name.startswith("ddmd_bench.stages.")}
    assert len(stages) >= 6
    for stage in stages:
        assert not imports_of(stage) & stages


def test_no_circle_of_imports() -> None:
    graph = {name: imports_of(name, inside_functions=False) - {name} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_floor_is_in_use() -> None:
    assert all(any(m == p or m.startswith(f"{p}.") for m in MODULES) for p in FLOORS)


def test_light_modules_load_nothing_heavy() -> None:
    code = (
        "import sys, importlib\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        "    for heavy in ('torch', 'diffusers', 'matplotlib', 'datasets'):\n"
        "        assert heavy not in sys.modules, f'{name} loads {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
