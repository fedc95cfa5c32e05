"""Diversity and resemblance against their definitions, and each reason why there is none."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from draws import torch_rng
from made_up import SHAPE, K, source
from torch import Tensor

from netinv.evaluation import diversity, vendi_score
from netinv.evaluation.metrics import ball_radii, class_cosines, frechet_distance
from netinv.evaluation.samples import first
from netinv.results import SPREAD_RESAMPLES, Bootstrap, Estimate, NotMeasured, spread_estimate, spread_within

BOOTSTRAP = Bootstrap(3, 120)


def no(why: str) -> NotMeasured:
    return NotMeasured(not_measured=why)


# Diversity


def test_vendi_scores_are_those_of_the_first_n_of_each_class() -> None:
    given = source(80)
    assert given.features is not None
    for vectors, n in ((given.features, 12), (given.images.flatten(1), 12), (given.features, 5)):
        scores = diversity.vendi_scores(vectors, given, n, BOOTSTRAP)
        assert (scores.n, scores.why, scores.replicates.shape) == (n, ("", "", ""), (SPREAD_RESAMPLES, K))
        for k in range(K):
            own = vectors[given.label == k][:n]
            assert scores.value[k] == pytest.approx(float(vendi_score(own)))
            expected = [float(vendi_score(own[index])) for index in BOOTSTRAP.draws(n, stream=k)]
            assert scores.replicates[:, k].tolist() == pytest.approx(expected)


def awkward() -> tuple[Any, Tensor]:
    """One class that is sound, one with too few samples, and one with a sample that is all zero."""
    label = torch.tensor([0] * 10 + [1] * 9 + [2] * 12)
    vectors = torch.rand(31, 4, generator=torch_rng(0))
    vectors[22] = 0
    vectors[25:, 1] = 0
    return source(31, label=label), vectors


def test_a_class_without_a_score_says_why() -> None:
    given, vectors = awkward()
    scores = diversity.vendi_scores(vectors, given, 10, BOOTSTRAP)
    assert scores.why == (
        "",
        "9 samples of this class, 10 are needed",
        "a sample is all zero, so that its cosine to others is undefined",
    )
    assert np.isnan(scores.value).tolist() == [False, True, True]
    assert np.isnan(scores.replicates).all(axis=0).tolist() == [False, True, True]
    by_class = diversity.vendi_by_class(scores)
    assert by_class[0] == spread_estimate(float(scores.value[0]), scores.replicates[:, 0], 10, (1, 10))
    assert by_class[1:] == tuple(no(why) for why in scores.why[1:])
    assert diversity.vendi_mean(scores) == by_class[0]


def test_the_mean_score_is_over_the_classes_that_have_one() -> None:
    given = source(80)
    scores = diversity.vendi_scores(given.features, given, 12, BOOTSTRAP)
    assert diversity.vendi_mean(scores) == spread_estimate(
        float(scores.value.mean()), scores.replicates.mean(axis=1), 36, (1, 12)
    )
    part = scores._replace(value=scores.value * [1, np.nan, 1], why=("", "gone", ""))
    assert diversity.vendi_mean(part) == spread_estimate(
        float(scores.value[[0, 2]].mean()), scores.replicates[:, [0, 2]].mean(axis=1), 24, (1, 12)
    )
    none = scores._replace(value=np.full(K, np.nan), why=("first", "second", "third"))
    assert diversity.vendi_mean(none) == no("no class has a score: first")


def test_a_ratio_is_over_the_classes_that_both_have() -> None:
    given, real = source(80), source(80, seed=1)
    mine = diversity.vendi_scores(given.features, given, 12, BOOTSTRAP)
    theirs = diversity.vendi_scores(real.features, real, 12, BOOTSTRAP)
    mine = mine._replace(value=mine.value * [np.nan, 1, 1])
    ratio = mine.replicates[:, 1:].mean(axis=1) / theirs.replicates[:, 1:].mean(axis=1)
    expected = spread_estimate(float(mine.value[1:].mean() / theirs.value[1:].mean()), ratio, 24, (0, math.inf))
    assert diversity.vendi_ratio(mine, theirs) == expected
    other = theirs._replace(value=theirs.value * [1, np.nan, np.nan])
    assert diversity.vendi_ratio(mine, other) == no("no class has a score both here and among real test images")


def test_overall_diversity_is_that_of_its_definitions() -> None:
    given = source(60)
    assert given.features is not None
    found = diversity.overall_diversity(given, 25, BOOTSTRAP)
    assert list(found) == ["vendi_overall", "cosine_within", "cosine_between"]
    some = given.features[:25]
    replicates = [float(vendi_score(some[i])) for i in BOOTSTRAP.draws(25)]
    assert found["vendi_overall"] == spread_estimate(float(vendi_score(some)), replicates, 25, (1, 25))
    values = class_cosines(given.features, given.label, K)
    draws = [class_cosines(given.features[i], given.label[i], K) for i in BOOTSTRAP.draws(60)]
    for name, value, of_one in zip(("cosine_within", "cosine_between"), values, np.array(draws).T, strict=True):
        assert found[name] == spread_estimate(value, of_one, 60, (-1, 1))
    assert isinstance(diversity.overall_diversity(given, 60, BOOTSTRAP)["vendi_overall"], Estimate)


def test_overall_diversity_that_cannot_be_told() -> None:
    names = ("vendi_overall", "cosine_within", "cosine_between")
    few = diversity.overall_diversity(source(30), 31, BOOTSTRAP)
    assert few["vendi_overall"] == no("30 samples, 31 are needed")
    assert isinstance(few["cosine_within"], Estimate)
    assert isinstance(few["cosine_between"], Estimate)
    alone = diversity.overall_diversity(source(30, features=None), 20, BOOTSTRAP)
    assert alone == dict.fromkeys(names, no("no evaluator was given"))
    same = diversity.overall_diversity(source(30, images=torch.zeros(30, *SHAPE)), 20, BOOTSTRAP)
    assert same == dict.fromkeys(names, no("all 30 images are the same"))
    features = torch.rand(30, 5)
    features[7] = 0
    zero = diversity.overall_diversity(source(30, features=features), 20, BOOTSTRAP)
    why = "an evaluator feature vector is all zero, so that its cosine to others is undefined"
    assert zero == dict.fromkeys(names, no(why))
    features[7, 2] = 1
    assert isinstance(diversity.overall_diversity(source(30, features=features), 20, BOOTSTRAP)[names[0]], Estimate)
    lonely = diversity.overall_diversity(source(20, label=torch.zeros(20, dtype=torch.long)), 20, BOOTSTRAP)
    assert lonely["cosine_between"] == no("there is no such pair of samples")


# Resemblance


def test_resemblance_is_that_of_its_definitions() -> None:
    given, real = source(40), source(50, seed=1, name="real_test")
    radii = ball_radii(real.features, 5)
    found = diversity.resemblance(given, real, radii, 30, BOOTSTRAP)
    assert list(found) == ["density", "coverage", "frechet"]
    generated, reference = given.features[:30], real.features
    densities, coverages = [], []
    inside = (torch.cdist(generated.double(), reference.double()) < radii).numpy()
    for i, j in zip(BOOTSTRAP.draws(30, 0), BOOTSTRAP.draws(50, 1), strict=True):
        densities.append(inside[i][:, j].sum() / (5 * 30))
        coverages.append(inside[i][:, j].any(axis=0).mean())
    assert_alike(found["density"], spread_estimate(inside.sum() / (5 * 30), densities, 30, (0, math.inf)))
    assert_alike(found["coverage"], spread_within(float(inside.any(axis=0).mean()), coverages, 50))
    pairs = zip(BOOTSTRAP.draws(30, 0), BOOTSTRAP.draws(50, 1), strict=True)
    replicates = [frechet_distance(generated[i], reference[j]) for i, j in pairs]
    assert found["frechet"] == spread_estimate(frechet_distance(generated, reference), replicates, 30, (0, math.inf))


def assert_alike(found: Any, expected: Any) -> None:
    """Up to rounding."""
    assert (found.value, found.n) == (expected.value, expected.n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_density_and_coverage_lie_in_their_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets drawn anew, 60 times; with the real images held fast density lies in 42 of the intervals."""
    monkeypatch.setattr(diversity, "frechet_distance", lambda *_: 0.0)  # it would take most of the time
    rng, found = torch_rng(4), []
    for i in range(60):
        real = torch.randn(200, 8, generator=rng)
        features = {"real": real, "generated": 0.8 * torch.randn(200, 8, generator=rng) + 0.2}
        sets = {name: source(200, seed=i, name=name, features=own) for name, own in features.items()}
        args = (sets["generated"], sets["real"], ball_radii(real, 5), 200, Bootstrap(i))
        found.append(diversity.resemblance(*args))
    for name in ("density", "coverage"):
        measures = [measure for each in found if isinstance(measure := each[name], Estimate)]
        truth = float(np.mean([measure.value for measure in measures]))
        assert sum(measure.low <= truth <= measure.high for measure in measures) >= 53


