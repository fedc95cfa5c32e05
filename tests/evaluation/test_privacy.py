"""The privacy audit: what must be caught is caught, and chance is not."""

import numpy as np
import pytest
import torch
from draws import torch_rng
from torch import Tensor

from netinv.evaluation.privacy import MIN_POOL, Pools, memorisation_test, not_audited
from netinv.results import Audit, Comparison, Estimate, NotMeasured

NUM_CLASSES = 4


def pictures(num: int, seed: int) -> Tensor:
    """Smooth random images, 1 x 10 x 10: all from one distribution."""
    rng = torch_rng(seed)
    coarse = torch.rand(num, 1, 4, 4, generator=rng)
    return torch.nn.functional.interpolate(coarse, size=10, mode="bilinear")


def make_pools(seed: int = 0, size: int = 150) -> Pools:
    train, test = pictures(size, 1000 + seed), pictures(size, 2000 + seed)
    index = np.arange(size)
    return Pools(train, test, train.flatten(1), test.flatten(1), index, index + 7)


def run(pools: Pools, images: Tensor, permutations: int = 1000) -> Audit:
    label = torch.arange(len(images)) % NUM_CLASSES
    return memorisation_test(pools, images, images.flatten(1), label, NUM_CLASSES, seed=0, permutations=permutations)


def comparison(found: Audit, kind: str) -> Comparison:
    result = found.comparisons[kind]
    assert isinstance(result, Comparison)
    return result


def value(measure: object) -> float:
    assert isinstance(measure, Estimate)
    return measure.value


def test_replayed_training_images_are_caught() -> None:
    pools = make_pools()
    found = run(pools, pools.images[:100])
    assert found.memorised
    assert "leak" in found.verdict
    assert "outnumber those of test images (pixel: 100.0% against " in found.verdict
    for kind in ("pixel", "ssim", "feature"):
        of = comparison(found, kind)
        assert value(of.train) == pytest.approx(0, abs=1e-6)
        assert value(of.test) > 0
        assert isinstance(of.train_minus_test, Estimate)
        assert of.train_minus_test.high < 0
        assert of.p_value < 0.002


def test_replay_is_caught_under_noise_and_when_it_is_rare() -> None:
    pools = make_pools()
    noisy = (pools.images[:100] + 0.03 * torch.randn(100, 1, 10, 10)).clamp(0, 1)
    assert run(pools, noisy).memorised
    rare = torch.cat([pictures(280, 5), pools.images[:20]])
    found = run(pools, rare)
    assert found.memorised
    assert comparison(found, "pixel").copies_p_value < 0.1  # of 60 draws 0.037 at most, nearly always 0.001


@pytest.mark.parametrize(("num", "memorised"), [(1, None), (2, True), (5, True), (10, True)])
def test_few_training_images_replayed_are_no_sign_of_innocence(num: int, memorised: bool | None) -> None:
    """One of each class: names are permuted image by image, so that chance alone gives a p-value of 2^-num."""
    pools = make_pools()
    # Neither near a test image nor so far from all that chance accuses of one alone.
    order = torch.cdist(pools.images[:150].flatten(1), pools.images[150:].flatten(1)).amin(dim=1).argsort()
    found = run(pools, pools.images[order[75 : 75 + num]].repeat(200 // num, 1, 1, 1))
    assert found.memorised is memorised
    assert "near copies of training images outnumber those of test images (" in found.verdict
    assert ": 100.0% against " in found.verdict  # by pixels or by structure, whichever draws no stranger as near
    assert "No sign" not in found.verdict


def test_replayed_test_images_do_not_accuse() -> None:
    pools = make_pools()
    found = run(pools, pools.images[pools.size : pools.size + 100])
    assert found.memorised is False
    assert value(comparison(found, "pixel").train_minus_test) > 0


def test_chance_is_not_taken_for_memory() -> None:
    """Fresh images of the same distribution, and a generator that repeats three of them."""
    alarms = 0
    for seed in range(30):
        pools = make_pools(seed, size=MIN_POOL)
        fresh = pictures(60, 3000 + seed)
        alarms += bool(run(pools, fresh, 500).memorised)
        alarms += bool(run(pools, fresh[:3].repeat(20, 1, 1, 1), 500).memorised)
    assert alarms <= 5  # of 60, at a level of 0.01: one run in 20,000 has more


def test_the_permutation_interval_covers_no_difference() -> None:
    hits = 0
    for seed in range(60):
        audited = run(make_pools(seed, size=MIN_POOL), pictures(40, 4000 + seed), permutations=200)
        found = comparison(audited, "pixel").train_minus_test
        assert isinstance(found, Estimate)
        hits += found.low <= 0 <= found.high
    assert hits >= 49  # 57 expected; one run in 30,000 has fewer


def test_pairs_point_at_the_images_they_name() -> None:
    pools = make_pools()
    images = torch.cat([pools.images[[30, 61, 92, 123]], pictures(36, 6)])
    found = run(pools, images)
    pairs = {(pair.distance, pair.label): pair for pair in found.pairs}
    assert len(pairs) == 3 * NUM_CLASSES
    for label, place in enumerate((30, 61, 92, 123)):
        for distance in ("pixel", "ssim", "feature"):
            pair = pairs[distance, label]
            assert (pair.sample, pair.train) == (label, place)
            assert pair.train_distance < pair.test_distance
        pair = pairs["pixel", label]
        control = pools.images[pools.size + pair.test - 7]  # test images were numbered from 7
        assert float((control - images[label]).norm()) == pytest.approx(pair.test_distance, rel=1e-4)


def test_each_class_has_its_own_difference() -> None:
    pools = make_pools()
    images = pictures(80, 8)
    images[2::4] = pools.images[:20]  # class 2 replays
    by_class = comparison(run(pools, images), "pixel").by_class
    assert isinstance(by_class[2], Estimate)
    assert by_class[2].high < 0
    for measure in (*by_class[:2], *by_class[3:]):
        assert isinstance(measure, Estimate)
        assert measure.value + 2 * (measure.high - measure.value) > 0  # one interval in forty lies below by chance


def test_what_cannot_be_audited_says_why() -> None:
    pools = make_pools()
    few = run(pools, pictures(5, 0))
    assert few.memorised is None
    assert few.verdict == "Not audited: 5 samples, at least 10 are needed."
    assert not_audited("there is nothing").memorised is None
    images = pictures(50, 0)
    found = memorisation_test(pools, images, None, torch.zeros(50, dtype=torch.long), NUM_CLASSES, seed=0)
    assert found.comparisons["feature"] == NotMeasured(not_measured="no evaluator was given")
    assert comparison(found, "pixel").by_class[1] == NotMeasured(not_measured="0 samples, at least 10 are needed")
    index = np.arange(60)
    small = Pools(torch.rand(60, 1, 5, 5), torch.rand(60, 1, 5, 5), None, None, index, index)
    found = memorisation_test(
        small, torch.rand(20, 1, 5, 5), None, torch.zeros(20, dtype=torch.long), NUM_CLASSES, seed=0
    )
    assert found.comparisons["ssim"] == NotMeasured(not_measured="the images are smaller than the 7 x 7 window")
    with pytest.raises(ValueError, match="at least 50"):
        Pools(images[:20], images[:20], None, None, index[:20], index[:20])


def test_constant_images_are_audited() -> None:
    found = run(make_pools(), torch.full((40, 1, 10, 10), 0.5))
    assert found.memorised is None
    assert found.verdict.startswith("Too few different images to tell whether training images leak")
