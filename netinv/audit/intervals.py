"""Exact intervals of shares and of true positive rates, on which an audit decides."""

import numpy as np
from numpy.typing import NDArray

from netinv.results import LEVEL, Estimate, Measure, NotMeasured, exact_interval

Floats = NDArray[np.float64]


def share(count: int, num: int) -> Measure:
    """A share of independent samples with its exact interval."""
    if not num:
        return NotMeasured(not_measured="there are no samples")
    low, high = exact_interval(count, num, (1 - LEVEL) / 2)
    return Estimate(value=count / num, low=low, high=high, n=num)


def true_positive_rate(members: Floats, others: Floats, rate: float) -> Measure:
    """Share of members whose score lies above the threshold that lets a share of the others through.

    The interval is exact, and holds for the uncertainty of the threshold, too: the true false positive rate of the
    threshold at the k-th largest of M scores follows a Beta distribution whatever the scores are, so that its ends come
    from a threshold that is surely strict enough and one that is surely loose enough, each with a Clopper-Pearson bound
    on the share of members above it. Where M is too small for that, an end is 0 or 1.

    Args:
        members: Scores of those that the attack should find, (N,); larger is more likely a member.
        others: Scores of those that it should not, (M,).
        rate: False positive rate.
    """
    from scipy.special import betainc  # imported here: settings are read without scipy

    num, allowed = len(others), int(rate * len(others))
    if not len(members):
        return NotMeasured(not_measured="there are no members")
    if not allowed:
        return NotMeasured(
            not_measured=f"{num} images that the classifier never saw show no false positive rate of {rate:.1%}, at "
            f"least {int(np.ceil(1 / rate))} are needed"
        )
    falling = np.sort(others)[::-1]
    side = (1 - LEVEL) / 4  # two errors, of the threshold and of the share, at each end
    let_through = np.arange(num)
    # P(FPR <= rate) of the threshold that lets k others through, falling in k.
    strict_enough = betainc(let_through + 1, num - let_through, rate)
    strict = np.flatnonzero(strict_enough >= 1 - side)
    loose = np.flatnonzero(strict_enough <= side)
    low, high = 0.0, 1.0
    if len(strict):
        low, _ = exact_interval(int((members > falling[strict[-1]]).sum()), len(members), side)
    if len(loose):
        _, high = exact_interval(int((members >= falling[loose[0]]).sum()), len(members), side)
    value = float((members > falling[allowed]).mean()) if allowed < num else 1.0
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=min(num, len(members)))
