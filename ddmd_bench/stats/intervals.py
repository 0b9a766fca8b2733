"""Means, paired differences and the correction for many of them.

Prompts are the independent units: images of one prompt resemble each other, so that counting them
as independent would make every interval too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError

Array = NDArray[np.float64]

LEVEL = 0.95
NUM_RESAMPLES = 4_000
NUM_PERMUTATIONS = 9_999
QUANTILES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
# Beyond so many prompts a form without resamples takes over wherever it is as good.
MANY_PROMPTS = 1_000
BLOCK = 2**20  # random numbers at a time, 8 MB as float64, however many there are of them in all


class Interval(NamedTuple):
    """A value with its 95 % interval; `n` images went into it."""

    value: float
    low: float
    high: float
    n: int


class PairedDifference(NamedTuple):
    """a - b on the same prompts and noise, with its 95 % interval; `n` pairs of images."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    wins: float  # share of prompts where a > b, plus half the ties


def value_alone(value: float, n: int, wins: float = math.nan) -> PairedDifference:
    """A difference that has no interval; `wins` is NaN where no prompt has a value of its own."""
    return PairedDifference(value, math.nan, math.nan, math.nan, n, wins)


def standard_error(residuals: Array, n: int) -> float:
    """Of a mean over n images, from residuals [P], each the sum over a prompt's images.

    The cluster-robust one, sqrt(P / (P - 1) * sum_g r_g^2) / n; with equally many images per prompt
    it is that of the P prompt means. One prompt has none: NaN.
    """
    num_prompts = len(residuals)
    if num_prompts < 2:
        return math.nan
    return math.sqrt(num_prompts / (num_prompts - 1) * float(residuals @ residuals)) / n


def t_interval(value: float, error: float, num_prompts: int, n: int) -> Interval:
    """95 % t-interval over prompts; low and high are NaN where the error is."""
    from scipy.stats import t as student_t

    half = float(student_t.ppf(QUANTILES[1], num_prompts - 1)) * error
    return Interval(value, value - half, value + half, n)


def two_sided_p(value: float, error: float, tail: Callable[[float], float]) -> float:
    """Both tails beyond |value| / error; where nothing varies 1 for no difference, else NaN."""
    if error > 0:
        return tail(abs(value) / error)
    return 1.0 if value == error == 0 else math.nan


def prompt_counts(num_prompts: int, num_resamples: int, seed: int) -> Iterator[Array]:
    """How often each resample of the prompts holds each prompt: blocks [rows, num_prompts].

    The blocks have num_resamples rows in all and are the same numbers as one draw of them all.
    """
    generator = np.random.default_rng([seed, 0])
    for rows in _blocks(num_resamples, num_prompts):
        drawn = generator.integers(num_prompts, size=(rows, num_prompts))
        drawn += np.arange(rows)[:, None] * num_prompts
        counts = np.bincount(drawn.ravel(), minlength=rows * num_prompts)
        yield counts.reshape(rows, num_prompts).astype(np.float64)


