"""The privacy audit's parts against plain definitions, on pools small enough to be searched by hand."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import library_numpy_rng, library_torch_rng, numpy_rng
from made_up import K, pools
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from netinv.evaluation import privacy
from netinv.evaluation.judging import COPY_QUANTILE, Different, judged
from netinv.evaluation.metrics import nearest_neighbours, ssim
from netinv.evaluation.privacy import (
    MIN_POOL,
    NEIGHBOURS,
    Neighbours,
    Pools,
    membership,
    memorisation_test,
    not_audited,
    roc_auc,
)
from netinv.results import Bootstrap, Estimate, NotMeasured, spread_within

SIZE = 60


def pictures(num: int, seed: int, side: int = 8) -> Tensor:
    return torch.rand(num, 1, side, side, generator=library_torch_rng(seed))


def brute_force(kind: str, images: Tensor, features: Tensor, of: Pools, size: int | None = None) -> NDArray[np.float64]:
    """All distances, sorted, (N, ...)."""
    if kind == "pixel":
        return torch.cdist(images.flatten(1).double(), of.images.flatten(1).double()[:size]).numpy()
    assert kind == "feature"
    assert of.features is not None
    return torch.cdist(F.normalize(features, dim=1).double(), of.features.double()[:size]).numpy()


def test_pools_join_training_and_test_images() -> None:
    of = pools()
    assert of.size == SIZE
    assert torch.equal(of.images, torch.cat([pictures(SIZE, 1), pictures(SIZE, 2)]))
    assert of.index.tolist() == [*range(100, 160), *range(500, 560)]
    assert of.is_train.tolist() == [True] * SIZE + [False] * SIZE
    assert of.features is not None
    torch.testing.assert_close(of.features.norm(dim=1), torch.ones(2 * SIZE))
    features = pictures(SIZE, 1).flatten(1)[:, :6]
    torch.testing.assert_close(of.features[:SIZE], features / features.norm(dim=1, keepdim=True))
    index = np.arange(SIZE)
    for given in ((features, None), (None, features), (None, None)):
        assert Pools(pictures(SIZE, 1), pictures(SIZE, 2), *given, index, index).features is None


@pytest.mark.parametrize(("train", "test"), [(49, 49), (60, 59), (50, 60)])
def test_pools_are_of_one_size_and_not_too_small(train: int, test: int) -> None:
    index = np.arange(60)
    told = f"^Expected pools of one size of at least 50, got {train} and {test}$"
    with pytest.raises(ValueError, match=told):
        Pools(pictures(train, 1), pictures(test, 2), None, None, index[:train], index[:test])
    assert Pools(pictures(50, 1), pictures(50, 2), None, None, index[:50], index[:50]).size == MIN_POOL == 50


def test_a_near_copy_is_nearer_than_one_test_image_in_a_hundred_to_a_training_image() -> None:
    of = pools()
    tests = of.images[SIZE:]
    assert of.features is not None
    assert set(of.copy_distance) == {"pixel", "ssim", "feature"}
    for kind in ("pixel", "feature"):
        distances = brute_force(kind, tests, of.features[SIZE:], of, SIZE).min(axis=1)
        assert of.copy_distance[kind] == pytest.approx(np.quantile(distances, COPY_QUANTILE), rel=1e-5)  # type: ignore[index]
    nearest = nearest_neighbours(tests.flatten(1), of.images[:SIZE].flatten(1), NEIGHBOURS)[1]
    unlike = torch.stack([1 - ssim(tests, of.images[nearest[:, i]]) for i in range(NEIGHBOURS)], dim=1).amin(dim=1)
    assert of.copy_distance["ssim"] == pytest.approx(np.quantile(unlike.numpy(), COPY_QUANTILE), rel=1e-6)


def test_a_thousand_test_images_are_enough_for_that() -> None:
    size = 1010
    train, test = pictures(size, 1, 3), pictures(size, 2, 3)
    of = Pools(train, test, None, None, np.arange(size), np.arange(size))
    distances = torch.cdist(test.flatten(1).double(), train.flatten(1).double()).amin(dim=1)
    assert of.copy_distance["pixel"] == pytest.approx(float(np.quantile(distances[:1000], COPY_QUANTILE)), rel=1e-5)


def test_neighbours_are_the_nearest_of_both_pools() -> None:
    of = pools()
    images = pictures(10, 3)
    features = images.flatten(1)[:, :6]
    found = of.neighbours(images, features)
    assert set(found) == {"pixel", "ssim", "feature"}
    for kind in ("pixel", "feature"):
        distances = brute_force(kind, images, features, of)
        assert np.array_equal(found[kind].member, distances.argsort(axis=1)[:, :NEIGHBOURS])  # type: ignore[index]
        np.testing.assert_allclose(found[kind].distance, np.sort(distances, axis=1)[:, :NEIGHBOURS], rtol=1e-5)  # type: ignore[index]
    for row in range(10):
        near = found["pixel"].member[row]
        unlike = np.array([1 - float(ssim(images[row : row + 1], of.images[i : i + 1])) for i in near])
        order = unlike.argsort(kind="stable")
        assert found["ssim"].member[row].tolist() == near[order].tolist()
        np.testing.assert_allclose(found["ssim"].distance[row], unlike[order], rtol=1e-9)
    assert set(of.neighbours(images, None)) == {"pixel", "ssim"}
    some = of.neighbours(images, features, size=20)
    assert all(part.member.max() < 20 for part in some.values())
    small = pools(side=6)
    assert set(small.neighbours(pictures(10, 3, 6), features)) == {"pixel", "feature"}
    assert set(pools(side=7).neighbours(pictures(10, 3, 7), None)) == {"pixel", "ssim"}


def test_the_nearest_of_each_name_is_the_first_of_it() -> None:
    member = np.array([[0, 3, 1, 4], [3, 4, 5, 0], [0, 1, 2, 0], [4, 3, 5, 3]])
    distance = np.array([[0.1, 0.2, 0.3, 0.4]] * 4) + np.arange(4)[:, None]
    is_train = np.array([True, True, True, False, False, False])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(privacy, "NEIGHBOURS", 4)
    try:
        found = Neighbours(distance, member)
        train, test = privacy._split(found, is_train)
        assert (train.tolist(), test.tolist()) == ([0, 3, 0, 3], [1, 0, 3, 0])
        near = privacy._distances(found, is_train)
        assert near[0].tolist() == pytest.approx([0.1, 1.4, 2.1, 3.4])
        assert near[1].tolist() == pytest.approx([0.2, 1.1, 2.4, 3.1])
        both = privacy._split(found, np.stack([is_train, ~is_train]))
        assert both[0].tolist() == [[0, 3, 0, 3], [1, 0, 3, 0]]
        assert both[1].tolist() == [[1, 0, 3, 0], [0, 3, 0, 3]]
    finally:
        monkey.undo()


def compared(images: Tensor, labels: NDArray[np.int64], seed: int = 5, num: int = 120) -> tuple[Any, ...]:
    """A comparison by pixels, and what it was made of."""
    of = pools()
    found = of.neighbours(images, None)["pixel"]
    deals = library_numpy_rng(0).permuted(np.tile(of.is_train, (num, 1)), axis=1)
    copy_distance = float(np.median(found.distance[:, 0]))
    made = privacy._compare(found, of.is_train, [deals], copy_distance, labels, K, seed)
    return made, of, found, deals, copy_distance


def statistics(found: Neighbours, deal: NDArray[np.bool_], bound: float) -> tuple[Any, Any]:
    """Distances to the nearest of either name, plainly."""
    train, test = [], []
    for distances, members in zip(found.distance, found.member, strict=True):
        own = [d for d, m in zip(distances, members, strict=True) if deal[m]]
        other = [d for d, m in zip(distances, members, strict=True) if not deal[m]]
        train.append(own[0] if own else distances[-1])
        test.append(other[0] if other else distances[-1])
    return np.array(train), np.array(test)


def test_a_comparison_is_that_of_its_definition() -> None:
    images = torch.cat([pictures(30, 3), 0.9 * pictures(SIZE, 1)[:6]])
    labels = np.array([0, 1, 2] * 12)
    labels[labels == 2] = np.array([2] * 9 + [0] * 3)  # class 2 is left with 9 samples
    made, of, found, deals, bound = compared(images, labels)
    train, test = statistics(found, of.is_train, bound)
    bootstrap = Bootstrap(5)
    assert made.train == bootstrap.mean(train)
    assert made.test == bootstrap.mean(test)
    assert made.copies_train == bootstrap.mean(train < bound)
    assert made.copies_test == bootstrap.mean(test < bound)
    assert made.copy_distance == bound
    chance = [statistics(found, deal, bound) for deal in deals]
    differences = np.array([(a - b).mean() for a, b in chance])
    surplus = np.array([(a < bound).mean() - (b < bound).mean() for a, b in chance])
    own = (train - test).mean()
    own_surplus = (train < bound).mean() - (test < bound).mean()
    assert made.p_value == pytest.approx((1 + (differences <= own + 1e-12).sum()) / 121)
    assert made.copies_p_value == pytest.approx((1 + (surplus >= own_surplus - 1e-12).sum()) / 121)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert made.train_minus_test.n == 36
    assert made.train_minus_test.value == pytest.approx(own)
    assert made.train_minus_test.low == pytest.approx(own - high)
    assert made.train_minus_test.high == pytest.approx(own - low)
    for k in (0, 1):
        mine = labels == k
        of_class = np.array([(a - b)[mine].mean() for a, b in chance])
        low, high = np.quantile(of_class, [0.025, 0.975])
        value = (train - test)[mine].mean()
        assert made.by_class[k].n == mine.sum()
        assert made.by_class[k].value == pytest.approx(value)
        assert (made.by_class[k].low, made.by_class[k].high) == pytest.approx((value - high, value - low))
    assert made.by_class[2] == NotMeasured(not_measured="9 samples, at least 10 are needed")


def test_a_class_of_ten_samples_has_its_own_difference() -> None:
    labels = np.array([0] * 10 + [1] * 20)
    made = compared(pictures(30, 3), labels)[0]
    assert isinstance(made.by_class[0], Estimate)
    assert made.by_class[2] == NotMeasured(not_measured="0 samples, at least 10 are needed")


def test_the_real_deal_counts_among_all() -> None:
    assert privacy._p_value(np.zeros(99, bool)) == 0.01
    assert privacy._p_value(np.array([True, False, True])) == 0.75


def test_the_closest_pair_of_each_class_is_named() -> None:
    of = pools()
    images = pictures(30, 3)
    labels = np.array([0, 2] * 15)
    found = of.neighbours(images, None)["pixel"]
    pairs = privacy._closest_pairs("pixel", found, of, labels, images)
    assert [pair.label for pair in pairs] == [0, 2]
    train, test = statistics(found, of.is_train, 0.0)
    distances = brute_force("pixel", images, images, of)
    for pair in pairs:
        mine = np.flatnonzero(labels == pair.label)
        sample = mine[train[mine].argmin()]
        assert (pair.distance, pair.sample) == ("pixel", sample)
        assert (pair.train_distance, pair.test_distance) == (train[sample], test[sample])
        assert pair.train == 100 + distances[sample][:SIZE].argmin()
        assert pair.test == 500 + distances[sample][SIZE:].argmin()


def test_the_image_beside_a_sample_is_of_its_split_though_all_neighbours_are_of_the_other() -> None:
    of = pools()
    images = pictures(1, 3)
    member = np.arange(privacy.NEIGHBOURS)[None]  # training images
    for shift, others in ((0, "test"), (SIZE, "train")):
        found = privacy.Neighbours(np.linspace(0, 1, privacy.NEIGHBOURS)[None], member + shift)
        (pair,) = privacy._closest_pairs("ssim", found, of, np.array([0]), images)
        distances = brute_force("pixel", images, images, of)[0]
        nearest = 500 + distances[SIZE:].argmin() if others == "test" else 100 + distances[:SIZE].argmin()
        assert (pair.test if others == "test" else pair.train) == nearest


def test_different_images_are_counted_once() -> None:
    is_train = np.array([True, True, False, False])
    member, distance = np.array([[0, 1], [0, 2], [2, 0], [1, 3], [1, 0]]), np.array([[0.1], [0.2], [0.1], [0.3], [0.4]])
    assert privacy._different(Neighbours(distance, member), is_train, 0.25) == Different(nearest=3, copied=1)


def test_an_audit_is_made_of_its_parts() -> None:
    of = pools()
    images, label = pictures(30, 3), torch.arange(30) % K
    features = images.flatten(1)[:, :6]
    found = memorisation_test(of, images, features, label, K, seed=4, permutations=60)
    deals = library_numpy_rng(4).permuted(np.tile(of.is_train, (60, 1)), axis=1)
    near = of.neighbours(images, features)
    assert list(found.comparisons) == ["ssim", "feature", "pixel"]
    pairs = []
    for kind, part in near.items():
        args = (of.is_train, [deals], of.copy_distance[kind], label.numpy(), K, 4)
        assert found.comparisons[kind] == privacy._compare(part, *args)
        pairs += privacy._closest_pairs(kind, part, of, label.numpy(), images)
    assert found.pairs == tuple(pairs)
    assert found.pool == SIZE
    different = {kind: privacy._different(part, of.is_train, of.copy_distance[kind]) for kind, part in near.items()}
    assert (found.memorised, found.verdict) == judged(found.comparisons, different)
    by_default = memorisation_test(of, images, None, label, K, seed=4)
    assert by_default == memorisation_test(of, images, None, label, K, seed=4, permutations=1000)
    assert by_default.comparisons["feature"] == NotMeasured(not_measured="no evaluator was given")
    tiny = pools(side=6)
    small = memorisation_test(
        tiny, pictures(10, 3, 6), None, torch.zeros(10, dtype=torch.long), K, seed=4, permutations=60
    )
    assert small.comparisons["ssim"] == NotMeasured(not_measured="the images are smaller than the 7 x 7 window")
    few = memorisation_test(of, images[:9], None, label[:9], K, seed=4)
    assert few == not_audited("9 samples, at least 10 are needed")
    assert (few.verdict, few.memorised, few.pool) == ("Not audited: 9 samples, at least 10 are needed.", None, 0)
    assert (few.comparisons, few.pairs) == ({}, ())


# Membership


def test_membership_is_the_area_under_the_curve_of_the_loss() -> None:
    rng = library_torch_rng(0)
    logits = [torch.randn(num, K, generator=rng) for num in (70, 50)]
    labels = [torch.arange(num) % K for num in (70, 50)]
    bootstrap = Bootstrap(2)
    scores = [
        F.log_softmax(x.double(), 1).gather(1, y[:, None])[:, 0].numpy() for x, y in zip(logits, labels, strict=True)
    ]

    def auc(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean())

    draws = zip(bootstrap.draws(70, 0), bootstrap.draws(50, 1), strict=True)
    expected = spread_within(auc(*scores), [auc(scores[0][i], scores[1][j]) for i, j in draws], 50)
    found = membership(logits[0], labels[0], logits[1], labels[1], bootstrap)
    assert isinstance(found, Estimate)
    assert isinstance(expected, Estimate)
    assert found.n == 50
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    few = membership(logits[0], labels[0], logits[1][:49], labels[1][:49], bootstrap)
    assert few == NotMeasured(not_measured="49 real images on one side, at least 50 are needed")
    two = membership(logits[0][:, :2], labels[0] % 2, logits[1][:, :2], labels[1] % 2, bootstrap)
    assert isinstance(two, Estimate)


def test_an_area_near_one_lies_in_its_interval() -> None:
    """Normal scores that are 3.5 apart; of 60 on either side, resampling alone covers three in four."""
    rng, hits = numpy_rng(0), 0
    truth = float(norm.cdf(3.5 / 2**0.5))
    for i in range(200):
        found = roc_auc(rng.normal(3.5, 1, 60), rng.normal(0, 1, 60), Bootstrap(i))
        assert isinstance(found, Estimate)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high
        hits += found.low <= truth <= found.high
    assert hits >= 172  # 188 expected


def test_ties_count_half() -> None:
    assert privacy._auc(np.array([1.0, 2.0]), np.array([1.0, 0.0, 2.0])) == pytest.approx((1.5 + 2.5) / 6)
    assert re.match("Not audited: x.", not_audited("x").verdict)
