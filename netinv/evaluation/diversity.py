"""How diverse and how real images are: Vendi scores, cosines, density and coverage, the Frechet distance."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netinv.evaluation.measures import Measures, missing
from netinv.evaluation.metrics import (
    class_cosines,
    density_coverage,
    frechet_distance,
    vendi_score,
)
from netinv.evaluation.samples import SampleSet, constant
from netinv.results import (
    MIN_SAMPLES,
    SPREAD_RESAMPLES,
    Bootstrap,
    Measure,
    NotMeasured,
    spread_estimate,
    spread_within,
)

NEIGHBOURS = 5
"""k of density and coverage."""


# Diversity


class VendiScores(NamedTuple):
    """Vendi scores of each class, NaN where there is none, with their bootstrap replicates."""

    value: NDArray[np.float64]
    """(K,)."""
    replicates: NDArray[np.float64]
    """(R, K)."""
    n: int
    """Samples of each class."""
    why: tuple[str, ...]
    """Reason for each class without a score, else empty, (K,)."""


def vendi_scores(vectors: Tensor, samples: SampleSet, n: int, bootstrap: Bootstrap) -> VendiScores:
    """Vendi score of the first n samples of each class.

    Args:
        vectors: What samples are compared by, features or pixels, (N, D).
        samples: Gives the labels.
        n: Samples of each class; a class with fewer has no score.
        bootstrap: Gives the replicates.
    """
    num_classes = samples.num_classes
    value = np.full(num_classes, np.nan)
    replicates = np.full((SPREAD_RESAMPLES, num_classes), np.nan)
    reasons = [""] * num_classes
    for k in range(num_classes):
        own = vectors[samples.label == k][:n]  # (n, D)
        if len(own) < n:
            reasons[k] = f"{len(own)} samples of this class, {n} are needed"
        elif bool((own == 0).all(dim=1).any()):
            reasons[k] = "a sample is all zero, so that its cosine to others is undefined"
        else:
            value[k] = float(vendi_score(own))
            if own.shape[1] > n:
                # The same inner products in n dimensions, which makes resampling pixels cheap.
                own = torch.linalg.qr(own.double().T, mode="r").R.T
            replicates[:, k] = vendi_score(torch.stack([own[index] for index in bootstrap.draws(n, stream=k)])).numpy()
    return VendiScores(value, replicates, n, tuple(reasons))


def vendi_by_class(scores: VendiScores) -> tuple[Measure, ...]:
    """The score of each class."""
    return tuple(
        NotMeasured(not_measured=why) if why else spread_estimate(float(value), replicates, scores.n, (1, scores.n))
        for value, replicates, why in zip(scores.value, scores.replicates.T, scores.why, strict=True)
    )


def vendi_mean(scores: VendiScores) -> Measure:
    """Mean score over the classes that have one."""
    scored = np.isfinite(scores.value)
    if not scored.any():
        return NotMeasured(not_measured=f"no class has a score: {scores.why[0]}")
    return spread_estimate(
        float(scores.value[scored].mean()),
        scores.replicates[:, scored].mean(axis=1),
        scores.n * int(scored.sum()),
        (1, scores.n),
    )


def vendi_ratio(scores: VendiScores, real: VendiScores) -> Measure:
    """Mean score over that of real images, both over the classes that have both."""
    scored = np.isfinite(scores.value) & np.isfinite(real.value)
    if not scored.any():
        return NotMeasured(not_measured="no class has a score both here and among real test images")
    return spread_estimate(
        float(scores.value[scored].mean() / real.value[scored].mean()),
        scores.replicates[:, scored].mean(axis=1) / real.replicates[:, scored].mean(axis=1),
        scores.n * int(scored.sum()),
        (0, math.inf),
    )


def overall_diversity(samples: SampleSet, n: int, bootstrap: Bootstrap) -> Measures:
    """On evaluator features: ``vendi_overall`` of the first n, ``cosine_within`` and ``cosine_between`` classes."""
    names = ("vendi_overall", "cosine_within", "cosine_between")
    why = constant(samples.images)
    if samples.features is None or why:
        return missing(names, why or "no evaluator was given")
    features, label, num_classes = samples.features, samples.label, samples.num_classes
    if bool((features == 0).all(dim=1).any()):
        return missing(names, "an evaluator feature vector is all zero, so that its cosine to others is undefined")
    if len(label) < n:
        result: Measures = missing(names[:1], f"{len(label)} samples, {n} are needed")
    else:
        first = features[:n]
        replicates = [float(vendi_score(first[index])) for index in bootstrap.draws(n)]
        result = {"vendi_overall": spread_estimate(float(vendi_score(first)), replicates, n, (1, n))}
    values = class_cosines(features, label, num_classes)
    draws = np.array([class_cosines(features[i], label[i], num_classes) for i in bootstrap.draws(len(label))])
    for name, value, replicates_of_one in zip(names[1:], values, draws.T, strict=True):
        result[name] = (
            spread_estimate(value, replicates_of_one, len(label), (-1, 1))
            if np.isfinite(value)
            else NotMeasured(not_measured="there is no such pair of samples")
        )
    return result


# Resemblance to real images


def resemblance(
    samples: SampleSet, real: SampleSet | None, radii: Tensor | None, n: int, bootstrap: Bootstrap
) -> Measures:
    """``density``, ``coverage`` and ``frechet`` against real test images, in evaluator features.

    Args:
        samples: Its first n samples are compared: coverage and the Frechet distance depend on how many there are.
        real: Real test images, or ``None``.
        radii: Their ``ball_radii``, or ``None`` if they are too few.
        n: Samples.
        bootstrap: Gives the intervals.
    """
    names = ("density", "coverage", "frechet")
    why = constant(samples.images)
    if real is None or real.features is None or samples.features is None:
        return missing(names, "no evaluator was given" if real else "no real test images were given")
    if samples.name == real.name:
        return missing(names, "these are the images that the others are compared with")
    if why or len(samples.label) < MIN_SAMPLES:
        return missing(names, why or f"{len(samples.label)} samples, at least {MIN_SAMPLES} are needed")
    generated, reference = samples.features[:n], real.features
    result = missing(names, f"{len(reference)} real test images, more than {NEIGHBOURS} are needed")
    if radii is not None:
        both = zip(bootstrap.draws(len(reference), 1), bootstrap.draws(len(generated), 0), strict=True)
        density, coverage = density_coverage(reference, radii, generated, NEIGHBOURS, both)
        result["density"] = (
            spread_estimate(float(density[0]), density[1:], len(generated), (0, math.inf))
            if density[0]
            else spread_within(0.0, density[1:], len(generated))  # where none lies inside, that of a share of none
        )
        result["coverage"] = (
            spread_within(float(coverage[0]), coverage[1:], len(reference))
            if len(reference) >= MIN_SAMPLES
            else NotMeasured(not_measured=f"{len(reference)} real test images, at least {MIN_SAMPLES} are needed")
        )
    fewest, dim = min(len(generated), len(reference)), generated.shape[1]
    if fewest <= dim:
        result["frechet"] = NotMeasured(not_measured=f"{fewest} images, more than the {dim} features are needed")
    else:
        pairs = zip(bootstrap.draws(len(generated), 0), bootstrap.draws(len(reference), 1), strict=True)
        replicates = [frechet_distance(generated[i], reference[j]) for i, j in pairs]
        result["frechet"] = spread_estimate(
            frechet_distance(generated, reference), replicates, len(generated), (0, math.inf)
        )
    return result