def _blocks(num_rows: int, num_columns: int) -> Iterator[int]:
    """Numbers of rows that add up to num_rows, each of about `BLOCK` values.

    Multiples of four but for the last: the generator takes int8 from the bytes of 32-bit numbers
    and throws the rest of the last one away at the end of each call.
    """
    most = max(4, BLOCK // num_columns // 4 * 4)
    for start in range(0, num_rows, most):
        yield min(most, num_rows - start)


def per_prompt(values: Array, groups: NDArray[Any]) -> tuple[Array, Array]:
    """Sum and number of the values of each prompt, NaN skipped: [num_prompts] each."""
    if values.ndim != 1 or values.shape != groups.shape:
        raise BenchError(
            f"statistics: expected one prompt id per value, found values {values.shape} "
            f"and prompt ids {groups.shape}"
        )
    present = ~np.isnan(values)
    _, index = np.unique(groups[present], return_inverse=True)
    sums = np.bincount(index, values[present]).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def mean_interval(values: NDArray[Any], groups: NDArray[Any]) -> Interval:
    """Mean over images [n] with a t-interval over prompts; NaN values are skipped.

    One prompt has no standard error: low and high are NaN.
    """
    sums, counts = per_prompt(np.asarray(values, np.float64), np.asarray(groups))
    n = int(counts.sum())
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(sums.sum() / n)
    return t_interval(value, standard_error(sums - value * counts, n), len(sums), n)


def paired_difference(
    a: NDArray[Any],
    b: NDArray[Any],
    groups: NDArray[Any],
    *,
    seed: int,
    resamples: int = NUM_RESAMPLES,
) -> PairedDifference:
    """Mean of a - b over images [n] that share prompt and noise; a pair with a NaN is skipped.

    Interval: percentile bootstrap over prompts; where the `effective_number` N of residuals is
    above `MANY_PROMPTS` the t-interval over prompts, which is the same within the bootstrap's own
    Monte Carlo error: skewness moves an end by 0.47 / sqrt(N) standard errors at most (Cornish and
    Fisher 1938), the steps of binary values by 0.5 / sqrt(N), together 0.03, and the ends of 4,000
    resamples have a standard deviation of 0.042. Few prompts that differ, or heavy tails, keep N
    low however many prompts there are.
    p: two-sided sign-flip permutation of the prompts' differences, (1 + as extreme) /
    (1 + permutations), so that it is never 0. Without resamples there is the value alone.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise BenchError(f"a paired difference needs the same images, found {a.shape}, {b.shape}")
    sums, counts = per_prompt(a - b, np.asarray(groups))
    num_prompts, n = len(sums), int(counts.sum())
    if n == 0:
        return value_alone(math.nan, 0)
    value = float(sums.sum() / n)
    wins = float(np.mean((sums > 0) + 0.5 * (sums == 0)))
    if num_prompts < 2 or not resamples:
        return value_alone(value, n, wins)
    residuals = sums - value * counts
    if effective_number(residuals) > MANY_PROMPTS:
        _, low, high, _ = t_interval(value, standard_error(residuals, n), num_prompts, n)
    else:
        blocks = prompt_counts(num_prompts, resamples, seed)
        means = np.concatenate([(drawn @ sums) / (drawn @ counts) for drawn in blocks])
        low, high = map(float, np.quantile(means, QUANTILES))
    return PairedDifference(value, low, high, _sign_flip_p_value(sums, seed), n, wins)


def effective_number(residuals: Array) -> float:
    """How many of the residuals [P] carry their sum of squares: (sum r^2)^2 / sum r^4.

    Kish's effective sample size (1965) of the weights r^2: P where all are as large, P / 3 of
    normal ones, the number of ones among zeros; 0 where all are 0.
    """
    largest = float(np.abs(residuals).max())
    if largest == 0:
        return 0.0
    squares = np.square(residuals / largest)
    return float(squares.sum() ** 2 / (squares @ squares))


def _sign_flip_p_value(differences: Array, seed: int) -> float:
    """Share of sign flips of the differences [P] with a sum as far from 0, never 0.

    No normal form, however many prompts: sums of a thousand values of +-1 are 2 apart, which moves
    p by more than its Monte Carlo error, and the drawn ones are quick.
    """
    generator = np.random.default_rng([seed, 1])
    parts = np.split(differences, range(MANY_PROMPTS, len(differences), MANY_PROMPTS))
    flipped = np.zeros(NUM_PERMUTATIONS)
    for part in parts:
        flipped += _flipped_sums(part, generator, all_bits=len(parts) > 1)
    # Sums of the same numbers in another order differ by rounding; such a tie is as extreme.
    rounding = 1e-12 * float(np.abs(differences).sum())
    as_extreme = int(np.sum(np.abs(flipped) >= abs(float(differences.sum())) - rounding))
    return (1 + as_extreme) / (1 + NUM_PERMUTATIONS)


def _flipped_sums(differences: Array, generator: np.random.Generator, all_bits: bool) -> Array:
    """Sums of the differences [P <= MANY_PROMPTS] with signs drawn: [NUM_PERMUTATIONS].

    All sums that eight of them can have stand in a table, so that a byte of signs is one number to
    look up; it stays in the processor's cache.
    """
    eights = np.pad(differences, (0, -len(differences) % 8)).reshape(-1, 8)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    sums = (eights @ (bits.astype(np.float64) * 2 - 1).T).ravel()  # [P / 8 * 256]
    starts = np.arange(len(eights)) * 256
    drawn = _sign_bytes(len(differences), generator, all_bits)
    return np.concatenate([sums[signs + starts].sum(1) for signs in drawn])


def _sign_bytes(
    num_prompts: int, generator: np.random.Generator, all_bits: bool
) -> Iterator[NDArray[np.uint8]]:
    """Signs of NUM_PERMUTATIONS permutations, eight prompts a byte: blocks [rows, P / 8].

    Of each byte of the generator all bits are signs, or one.
    """
    for rows in _blocks(NUM_PERMUTATIONS, num_prompts):
        if all_bits:
            yield generator.integers(0, 256, (rows, -(-num_prompts // 8)), dtype=np.uint8)
        else:
            signs = generator.integers(0, 2, (rows, num_prompts), dtype=np.int8)
            yield np.packbits(signs.astype(np.uint8), axis=1)


def seed_interval(values: Sequence[float]) -> Interval:
    """Mean of independent values, one of each seed, with its 95 % t-interval.

    Several equal values show no spread to judge by, as coarse ones may by chance; like a single
    value they have no interval: low and high are NaN.
    """
    value, low, high, n = mean_interval(np.asarray(values, np.float64), np.arange(len(values)))
    known = high - low > 1e-12 * abs(value)
    return Interval(value, low if known else math.nan, high if known else math.nan, n)


def paired_t(differences: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean of the seeds' differences, its 95 % t-interval, and the p of the paired t-test.

    Where all of several are 0 the two are the same: the interval is 0 and p is 1.
    """
    from scipy.stats import ttest_1samp

    value, low, high, n = seed_interval(differences)
    if n > 1 and not np.any(differences):
        return 0.0, 0.0, 0.0, 1.0
    p_value = math.nan if math.isnan(low) else float(ttest_1samp(differences, 0.0).pvalue)
    return value, low, high, p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given; NaN stays NaN and does not count."""
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[k] = largest
    return adjusted
