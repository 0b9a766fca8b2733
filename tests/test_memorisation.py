"""MiFID: torchmetrics' value, FID where nothing is copied, and intervals that hold or are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torchmetrics.image.mifid import (
    MemorizationInformedFrechetInceptionDistance,
    _compute_cosine_distance,
)

from ddmd_bench.stats import memorisation
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import RealFeatures, gaussian_of
from ddmd_bench.stats.memorisation import THRESHOLD, nearest_distances
from ddmd_bench.stats.moments import factored

MIFID, FID = DISTANCES["frechet_memorisation"], DISTANCES["frechet_wide"]
Features = NDArray[np.float64]


def drawn(n: int, d: int, seed: int) -> Features:
    """As Inception's: not below 0."""
    return np.random.default_rng(seed).exponential(size=(n, d))


def reference_of(features: Features) -> RealFeatures:
    return RealFeatures(features, np.arange(len(features)), factored(gaussian_of(features)))


def theirs(own: Features, real: Features) -> float:
    """torchmetrics averages over the images that it is told are real: the student's here."""
    metric = MemorizationInformedFrechetInceptionDistance(feature=nn.Identity())
    metric.update(torch.from_numpy(own), real=True)
    metric.update(torch.from_numpy(real), real=False)
    return float(metric.compute())


@pytest.mark.parametrize("d", [4, 40])  # near enough to count, and not
@pytest.mark.parametrize("n", [30, 200])
def test_it_is_torchmetrics(n: int, d: int) -> None:
    own, real = drawn(n, d, 0) * 1.1, drawn(150, d, 1)
    distances = nearest_distances(real, own)
    assert (distances.mean() < THRESHOLD) == (d == 4)
    expected = float(_compute_cosine_distance(torch.from_numpy(own), torch.from_numpy(real)))
    assert min(distances.mean(), 1) == pytest.approx(expected, rel=1e-9) or d == 40
    assert MIFID.value(own, reference_of(real)) == pytest.approx(theirs(own, real), rel=1e-6)


def test_copies_cost_and_others_have_fid() -> None:
    real, own = drawn(100, 40, 0), drawn(60, 40, 1)
    reference = reference_of(real)
    assert MIFID.value(own, reference) == pytest.approx(FID.value(own, reference), rel=1e-12)
    copied = real[:60] + 1e-3 * own
    assert MIFID.value(copied, reference) > 1e3 * FID.value(copied, reference)
    assert MIFID.value(real, reference) == 0  # the very same set, as in torchmetrics


def test_distances_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.array([[2.0, 0.0], [0.0, 3.0]])
    own = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, -5.0], [0.0, 0.0]])
    expected = [0, 1 - math.sqrt(0.5), 0, 1]
    assert list(nearest_distances(real, own)) == pytest.approx(expected)
    monkeypatch.setattr(memorisation, "BLOCK", 3)
    assert list(nearest_distances(real, own)) == pytest.approx(expected)


def correlated(seed: int, num_prompts: int, d: int) -> Features:
    """Two images a prompt, which share a part of their variance."""
    generator = np.random.default_rng(seed)
    shared = np.repeat(generator.exponential(size=(num_prompts, d)), 2, axis=0)
    return shared + 0.3 * generator.exponential(size=shared.shape)


def test_intervals_cover_the_spread_over_prompts() -> None:
    reference, groups = reference_of(drawn(300, 4, 0)), np.repeat(np.arange(100), 2)
    draws = [correlated(k, 100, 4) for k in range(200)]
    found = [MIFID.interval(features, reference, groups, 0) for features in draws]
    values = np.array([interval.value for interval in found])
    assert np.mean([i.low <= values.mean() <= i.high for i in found]) >= 0.9
    half = np.mean([i.high - i.value for i in found])
    assert half / 1.98 == pytest.approx(values.std(), rel=0.25)
    pairs = [
        MIFID.difference(draws[k], draws[k + 1], reference, groups, 0, True)
        for k in range(0, 200, 2)
    ]
    assert np.mean([pair.p_value < 0.05 for pair in pairs]) <= 0.12


def test_where_the_value_may_jump_there_is_no_interval() -> None:
    groups = np.repeat(np.arange(15), 2)
    real, own = drawn(100, 8, 0), drawn(30, 8, 1)
    distance = nearest_distances(real, own).mean()
    with pytest.MonkeyPatch.context() as patch:
        for threshold, held in ((distance * 1.001, False), (distance * 3, True), (1e-4, True)):
            patch.setattr(memorisation, "THRESHOLD", threshold)
            interval = MIFID.interval(own, reference_of(real), groups, 0)
            assert math.isnan(interval.low) != held
            assert interval.value == pytest.approx(MIFID.value(own, reference_of(real)), rel=1e-9)
            there = MIFID.difference(own, own * 1.1, reference_of(real), groups, 0, True)
            assert math.isnan(there.p_value) != held
