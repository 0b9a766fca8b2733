"""Launchers that start a command several times: torchrun, accelerate, srun, mpirun.

What they set in the environment, and which commands may be started so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from ddmd_bench.errors import BenchError


class Launcher(NamedTuple):
    """The variables by which a process knows how many there are and which of them it is."""

    size: str
    rank: str
    local_rank: str  # among those of its machine


# Of Slurm what srun sets for its step: SLURM_NTASKS is what a job asked for, and stands in a batch
# script that runs but once.
LAUNCHERS = {
    "torchrun or accelerate launch": Launcher("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    "srun": Launcher("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "mpirun": Launcher(
        "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"
    ),
    "mpiexec": Launcher("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
}
TORCH = LAUNCHERS["torchrun or accelerate launch"]
FIRST_PORT, NUM_PORTS = 20_000, 20_000


def launched_by(environment: Mapping[str, str]) -> str | None:
    """The launcher that started several processes of which this is one, if any did."""
    for launcher, (size, rank, _) in LAUNCHERS.items():
        number, place = (environment.get(name, "") for name in (size, rank))
        if (number.isdigit() and int(number) > 1) or (place.isdigit() and int(place) > 0):
            return launcher
    return None


def refuse_several(environment: Mapping[str, str] = os.environ) -> None:
    """Raise BenchError where this is one of several processes of one command."""
    launcher = launched_by(environment)
    if launcher is None:
        return
    size, rank, _ = LAUNCHERS[launcher]
    told = ", ".join(f"{k}={environment[k]}" for k in (size, rank) if k in environment)
    raise BenchError(
        f"this is one of several processes of one command ({told}, as {launcher} sets them), and "
        "each would do all of the work. Start it once, without a launcher; `run` and its stages "
        "alone share their work among processes"
    )


def as_torch_reads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell torch what another launcher told this process, in the variables that it reads.

    Raises BenchError where one of them is missing that no launcher sets.
    """
    launcher = launched_by(environment)
    if launcher is None:
        return
    for ours, theirs in zip(TORCH, LAUNCHERS[launcher], strict=True):
        if theirs not in environment:
            raise BenchError(
                f"{launcher} started several processes, but {theirs} is not set, which says "
                f"{_MEANING[ours]}. Set it, or start them by torchrun or accelerate launch"
            )
        # Over what stands there: an image or a shell profile may set WORLD_SIZE=1 for all.
        environment[ours] = environment[theirs]
    if "MASTER_ADDR" not in environment:
        if environment.get("SLURM_STEP_NUM_NODES", "1") != "1" or launcher != "srun":
            raise BenchError(
                f"{launcher} started several processes, but MASTER_ADDR is not set, by which they "
                "find each other: the name of the machine of the first. In a batch script of "
                'Slurm: export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | '
                "head -n 1)"
            )
        environment["MASTER_ADDR"] = "localhost"
    job = environment.get("SLURM_JOB_ID", "")
    port = FIRST_PORT + (int(job) if job.isdigit() else 0) % NUM_PORTS
    environment.setdefault("MASTER_PORT", str(port))  # two jobs of one machine meet apart


_MEANING = {
    TORCH.size: "how many there are",
    TORCH.rank: "which of them this is",
    TORCH.local_rank: "which of those on its machine it is",
}