def test_an_interval_ends_where_its_measure_does() -> None:
    real = source(50, seed=1, name="real_test")
    radii = ball_radii(real.features, 5)
    far = diversity.resemblance(source(40, features=real.features[:40] + 1e3), real, radii, 40, BOOTSTRAP)["density"]
    assert isinstance(far, Estimate)
    assert (far.value, far.low, far.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 40)))
    near = diversity.resemblance(source(40, features=real.features[:40]), real, radii, 40, BOOTSTRAP)["frechet"]
    scores = diversity.VendiScores(np.array([1.01, 9.9]), np.array([[1.0, 8.0], [3.0, 10.0]]), 10, ("", ""))
    one, all_distinct = diversity.vendi_by_class(scores)
    assert isinstance(near, Estimate)
    assert isinstance(one, Estimate)
    assert isinstance(all_distinct, Estimate)
    assert (near.low, one.low, all_distinct.high) == (0, 1, 10)


def test_resemblance_that_cannot_be_told() -> None:
    real = source(50, seed=1, name="real_test")
    radii = ball_radii(real.features, 5)

    def why(given: Any, real: Any = real, radii: Any = radii, n: int = 30) -> set[Any]:
        found = diversity.resemblance(given, real, radii, n, BOOTSTRAP)
        assert list(found) == ["density", "coverage", "frechet"]
        return set(found.values())

    assert why(source(40), None) == {no("no real test images were given")}
    assert why(source(40, features=None)) == {no("no evaluator was given")}
    assert why(source(40), dataclasses.replace(real, features=None)) == {no("no evaluator was given")}
    assert why(source(40, name="real_test")) == {no("these are the images that the others are compared with")}
    assert why(source(40, images=torch.zeros(40, *SHAPE))) == {no("all 40 images are the same")}
    assert why(source(9)) == {no("9 samples, at least 10 are needed")}
    few = diversity.resemblance(source(40), first(real, 5), None, 30, BOOTSTRAP)
    assert few["density"] == few["coverage"] == no("5 real test images, more than 5 are needed")
    assert few["frechet"] == no("5 images, more than the 5 features are needed")
    nine = diversity.resemblance(source(40), first(real, 9), ball_radii(real.features[:9], 5), 30, BOOTSTRAP)
    assert nine["coverage"] == no("9 real test images, at least 10 are needed")
    assert isinstance(nine["density"], Estimate)
    short = diversity.resemblance(source(40), real, radii, 5, BOOTSTRAP)
    assert short["frechet"] == no("5 images, more than the 5 features are needed")
    enough = diversity.resemblance(source(40), real, radii, 6, BOOTSTRAP)
    assert isinstance(enough["frechet"], Estimate)
    ten = diversity.resemblance(source(10), real, radii, 10, BOOTSTRAP)
    assert all(isinstance(measure, Estimate) for measure in ten.values())
