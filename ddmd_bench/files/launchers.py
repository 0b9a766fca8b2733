"""Launchers that start a command several times: torchrun, accelerate, srun, mpirun.

Each of those processes would do all of the work, in the same folders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ddmd_bench.errors import BenchError

# What says how many processes were started, and which of them this is. Of Slurm what srun sets for
# its step: SLURM_NTASKS is what a job asked for, and stands in a batch script that runs but once.
LAUNCHERS = {
    "torchrun or accelerate launch": ("WORLD_SIZE", "RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),
}


def refuse_several(environment: Mapping[str, str] = os.environ) -> None:
    """Raise BenchError where this is one of several processes of one command."""
    for launcher, (size, rank) in LAUNCHERS.items():
        told = {name: environment[name] for name in (size, rank) if name in environment}
        number, place = (told.get(name, "") for name in (size, rank))
        if (number.isdigit() and int(number) > 1) or (place.isdigit() and int(place) > 0):
            shown = ", ".join(f"{name}={value}" for name, value in told.items())
            raise BenchError(
                f"this is one of several processes of one command ({shown}, as {launcher} sets "
                "them), and each would do all of the work. Start it once, without a launcher: "
                "students are put on all visible GPUs by itself (--workers)"
            )
