"""The record of an update against a restatement in plain Python."""

from __future__ import annotations

import statistics
from math import isnan, nan, prod
from typing import Any

import pytest
import torch
from torch import Tensor

from ddmd_bench.objective.diagnostics import joined, sample_diagnostics, update_diagnostics
from ddmd_bench.objective.terms import Direction, Renoising

SHAPE = (2, 3, 3)
NUM = 6
STEP = torch.tensor([0, 0, 1, 1, 3, 3])  # nobody is at step 2
TAU_DM = torch.tensor([0.02, 0.2, 0.25, 0.3, 1.0, 0.98])  # nobody from 0.5 to 0.75
TAU_CA = torch.tensor([0.1, 0.6, 0.6, 0.7, 0.2, 0.4])


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else nan


def std(values: list[float]) -> float:
    return statistics.stdev(values) if values else nan


def rms(values: list[float]) -> float:
    return mean([v * v for v in values]) ** 0.5


def restated(
    x0: list[list[float]], terms: dict[str, list[list[float]] | None], tau: dict[str, list[float]]
) -> dict[str, float]:
    everything = [v for image in x0 for v in image]
    row = {
        "x0_mean": mean(everything),
        "x0_std": std(everything),
        "x0_beyond_1": mean([float(abs(v) > 1) for v in everything]),
        "dm_ca_cosine": nan,
    }
    for k in range(4):
        row[f"x0_std_step{k}"] = std(
            [v for i, s in zip(x0, STEP, strict=True) if s == k for v in i]
        )
    for name, term in terms.items():
        norms = [rms(image) for image in term or []]
        row[f"{name}_norm"] = mean(norms)
        for k in range(4):
            inside = [min(int(4 * t), 3) == k for t in tau[name]]
            row[f"{name}_norm_tau{k}"] = mean([n for n, i in zip(norms, inside, strict=False) if i])
    if terms["dm"] and terms["ca"]:
        cosines = []
        for a, b in zip(terms["dm"], terms["ca"], strict=True):
            inner = sum(x * y for x, y in zip(a, b, strict=True))
            length = rms(a) * rms(b) * len(a)
            cosines.append(inner / length if length else 0.0)
        row["dm_ca_cosine"] = mean(cosines)
    return row


Draws = tuple[Renoising | None, ...]


def row_of(
    x0: Tensor, step: Tensor, num_steps: int, direction: Direction, draws: Draws
) -> dict[str, float]:
    found = sample_diagnostics(x0, step, direction, draws, {})
    return update_diagnostics(found, num_steps, x0[0].numel())


def rows_of(value: Any, rows: slice) -> Any:
    return None if value is None else type(value)(*(v if v is None else v[rows] for v in value))


@pytest.mark.parametrize("size", [1, 2, 4, NUM])
def test_a_row_is_that_of_the_whole_update_however_it_was_split(size: int) -> None:
    x0, dm, ca, eps = torch.randn(4, NUM, *SHAPE, generator=torch.Generator().manual_seed(1))
    direction, draws = Direction(dm + ca, dm, ca), (Renoising(TAU_DM, eps), Renoising(TAU_CA, eps))
    losses = {"loss_student": torch.arange(float(NUM))}
    parts = [
        sample_diagnostics(
            x0[rows],
            STEP[rows],
            rows_of(direction, rows),
            tuple(rows_of(draw, rows) for draw in draws),
            {"loss_student": losses["loss_student"][rows]},
        )
        for rows in (slice(k, k + size) for k in range(0, NUM, size))
    ]
    whole = {**row_of(x0, STEP, 4, direction, draws), "loss_student": 2.5}
    found = update_diagnostics(joined(parts), 4, x0[0].numel())
    assert found == pytest.approx(whole, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("present", [("dm", "ca"), ("dm",), ("ca",)])
def test_a_row_is_what_plain_python_says(present: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, dm, ca, eps = torch.randn(4, NUM, *SHAPE, generator=generator)
    x0 = 1.5 * x0 + 0.3
    dm[1] = 0  # the fake score agrees with the teacher: no angle
    tensors = {"dm": dm if "dm" in present else None, "ca": ca if "ca" in present else None}
    tau = {"dm": TAU_DM, "ca": TAU_CA}
    draws = tuple(Renoising(tau[k], eps) if k in present else None for k in tau)
    row = row_of(x0, STEP, 4, Direction(x0, tensors["dm"], tensors["ca"]), draws)
    terms = {k: None if v is None else v.flatten(1).tolist() for k, v in tensors.items()}
    expected = restated(x0.flatten(1).tolist(), terms, {k: v.tolist() for k, v in tau.items()})
    assert list(row) == list(expected)  # the order of the columns, too
    assert row == pytest.approx(expected, rel=1e-5, abs=1e-7, nan_ok=True)
    assert isnan(row["x0_std_step2"])
    assert isnan(row["dm_norm_tau2"])


def test_one_diverged_image_spoils_only_its_own_groups() -> None:
    x0 = torch.arange(float(NUM * prod(SHAPE))).view(NUM, *SHAPE)
    x0[0, 0, 0, 0] = nan
    draw = Renoising(TAU_DM, x0)
    row = row_of(x0, STEP, 4, Direction(x0, x0, None), (draw, None))
    missing = {name for name, value in row.items() if isnan(value)}
    assert {"x0_mean", "x0_std", "x0_std_step0", "dm_norm", "dm_norm_tau0"} <= missing
    assert not {"x0_std_step1", "x0_std_step3", "dm_norm_tau1", "dm_norm_tau3"} & missing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_any_precision_is_read(dtype: torch.dtype) -> None:
    x0 = torch.full((4, *SHAPE), 2.0, dtype=dtype)
    draw = Renoising(torch.full((4,), 0.5, dtype=dtype), x0)
    row = row_of(x0, torch.zeros(4).long(), 1, Direction(x0, x0, -x0), (draw, draw))
    assert row["x0_std"] == 0
    assert row["x0_beyond_1"] == 1
    assert row["dm_norm_tau2"] == row["ca_norm"] == pytest.approx(2)
    assert row["dm_ca_cosine"] == pytest.approx(-1)
