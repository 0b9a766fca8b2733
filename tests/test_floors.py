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
    "ddmd_bench.objective.methods": 0,
    "ddmd_bench.objective.process": 0,
    "ddmd_bench.errors": 0,
    "ddmd_bench.stats": 0,
    "ddmd_bench.suite.settings": 1,
    "ddmd_bench.suite.schema": 1,
    "ddmd_bench.suite.files": 1,
    "ddmd_bench.literature.values": 1,
    "ddmd_bench.data.prompts": 1,
    "ddmd_bench.files.records": 1,
    "ddmd_bench.data.images": 1,
    "ddmd_bench.files.provenance": 1,
    "ddmd_bench.objective": 1,
    "ddmd_bench.files.embeddings": 1,
    "ddmd_bench.data.latents": 1,
    "ddmd_bench.hub": 1,
    "ddmd_bench.backends": 2,
    "ddmd_bench.students.catalogue": 2,
    "ddmd_bench.scorers": 2,
    "ddmd_bench.data.image_folders": 1,
    "ddmd_bench.students.checkpoints": 2,
    "ddmd_bench.students.loaded": 3,
    "ddmd_bench.planning.tasks": 3,
    "ddmd_bench.students.sources": 3,
    "ddmd_bench.planning.memory": 3,
    "ddmd_bench.measuring.doctor": 4,
    "ddmd_bench.measuring.folder": 4,
    "ddmd_bench.planning.outlook": 3,
    "ddmd_bench.planning.disk": 3,
    "ddmd_bench.planning.time": 3,
    "ddmd_bench.backends.flops": 3,
    "ddmd_bench.students.export": 4,
    "ddmd_bench.data.tables": 2,
    "ddmd_bench.data.prompt_downloads": 2,
    "ddmd_bench.data.prompt_readers": 2,
    "ddmd_bench.data.prompt_sources": 2,
    "ddmd_bench.data.streams": 2,
    "ddmd_bench.measuring.reference": 2,
    "ddmd_bench.measuring.reference_build": 3,
    "ddmd_bench.data.training": 3,
    "ddmd_bench.planning.plan": 3,
    "ddmd_bench.planning.downloads": 3,
    "ddmd_bench.training": 3,
    "ddmd_bench.planning.training": 3,
    "ddmd_bench.students.drawing": 3,
    "ddmd_bench.files.decoding": 1,
    "ddmd_bench.measuring.one_pass": 3,
    "ddmd_bench.measuring.answers": 3,
    "ddmd_bench.measuring.measure": 3,
    "ddmd_bench.training.evaluation": 3,
    "ddmd_bench.planning.evaluation": 3,
    "ddmd_bench.reporting": 3,
    "ddmd_bench.students.prepared": 3,
    "ddmd_bench.stages": 4,
    "ddmd_bench.run": 5,
    "ddmd_bench.commands.cli": 6,
    "ddmd_bench.commands": 6,
    "ddmd_bench.commands.display": 6,
    "ddmd_bench.__main__": 6,
}
# Importing them loads no torch.
LIGHT = (
    "ddmd_bench",
    "ddmd_bench.errors",
    "ddmd_bench.objective.methods",
    "ddmd_bench.suite.settings",
    "ddmd_bench.suite.schema",
    "ddmd_bench.suite.files",
    "ddmd_bench.literature.values",
    "ddmd_bench.files.records",
    "ddmd_bench.data.prompts",
    "ddmd_bench.files.provenance",
    "ddmd_bench.data.images",
    "ddmd_bench.hub",
    "ddmd_bench.stats.intervals",
    "ddmd_bench.stats.frechet",
    "ddmd_bench.stats.distances",
    "ddmd_bench.scorers",
    "ddmd_bench.scorers.weights",
    "ddmd_bench.files.decoding",
    "ddmd_bench.files.embeddings",
    "ddmd_bench.backends",
    "ddmd_bench.backends.schedulers",
    "ddmd_bench.students.catalogue",
    "ddmd_bench.data.tables",
    "ddmd_bench.data.prompt_downloads",
    "ddmd_bench.data.prompt_readers",
    "ddmd_bench.data.prompt_sources",
    "ddmd_bench.data.streams",
    "ddmd_bench.measuring.reference",
    "ddmd_bench.planning.evaluation",
    "ddmd_bench.planning.downloads",
    "ddmd_bench.planning.disk",
    "ddmd_bench.planning.time",
    "ddmd_bench.planning.plan",
    "ddmd_bench.stages.check",
    "ddmd_bench.run",
    "ddmd_bench.commands.stats",
    "ddmd_bench.commands.cli",
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
    assert "ddmd_bench.suite.schema" in imports_of("ddmd_bench.planning.plan")
    assert "ddmd_bench.planning.plan" not in imports_of(
        "ddmd_bench.stages.train"
    )  # for types alone
    assert "ddmd_bench.stages.report" in imports_of("ddmd_bench.commands.cli")  # inside a function
    assert "ddmd_bench.stages.report" not in imports_of(
        "ddmd_bench.commands.cli", inside_functions=False
    )


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
