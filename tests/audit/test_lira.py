"""LiRA against an independent plain reading of its published code, and its intervals against what they promise."""

import math

import numpy as np
import pytest
import torch
from draws import numpy_rng, torch_rng
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_curve

from netinv.audit.intervals import share, true_positive_rate
from netinv.audit.lira import MANY, confidence, scores
from netinv.results import Estimate, NotMeasured

Floats = NDArray[np.float64]


def made_up(models: int, images: int = 300, gain: float = 1.5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Logits (models + 1, images, 4) of models that are surer of what they saw, labels, and who saw what.

    Half of the models saw each image; the last one is the target, which saw the first half of the images.
    """
    rng, draws = torch_rng(seed), numpy_rng(seed)
    label = torch.randint(0, 4, (images,), generator=rng)
    seen = torch.zeros(models + 1, images, dtype=torch.bool)
    for pair in range(models // 2):
        seen[2 * pair] = torch.from_numpy(draws.permutation(images) < images // 2)
        seen[2 * pair + 1] = ~seen[2 * pair]
    seen[-1, : images // 2] = True
    logits = torch.randn(models + 1, images, 4, generator=rng, dtype=torch.float64)
    hard = torch.randn(images, generator=rng, dtype=torch.float64)
    logits[:, torch.arange(images), label] += 2 + 2 * hard + gain * seen
    return logits, label, seen


# What the published code does (research/mi_lira_2021, score.py and plot.py), written down anew in plain loops.


def plain_confidence(logits: torch.Tensor, label: torch.Tensor) -> Floats:
    """The log of the true class's probability less that of the sum of the others', (models, images)."""
    found = []
    for model in logits.numpy():
        row = []
        for values, y in zip(model, label.numpy(), strict=True):
            p = np.exp(values - values.max())
            p /= p.sum()
            row.append(np.log(p[y] + 1e-45) - np.log(sum(p[k] for k in range(len(p)) if k != y) + 1e-45))
        found.append(row)
    return np.array(found)


def plain_offline(keep: NDArray[np.bool_], values: Floats, target: Floats, fix_variance: bool) -> Floats:
    """The log-density of the target's confidence under the normal of the models that did not keep the image."""
    out = [values[~keep[:, j], j] for j in range(values.shape[1])]
    size = min(map(len, out))
    kept = np.array([row[:size] for row in out])
    mean = np.array([np.median(row) for row in kept])
    deviation = np.std(kept) if fix_variance else np.array([np.std(row) for row in kept])
    found: Floats = stats.norm.logpdf(target, mean, deviation + 1e-30)
    return found


@pytest.mark.parametrize("own_deviation", [False, True])
def test_scores_are_those_of_the_published_code(own_deviation: bool) -> None:
    logits, label, seen = made_up(24)
    plain = plain_confidence(logits, label)
    ours = np.stack([confidence(model, label) for model in logits])
    np.testing.assert_allclose(ours, plain, rtol=1e-9)
    keep = seen.numpy()
    z = scores(ours[-1], ours[:-1], ~keep[:-1], own_deviation)
    density = plain_offline(keep[:-1], plain[:-1], plain[-1], fix_variance=not own_deviation)
    # Theirs is the density of the same normal at the same place: it tells z but for its sign, and the deviation.
    out = np.array([plain[:-1][~keep[:-1, j], j] for j in range(len(label))])
    deviation = np.std(out, axis=1) if own_deviation else np.std(out)
    expected = -(z**2) / 2 - np.log(deviation + 1e-30) - math.log(2 * math.pi) / 2
    np.testing.assert_allclose(density, expected, rtol=1e-9)
    assert np.array_equal(z > 0, plain[-1] > np.median(out, axis=1))


def test_true_positive_rates_are_those_of_the_published_code() -> None:
    """Theirs sweeps thresholds with scikit-learn, and takes the last point below the false positive rate."""
    logits, label, seen = made_up(16, images=4000)
    ours = np.stack([confidence(model, label) for model in logits])
    keep = seen.numpy()
    z = scores(ours[-1], ours[:-1], ~keep[:-1])
    chance = stats.norm.sf(z)  # the paper's test: how likely a model that never saw the image is as sure
    false, true, _ = roc_curve(keep[-1], -chance, drop_intermediate=False)
    for rate in (0.001, 0.01):
        found = true_positive_rate(z[keep[-1]], z[~keep[-1]], rate)
        assert isinstance(found, Estimate)
        # With 2,000 others a rate is met exactly, where theirs stays below it.
        assert found.value == pytest.approx(true[false <= rate + 1e-12][-1])
        assert true[false < rate][-1] <= found.value
        assert found.low <= found.value <= found.high
    assert true_positive_rate(z[keep[-1]], z[~keep[-1]], 0.01).low > 0.01


def test_members_stand_out_only_where_there_are_any() -> None:
    for gain, stands_out in ((0.0, False), (3.0, True)):
        logits, label, seen = made_up(16, images=1000, gain=gain)
        ours = np.stack([confidence(model, label) for model in logits])
        keep = seen.numpy()
        z = scores(ours[-1], ours[:-1], ~keep[:-1])
        difference = stats.mannwhitneyu(z[keep[-1]], z[~keep[-1]], alternative="greater")
        assert (difference.pvalue < 1e-4) == stands_out


def test_few_models_share_a_deviation_and_many_have_their_own() -> None:
    for models in (MANY - 2, MANY):
        logits, label, seen = made_up(models, images=50)
        ours = np.stack([confidence(model, label) for model in logits])
        args = (ours[-1], ours[:-1], ~seen.numpy()[:-1])
        assert np.array_equal(scores(*args), scores(*args, own_deviation=models >= MANY))


def test_every_image_needs_as_many_models_without_it() -> None:
    with pytest.raises(ValueError, match="as many shadow models without each image, got 1 to 2"):
        scores(np.zeros(2), np.zeros((2, 2)), np.array([[True, True], [True, False]]))
    with pytest.raises(ValueError, match="got 0 to 2"):
        scores(np.zeros(2), np.zeros((2, 2)), np.array([[True, False], [True, False]]))


# Intervals


def test_shares_have_exact_intervals() -> None:
    for count, num in ((0, 30), (3, 30), (30, 30)):
        found = share(count, num)
        exact = stats.binomtest(count, num).proportion_ci(0.95, "exact")
        assert isinstance(found, Estimate)
        assert (found.value, found.low, found.high) == pytest.approx((count / num, exact.low, exact.high))
    assert isinstance(share(0, 0), NotMeasured)


@pytest.mark.parametrize(("others", "rate"), [(500, 0.01), (2000, 0.01), (6000, 0.001)])
def test_intervals_of_true_positive_rates_hold_what_they_promise(others: int, rate: float) -> None:
    rng = numpy_rng(others)
    true = stats.norm.sf(stats.norm.isf(rate) - 1.0)  # members lie one deviation higher
    hits = 0
    for _ in range(200):
        found = true_positive_rate(rng.normal(1, 1, 300), rng.normal(0, 1, others), rate)
        assert isinstance(found, Estimate)
        hits += found.low <= true <= found.high
    assert hits >= 186  # 190 expected, if it were not wider than it need be


def test_where_there_is_nothing_to_find_the_interval_covers_the_rate() -> None:
    rng = numpy_rng(3)
    misses = sum(true_positive_rate(rng.normal(size=300), rng.normal(size=500), 0.01).low > 0.01 for _ in range(200))
    assert misses <= 10


def test_too_few_strangers_show_no_small_rate() -> None:
    found = true_positive_rate(np.arange(300.0), np.arange(355.0), 0.001)
    assert isinstance(found, NotMeasured)
    assert found.not_measured.endswith("show no false positive rate of 0.1%, at least 1000 are needed")
    # So few allow a number, but nothing that is sure: no threshold is surely strict enough.
    found = true_positive_rate(np.full(300, 9.0), np.arange(150.0) / 150, 0.01)
    assert isinstance(found, Estimate)
    assert (found.value, found.low) == (1.0, 0.0)
    assert isinstance(true_positive_rate(np.array([]), np.arange(150.0), 0.01), NotMeasured)
