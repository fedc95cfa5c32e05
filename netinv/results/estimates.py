"""A measured number with its confidence interval, or the reason why there is none."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from netinv.core import Config

Floats = NDArray[np.float64]

MIN_SAMPLES = 10
"""Fewer samples than this give no mean worth an interval."""
SPREAD_RESAMPLES = 50
"""Resamples behind a standard error; 50 are enough for one (Efron and Tibshirani, An Introduction to the Bootstrap)."""
MAX_DRAWN = 1_000_000
"""Values that are resampled at a time."""
LEVEL = 0.95
"""Confidence level of every interval."""
Z = 1.959964
"""Quantile of the normal distribution for that level."""


Finite = Annotated[float, Field(ge=-1e15, le=1e15)]


class Estimate(Config):
    """A number and its 95 % bootstrap interval."""

    value: Finite
    low: Finite
    high: Finite
    n: NonNegativeInt
    """Samples behind the number."""

    def __str__(self) -> str:
        """The number and its interval, as people read them.

        Example:
            >>> str(Estimate(value=0.98765, low=0.98, high=0.99, n=100))
            '0.9877 (0.98 to 0.99)'
        """
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


class NotMeasured(Config):
    """What stands in a number's place when there is none."""

    not_measured: str
    """Why, as a clause."""

    @property
    def value(self) -> None:
        """There is none, so that every measure can be asked for its number."""
        return None

    def __str__(self) -> str:
        """The reason, as people read it."""
        return f"not measured: {self.not_measured}"


Measure = Estimate | NotMeasured


class Bootstrap(NamedTuple):
    """Confidence intervals by resampling. The same seed gives the same intervals, in whatever order they are made."""

    seed: int
    resamples: int = 1000
    """Resamples behind a percentile interval."""

    def mean(self, values: NDArray[np.generic]) -> Measure:
        """Mean of independent values, one for each sample, (N,), with its percentile interval.

        A proportion, so the mean of values of type bool, has the exact interval (:func:`exact_interval`): near 0 and 1
        resampling shows too little spread, and on the wrong side.
        """
        num = len(values)
        if num < MIN_SAMPLES:
            return NotMeasured(not_measured=f"{num} samples, at least {MIN_SAMPLES} are needed")
        if values.dtype == bool:
            low, high = exact_interval(int(values.sum()), num, (1 - LEVEL) / 2)
            return Estimate(value=float(values.mean()), low=low, high=high, n=num)
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            return NotMeasured(not_measured=f"{int((~np.isfinite(values)).sum())} of {num} values are not finite")
        mean = float(values.mean())
        rng = np.random.default_rng(self.seed)
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= 20:
            # The counts of a resample are multinomial: the same bootstrap, without drawing each sample.
            means = rng.multinomial(num, counts / num, size=self.resamples) @ distinct / num
        else:
            block = max(1, MAX_DRAWN // num)
            sizes = [min(block, self.resamples - done) for done in range(0, self.resamples, block)]
            means = np.concatenate([values[rng.integers(0, num, (size, num))].mean(axis=1) for size in sizes])
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        # Equal values have one mean, which each way of summing them rounds in its own way.
        return Estimate(value=mean, low=min(float(low), mean), high=max(float(high), mean), n=num)

    def draws(self, num: int, stream: int = 0) -> Iterator[NDArray[np.int64]]:
        """Indices (num,) of ``SPREAD_RESAMPLES`` resamples of a sample of ``num``; streams are independent."""
        rng = np.random.default_rng([self.seed, stream])
        for _ in range(SPREAD_RESAMPLES):
            yield rng.integers(0, num, num)


def spread_estimate(
    value: float, replicates: Sequence[float] | Floats, n: int, within: tuple[float, float] = (-math.inf, math.inf)
) -> Measure:
    """A statistic with its normal bootstrap interval: the value and 1.96 standard deviations of its replicates.

    For statistics of a whole sample, such as a Vendi score: a resample repeats samples, which shifts them (duplicates
    are less diverse), so that only the spread of their replicates is of use, not their place.

    Args:
        value: The statistic of the sample itself.
        replicates: The statistic of each resample.
        n: Samples behind the value.
        within: Where such a statistic lies; its interval ends there.
    """
    if not (math.isfinite(value) and np.isfinite(replicates).all()):
        return NotMeasured(not_measured="the result is not finite")
    margin = Z * float(np.std(replicates, ddof=1))
    low, high = max(value - margin, within[0]), min(value + margin, within[1])
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n)


def spread_within(value: float, replicates: Sequence[float] | Floats, n: int) -> Measure:
    """:func:`spread_estimate` of a statistic that lies in [0, 1], on the scale of its log odds: within [0, 1], too.

    At 0 and 1 resampling shows no spread. The interval is then that of none or all of n: of an area under a curve, of n
    pairs that have no sample in common.
    """
    found = spread_estimate(value, replicates, n)
    if isinstance(found, NotMeasured):
        return found
    if not 0 < value < 1:
        low, high = exact_interval(round(value) * n, n, (1 - LEVEL) / 2)
    else:
        odds, margin = math.log(value / (1 - value)), (found.high - value) / (value * (1 - value))
        low, high = (1 / (1 + math.exp(min(-end, 700))) for end in (odds - margin, odds + margin))
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n)


def exact_interval(count: int, num: int, side: float) -> tuple[float, float]:
    """Bounds of a share of independent samples, each of which errs with a probability of at most ``side``.

    Source: Clopper and Pearson, The use of confidence or fiducial limits (1934).
    """
    from scipy.special import betaincinv  # imported here: what reads results alone needs no scipy

    low = float(betaincinv(count, num - count + 1, side)) if count else 0.0
    high = float(betaincinv(count + 1, num - count, 1 - side)) if count < num else 1.0
    return low, high
