"""What launchers set: read as torch reads it, and refused where a command's work has no shares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddmd_bench.commands.cli import COMMANDS, READING, SHARING, app
from ddmd_bench.errors import BenchError
from ddmd_bench.files.launchers import LAUNCHERS, TORCH, as_torch_reads
from ddmd_bench.files.ranks import require_own_gpus
from ddmd_bench.reporting.checked import WRONG_USE

ALONE = [command.__name__ for command in COMMANDS if command not in (*READING, *SHARING)]
SEVERAL = [
    {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
    {"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
    {"SLURM_NTASKS": "8", "SLURM_PROCID": "3"},
    {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
    {"PMI_SIZE": "4", "PMI_RANK": "2"},
]
ONCE = [
    {},
    {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
    # A batch script of Slurm, which runs once whatever the job may start, and a step of one.
    {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
    {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    {"WORLD_SIZE": "", "RANK": "none"},
]
ARGUMENTS = {
    "compare": ["a", "b"],
    "figures": ["a", "out"],
    "export": ["shapes_smoke", "dmd", "out"],
    "doctor": ["images"],
    "crosscheck": ["images", "--metrics", "fid"],
    "push": ["shapes_smoke", "file:///there"],
    "pull": ["shapes_smoke", "file:///there"],
    "stats build": ["images", "out", "--scorers", "inception"],
    "stats import": ["a.npz", "out", "--scorer", "inception"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no launcher in the environment."""
    monkeypatch.chdir(tmp_path)
    for names in LAUNCHERS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("command", [*ALONE, "stats build", "stats import"])
def test_each_command_that_writes_says_what_to_do(
    here: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for environment in SEVERAL:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            arguments = ARGUMENTS.get(command, ["shapes_smoke"])
            result = CliRunner().invoke(app, [*command.split(), *arguments])
        assert result.exit_code == 2
        assert "one of several processes" in result.stderr
        rank = next(name for name in environment if name.endswith(("RANK", "PROCID")))
        assert f"{rank}={environment[rank]}, as " in result.stderr
        assert "Start it once, without a launcher" in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("environment", ONCE)
def test_one_process_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["run", "no_such_suite"])
    assert "several processes" not in result.stderr
    assert "no_such_suite" in result.stderr


def test_what_only_reads_is_not_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SEVERAL[1].items():
        monkeypatch.setenv(name, value)
    for arguments in (["schema"], ["--help"], ["run", "--help"], ["published"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0


def test_a_check_that_writes_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SEVERAL[1].items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["check", "shapes_smoke", "--update", "--why", "a test"])
    assert result.exit_code == WRONG_USE
    assert "one of several processes" in result.stderr
    assert list(here.iterdir()) == []


def test_torchrun_itself(here: Path) -> None:
    """Which ends what is left once one of its processes has been refused."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "ddmd_bench", "report", "shapes_smoke"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "this is one of several processes of one command (WORLD_SIZE=2" in said
    assert "exitcode  : 2" in said
    assert list(here.iterdir()) == []


SLURM = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


def test_torch_is_told_what_other_launchers_set() -> None:
    one_node = {**SLURM, "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "123456"}
    as_torch_reads(one_node)
    told = {"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}
    assert one_node.items() >= {**told, "MASTER_PORT": "23456"}.items()
    two_nodes = {**SLURM, "SLURM_STEP_NUM_NODES": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "7"}
    as_torch_reads(two_nodes)
    assert two_nodes.items() >= {"RANK": "9", "MASTER_ADDR": "node1", "MASTER_PORT": "7"}.items()
    mpi = {**MPI, "MASTER_ADDR": "node1"}
    as_torch_reads(mpi)
    assert mpi.items() >= {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items()
    alone = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    as_torch_reads(alone)
    assert "RANK" not in alone


@pytest.mark.parametrize("launched", [SLURM, MPI])
def test_what_was_set_before_takes_no_start_apart(launched: dict[str, str]) -> None:
    """WORLD_SIZE=1 of an image or a profile made each of the processes one that is alone."""
    preset = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "7"}
    environment = {**preset, **launched, "MASTER_ADDR": "node1"}
    as_torch_reads(environment)
    told = dict(zip(TORCH, launched.values(), strict=True))
    assert environment.items() >= {**told, "MASTER_ADDR": "node1", "MASTER_PORT": "7"}.items()


@pytest.mark.parametrize(
    ("environment", "lacks"),
    [
        ({**SLURM, "SLURM_STEP_NUM_NODES": "2"}, "MASTER_ADDR is not set"),
        (MPI, "MASTER_ADDR is not set"),
        ({"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9"}, "SLURM_LOCALID is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_RANK is not set"),
    ],
)
def test_what_no_launcher_told_is_asked_for(environment: dict[str, str], lacks: str) -> None:
    with pytest.raises(BenchError, match=lacks):
        as_torch_reads({**environment})


def test_two_ranks_on_one_gpu_are_refused() -> None:
    require_own_gpus([("a", "1"), ("a", "2"), ("b", "1")])
    require_own_gpus([("a", None), ("a", None)])
    with pytest.raises(BenchError, match=r"ranks 0 and 2 on a have the same GPU.* there are 2"):
        require_own_gpus([("a", "1"), ("a", "2"), ("a", "1")])
