"""Intervals: do they cover, and do they say so when they cannot?"""

import numpy as np
import pytest
from draws import numpy_rng
from scipy.special import logit
from scipy.stats import binom

from netinv.core import InputError
from netinv.results import MIN_SAMPLES, Bootstrap, Estimate, NotMeasured, spread_estimate, spread_within


def estimate(measure: object) -> Estimate:
    assert isinstance(measure, Estimate)
    return measure


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_a_mean_lies_in_its_interval_nineteen_times_in_twenty(kind: str) -> None:
    rng = numpy_rng(0)
    truth = 0.3 if kind == "binary" else 1.0
    hits = 0
    for i in range(300):
        values = rng.random(100) < truth if kind == "binary" else rng.exponential(truth, 100)
        found = estimate(Bootstrap(seed=i, resamples=200).mean(values))
        assert found.low < found.value < found.high
        hits += found.low <= truth <= found.high
    assert 0.88 <= hits / 300 <= 0.99


def test_the_short_cut_for_few_distinct_values_is_the_bootstrap() -> None:
    values = np.where(numpy_rng(0).random(400) < 0.2, 1.0, 0.0)
    short = estimate(Bootstrap(0, 5000).mean(values))
    jitter = 1e-9 * np.arange(400)  # all distinct: each sample is drawn
    long = estimate(Bootstrap(0, 5000).mean(values + jitter))
    assert (short.low, short.high) == pytest.approx((long.low, long.high), abs=0.004)


@pytest.mark.parametrize(("share", "num"), [(0.995, 2048), (0.9, 30), (0.5, 200), (0.002, 1000)])
def test_a_proportion_is_missed_on_neither_side_more_often_than_told(share: float, num: int) -> None:
    """Reckoned over every count that there can be."""
    likely = [k for k in range(num + 1) if binom.pmf(k, num, share) > 1e-9]
    found = {k: estimate(Bootstrap(0).mean(np.arange(num) < k)) for k in likely}
    above = sum(binom.pmf(k, num, share) for k in likely if found[k].low > share)
    below = sum(binom.pmf(k, num, share) for k in likely if found[k].high < share)
    assert max(above, below) <= 0.025 + 1e-6


@pytest.mark.parametrize("value", [False, True])
def test_none_or_all_of_n_gets_the_exact_bound(value: bool) -> None:
    found = estimate(Bootstrap(0).mean(np.full(50, value)))
    assert found.value == value
    bound = found.high if value == 0 else 1 - found.low
    assert binom.cdf(0, 50, bound) == pytest.approx(0.025)


@pytest.mark.parametrize("value", [0.0, 1.0, 3.5])
def test_equal_values_other_than_proportions_have_no_spread(value: float) -> None:
    assert Bootstrap(0).mean(np.full(20, value)) == Estimate(value=value, low=value, high=value, n=20)


def test_an_interval_holds_its_value_to_the_last_digit() -> None:
    for share in np.arange(1, 100) / 100:
        for num in (30, 300, 333):
            found = Bootstrap(seed=0, resamples=100).mean(np.full(num, share))
            assert isinstance(found, Estimate)
            assert found.low <= found.value <= found.high == pytest.approx(found.low)


def test_what_cannot_be_measured_says_why() -> None:
    few = Bootstrap(0).mean(np.ones(MIN_SAMPLES - 1))
    assert few == NotMeasured(not_measured="9 samples, at least 10 are needed")
    values = np.ones(20)
    values[3] = np.nan
    assert Bootstrap(0).mean(values) == NotMeasured(not_measured="1 of 20 values are not finite")
    assert isinstance(spread_estimate(float("nan"), [1.0, 2.0], 5), NotMeasured)
    assert isinstance(spread_estimate(1.0, [1.0, float("inf")], 5), NotMeasured)
    with pytest.raises(InputError):
        Estimate(value=float("nan"), low=0, high=1, n=5)


def test_a_spread_covers_the_statistic_of_the_population() -> None:
    rng = numpy_rng(1)
    hits = 0
    for i in range(200):
        values = rng.normal(0, 2, 150)
        replicates = [float(values[index].std()) for index in Bootstrap(i).draws(150)]
        found = estimate(spread_estimate(float(values.std(ddof=1)), replicates, 150))
        hits += found.low <= 2 <= found.high
    assert hits / 200 >= 0.86


def test_a_spread_within_bounds_is_that_of_the_log_odds() -> None:
    replicates = [0.85, 0.9, 0.95, 0.99]
    plain, found = (estimate(make(0.9, replicates, 40)) for make in (spread_estimate, spread_within))
    margin = (plain.high - 0.9) / (0.9 * 0.1)
    assert (logit(found.low), logit(found.high)) == pytest.approx((logit(0.9) - margin, logit(0.9) + margin))
    assert plain.high > 1 > found.high > found.value > found.low
    for value in (0.0, 1.0):
        assert spread_within(value, [value] * 3, 40) == Bootstrap(0).mean(np.full(40, value == 1))
    same = estimate(spread_within(0.3, [0.3] * 3, 40))
    assert 0.3 - 1e-9 < same.low <= same.value == 0.3 <= same.high < 0.3 + 1e-9
    wide = estimate(spread_within(1e-9, [0.0, 1.0], 40))
    assert (wide.low, wide.high) == pytest.approx((0, 1))
    assert isinstance(spread_within(float("nan"), [0.5, 0.6], 40), NotMeasured)


def test_the_seed_fixes_everything_and_streams_differ() -> None:
    values = numpy_rng(0).random(100)
    assert Bootstrap(3).mean(values) == Bootstrap(3).mean(values) != Bootstrap(4).mean(values)
    first, again, other = (next(iter(Bootstrap(3).draws(50, stream))) for stream in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_measure_is_told_in_one_form_and_has_a_number_or_none() -> None:
    found, missing = Estimate(value=0.98765, low=0.98, high=0.99, n=100), NotMeasured(not_measured="there is none")
    assert (str(found), f"{missing}") == ("0.9877 (0.98 to 0.99)", "not measured: there is none")
    assert missing.value is None
    assert missing.model_dump() == {"not_measured": "there is none"}
