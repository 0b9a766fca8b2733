"""Both ends of a 95 % interval, from a value, its error and how it is distributed.

Chosen by simulation (`benchmarks/coverage.py` prints what they hold). Means: Hall's transformation;
differences: the t-interval, whose skewness cancels; values between two bounds: mid-P limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ends = tuple[float, float]


class Part(NamedTuple):
    """Of an estimate's variance what is owed to the choice of so many prompts, seeds or people."""

    variance: float
    number: int


LEAST_P = 1e-15

LEVEL = 0.95
QUANTILES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_NORMAL = 1.959963984540054  # the normal distribution's quantile at QUANTILES[1]


def t_quantile(num_prompts: int) -> float:
    """Student's at QUANTILES[1] with one degree of freedom less than there are prompts."""
    from scipy.special import stdtrit

    return float(stdtrit(num_prompts - 1, QUANTILES[1])) if num_prompts > 1 else math.nan


def t_ends(value: float, error: float, num_prompts: int) -> Ends:
    """The t-interval's; NaN where the error is."""
    half = t_quantile(num_prompts) * error
    return value - half, value + half


def p_of_parts(value: float, parts: Sequence[Part]) -> float:
    """1 less the level at which an interval reaches 0 whose half width is the root of the sum of
    its parts' squares, each a standard error times Student's quantile; 0.05 is the 95 % one's."""
    from scipy.optimize import brentq
    from scipy.stats import t as student_t

    known = [part for part in parts if part.variance]
    if len(known) == 1:
        ((variance, number),) = known
        return 2 * float(student_t.sf(abs(value) / math.sqrt(variance), number - 1))

    def beyond(p_value: float) -> float:
        """How far the squared half width reaches beyond the value at this level."""
        quantiles = [float(student_t.isf(p_value / 2, part.number - 1)) for part in known]
        squares = (part.variance * t**2 for part, t in zip(known, quantiles, strict=True))
        return sum(squares) - value**2

    if beyond(LEAST_P) <= 0:
        return LEAST_P
    return float(brentq(beyond, LEAST_P, 1.0, xtol=1e-12)) if value else 1.0


def skewed_ends(value: float, error: float, skewness: float, num_prompts: int) -> Ends:
    """Of a mean of values that are skewed: Hall's cubic transformation of t (1992), inverted.

    T = t + g t^2 / 3 sqrt(P) + g^2 t^3 / 27 P + g / 6 sqrt(P) is without skewness to first order,
    and monotone; without skewness it is t. With exponential values and 20 prompts 94 % instead of
    the t-interval's 91 %.
    """
    if abs(skewness) < 1e-6 or not error > 0:
        return t_ends(value, error, num_prompts)
    slope, root = skewness / 3, math.sqrt(num_prompts)

    def inverse(transformed: float) -> float:
        inner = 1 + 3 * slope * (transformed / root - skewness / (6 * num_prompts))
        return root * (math.cbrt(inner) - 1) / slope

    high, low = (value - inverse(sign * t_quantile(num_prompts)) * error for sign in (-1, 1))
    return low, high


def skewness_of(residuals: Array) -> float:
    """Third moment over the standard deviation's cube; 0 where nothing varies."""
    spread = math.sqrt(float(np.square(residuals).mean()))
    return float(((residuals / spread) ** 3).mean()) if spread > 0 else 0.0


def share_ends(share: float, number: float, num_prompts: int, largest: float = 1.0) -> Ends:
    """Of a mean of values in [0, 1], within it whatever the mean: mid-P binomial limits.

    `number`: of independent yes-or-no answers that would have the mean's variance. They take the
    place of n, fewer for a t distribution's wider tails, as Korn and Graubard (1998) do with
    Clopper and Pearson's limits; mid-P keeps what those hold nearer to 95 %. Where all values are
    0, or all 1, the other end is what a share of unseen prompts may come to, one-sided at 97.5 %,
    each of them `largest` at most.
    """
    from scipy.optimize import brentq
    from scipy.special import betainc

    if share <= 0 or share >= 1:
        limit = largest * (1 - QUANTILES[0] ** (1 / number))
        return (1 - limit, 1.0) if share >= 1 else (0.0, limit)
    if number > 1e18:  # all alike: there is no spread to judge by
        return share, share
    number *= (_NORMAL / t_quantile(num_prompts)) ** 2
    yes, no = share * number, (1 - share) * number

    def end(tail: float) -> float:
        def beyond(x: float) -> float:
            return float((betainc(yes, no + 1, x) + betainc(yes + 1, no, x)) / 2) - tail

        return float(brentq(beyond, 0.0, 1.0, xtol=1e-18))

    return end(QUANTILES[0]), end(QUANTILES[1])


def correlation_of(a: Array, b: Array) -> float:
    """Of residuals [P], about 0; 0 where either does not vary."""
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else 0.0


def difference_ends(
    a: tuple[float, float, float], b: tuple[float, float, float], correlation: float
) -> Ends:
    """Of a - b from either's value, low and high, correlated over prompts.

    The method of variance estimates recovery (Zou and Donner 2008), Newcombe's (1998) for shares:
    each end takes the halves of the two intervals that point its way.
    """

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x + y * y - 2 * correlation * x * y, 0.0))

    value = a[0] - b[0]
    return value - reach(a[0] - a[1], b[2] - b[0]), value + reach(a[2] - a[0], b[0] - b[1])
