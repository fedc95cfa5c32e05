"""The constants behind every interval, and what an interval is made of, to the last digit."""

import math

import numpy as np
import pytest
from draws import library_numpy_rng
from scipy.stats import norm

from netinv.results import LEVEL, MIN_SAMPLES, SPREAD_RESAMPLES, Bootstrap, Estimate, NotMeasured, spread_estimate
from netinv.results.estimates import MAX_DRAWN, Z


def test_a_spread_is_ninety_five_percent_of_a_normal_distribution() -> None:
    assert LEVEL == 0.95
    assert pytest.approx(norm.ppf(0.975), abs=1e-6) == Z
    replicates = [1.0, 2.0, 4.0, 9.0]
    found = spread_estimate(5.0, replicates, 40)
    margin = norm.ppf(0.975) * np.std(replicates, ddof=1)
    assert isinstance(found, Estimate)
    assert (found.value, found.n) == (5.0, 40)
    assert (found.low, found.high) == pytest.approx((5 - margin, 5 + margin), rel=1e-6)
    for within, bounds in (((0, 6), (0, 6)), ((-9, 99), (found.low, found.high)), ((6, 99), (5, found.high))):
        held = spread_estimate(5.0, replicates, 40, within)
        assert isinstance(held, Estimate)
        assert (held.low, held.high) == bounds  # but never beside the value itself


def test_a_spread_of_what_is_not_finite_is_none() -> None:
    for value, replicates in ((math.nan, [1.0, 2.0]), (1.0, [1.0, math.inf])):
        assert spread_estimate(value, replicates, 5) == NotMeasured(not_measured="the result is not finite")


@pytest.mark.parametrize("distinct", [20, 21])
def test_an_interval_is_between_the_quantiles_of_the_resampled_means(distinct: int) -> None:
    values = np.arange(60) % distinct * 0.5
    found = Bootstrap(4, 400).mean(values)
    assert isinstance(found, Estimate)
    assert (found.value, found.n) == (pytest.approx(values.mean()), 60)
    rng = library_numpy_rng(4)
    if distinct == 20:
        means = rng.multinomial(60, [1 / 20] * 20, size=400) @ np.unique(values) / 60
    else:
        means = values[rng.integers(0, 60, (400, 60))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_large_samples_are_resampled_in_blocks() -> None:
    num = MAX_DRAWN // 3
    values = library_numpy_rng(0).random(num)
    found = Bootstrap(0, 7).mean(values)
    assert isinstance(found, Estimate)
    rng = library_numpy_rng(0)
    means = [values[rng.integers(0, num, (size, num))].mean(axis=1) for size in (3, 3, 1)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(np.concatenate(means), [0.025, 0.975])))


@pytest.mark.parametrize(("share", "num"), [(0.0, 40), (1.0, 25)])
def test_none_or_all_is_bounded_exactly(share: float, num: int) -> None:
    margin = 1 - 0.025 ** (1 / num)
    low, high = (0.0, margin) if share == 0 else (1 - margin, 1.0)
    found = Bootstrap(0).mean(np.full(num, bool(share)))
    assert isinstance(found, Estimate)
    assert (found.value, found.n) == (share, num)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_ten_samples_are_enough_and_nine_are_not() -> None:
    assert MIN_SAMPLES == 10
    assert isinstance(Bootstrap(0).mean(np.arange(10)), Estimate)
    assert Bootstrap(0).mean(np.arange(9)) == NotMeasured(not_measured="9 samples, at least 10 are needed")


def test_draws_are_fifty_resamples_of_all() -> None:
    draws = list(Bootstrap(3).draws(30, stream=2))
    assert len(draws) == SPREAD_RESAMPLES == 50
    rng = library_numpy_rng([3, 2])
    assert all(np.array_equal(draw, rng.integers(0, 30, 30)) for draw in draws)
    first = next(iter(Bootstrap(3).draws(30)))
    assert np.array_equal(first, library_numpy_rng([3, 0]).integers(0, 30, 30))


def test_a_thousand_resamples_are_the_default() -> None:
    values = library_numpy_rng(0).random(30)
    assert Bootstrap(1) == Bootstrap(1, 1000)
    assert Bootstrap(1).mean(values) == Bootstrap(1, 1000).mean(values) != Bootstrap(1, 999).mean(values)
