"""Resamples of prompts and flips of signs, drawn in blocks of one size however many there are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array

NUM_PERMUTATIONS = 9_999
# Beyond so many prompts a form without resamples takes over wherever it is as good.
MANY_PROMPTS = 1_000
BLOCK = 2**20  # random numbers at a time, 8 MB as float64, however many there are of them in all


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


def sign_flip_p_value(differences: Array, seed: int) -> float:
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
