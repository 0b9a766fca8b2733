"""export: a trained student as a diffusers checkpoint, or its LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.options import Overrides, Runs, SuiteName, console
from ddmd_bench.commands.plans import planned
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.places import require_folder


def export(
    suite: SuiteName,
    student: Annotated[str, typer.Argument(help="A student that the suite trained.")],
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    seed: Annotated[int, typer.Option(help="The training's seed.")] = 0,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write a trained student as a diffusers checkpoint, or its LoRA, with a model card."""
    from ddmd_bench.students.export import export as write

    require_folder(output, "OUTPUT")
    plan = planned(suite, set_, runs, Path("reports"))
    trained = plan.trained(student, seed)
    backend = plan.prepared().opened(student)
    with numerics():
        written = write(trained, plan.suite, backend, output)
    console.print(f"exported: {written}")
