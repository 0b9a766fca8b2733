"""Folders are floors: imports point down only, and the light ones load nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ddmd_bench

PACKAGE = Path(ddmd_bench.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"

# Each may import those before it: folders, and the modules that stand beside them.
FLOORS = (
    "errors",
    "objective",
    "stats",
    "files",
    "suite",
    "literature",
    "hub",
    "data",
    "backends",
    "scorers",
    "recipes",
    "measuring",
    "students",
    "training",
    "planning",
    "vendors",
    "reporting",
    "study",
    "stages",
    "run",
    "commands",
    "__main__",
)
# Importing all of it loads no network library: `plan`, `check` and `--help` start quickly.
LIGHT = ("errors", "suite", "literature", "files", "hub", "planning", "run", "commands")
HEAVY = ("torch", "diffusers", "matplotlib", "datasets")


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module: str) -> str:
    """The folder at the package's root that holds a module, or the module itself."""
    return module.split(".")[1]


def imports_of(module: str, everywhere: bool = True) -> set[str]:
    """Modules of the package that a module imports; also for types alone and inside functions."""
    tree = ast.parse(MODULES[module].read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {node.module or ""}
    return {name for name in found if name.startswith("ddmd_bench.")}


def floors_below(folder: str) -> list[str]:
    """The floors that a folder's modules import, in order."""
    modules = [m for m in MODULES if m != "ddmd_bench" and floor(m) == folder]
    found = {floor(name) for module in modules for name in imports_of(module)}
    return [name for name in FLOORS if name in found - {folder}]


def test_the_package_is_read_whole() -> None:
    assert len(MODULES) > 150
    assert "ddmd_bench.suite.schema" in imports_of("ddmd_bench.planning.plan")
    plan = "ddmd_bench.planning.plan"
    assert plan in imports_of("ddmd_bench.stages.train")  # for types alone
    assert plan not in imports_of("ddmd_bench.stages.train", everywhere=False)
    assert "ddmd_bench.stages.report" in imports_of(
        "ddmd_bench.commands.reporting"
    )  # in a function


def test_every_folder_is_a_floor() -> None:
    assert {floor(module) for module in MODULES if module != "ddmd_bench"} == {*FLOORS}


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_point_down_only(folder: str) -> None:
    above = FLOORS[FLOORS.index(folder) + 1 :]
    assert not set(floors_below(folder)) & set(above)


@pytest.mark.parametrize("folder", [name for name in FLOORS if (PACKAGE / name).is_dir()])
def test_a_folder_says_what_it_holds_and_imports(folder: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
    assert said is not None
    imports = ", ".join(floors_below(folder)) or "nothing of the package"
    assert " ".join(said.split()).endswith(f"Imports: {imports}."), f"expected Imports: {imports}."
    # The guide has the same folders, in the same order, with the same sentences.
    table = dict(re.findall(r"^\| `(\w+)/?` \| (.+?) \|$", CONTRIBUTING.read_text(), re.MULTILINE))
    assert [name for name in table if name in FLOORS] == list(FLOORS[::-1])
    assert table[folder] == said.splitlines()[0]


def _opens_as_the_locale_has_it(call: ast.AST) -> bool:
    """A text that is read or written without a word on how it is encoded."""
    if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in ("read_text", "write_text"):
        return len(call.args) <= (name == "write_text")
    opens = name == "open" or (isinstance(call.func, ast.Name) and call.func.id == "open")
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    return opens and any(isinstance(mode, str) and set(mode) <= set("rwaxt+") for mode in modes)


def test_every_text_is_opened_with_its_encoding() -> None:
    """What a locale, such as C, has instead of UTF-8 changes nothing."""
    found = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _opens_as_the_locale_has_it(node)
    ]
    assert found == []
    for text in ("p.read_text()", "p.write_text(a)", 'p.open("a")', 'open(p, "r")'):
        assert _opens_as_the_locale_has_it(ast.parse(text, mode="eval").body), text
    for text in ('p.read_text(encoding="utf-8")', 'p.open("rb")', 'z.open("name.png")', "f.open()"):
        assert not _opens_as_the_locale_has_it(ast.parse(text, mode="eval").body), text


def test_no_stage_imports_another() -> None:
    stages = {name for name in MODULES if name.startswith("ddmd_bench.stages.")}
    assert len(stages) >= 6
    for stage in stages:
        assert not imports_of(stage) & stages


def test_no_circle_of_imports() -> None:
    graph = {name: imports_of(name, everywhere=False) - {name} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_light_folders_load_nothing_heavy() -> None:
    light = [name for name in MODULES if name != "ddmd_bench" and floor(name) in LIGHT]
    code = (
        "import sys, importlib\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        f"    for heavy in {HEAVY!r}:\n"
        "        assert heavy not in sys.modules, f'{name} loads {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_library_is_asked_to_run_the_code_of_a_repository() -> None:
    """Each of them does so only where it is told to trust it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for way in ("trust_remote_code", "custom_pipeline", "torch.hub.load", "weights_only=False"):
            assert way not in text, f"{path.name}: {way}"
