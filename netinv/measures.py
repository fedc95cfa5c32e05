"""The measures of one source of images, in groups; each gives all its names, with a number or the reason for none."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from netinv.classifiers import Classifier, ConvClassifierConfig, InvertibleClassifier, build_classifier
from netinv.data import LabelledImages, channel_statistics
from netinv.distillation import DistillationConfig, distil
from netinv.diversity import class_cosines, density_coverage, frechet_distance, vendi_score
from netinv.estimates import MIN_SAMPLES, SPREAD_RESAMPLES, Bootstrap, Measure, NotMeasured, spread_estimate
from netinv.results import AccuracyBin, CalibrationBin
from netinv.robustness import survives
from netinv.samples import ROUNDING, Bools, Source, broken, constant, to_uint8
from netinv.training import ClassifierTrainingConfig, predict, train_classifier

Measures = dict[str, Measure]

NEAR_TIE = 0.05
"""A gap of less than this between the two largest entries of a condition is a near-tie."""
GAP_EDGES = (0.0, NEAR_TIE, 0.1, 0.2, 0.4, 1.0)
INTENSITY_EDGES = tuple(i / 10 for i in range(11))
NEIGHBOURS = 5
"""k of density and coverage."""


def missing(names: Iterable[str], why: str) -> Measures:
    """The same reason for each of the names."""
    return dict.fromkeys(names, NotMeasured(not_measured=why))


# Accuracy


def _meaningless(source: Source) -> str | None:
    """Why the classifier's accuracy says nothing about a source, if it does not."""
    if source.num_classes < 2:
        return "with one class every answer is right"
    return "noise is labelled by the classifier itself" if source.name == "noise" else None


def _no_evaluator(source: Source) -> str:
    return "with one class every answer is right" if source.num_classes < 2 else "no evaluator was given"


def accuracies(source: Source, bootstrap: Bootstrap, chosen: Bools | None = None) -> Measures:
    """``inversion_accuracy`` and ``evaluator_accuracy``, of all or of chosen samples."""
    chosen = np.ones(len(source.label), bool) if chosen is None else chosen
    why, judged = _meaningless(source), source.evaluator_correct
    return {
        "inversion_accuracy": NotMeasured(not_measured=why) if why else bootstrap.mean(source.correct[chosen]),
        "evaluator_accuracy": NotMeasured(not_measured=_no_evaluator(source))
        if judged is None or source.num_classes < 2
        else bootstrap.mean(judged[chosen]),
    }


def accuracies_off_ties(source: Source, bootstrap: Bootstrap) -> Measures:
    """``inversion_accuracy_gap`` and ``evaluator_accuracy_gap``: without the near-ties."""
    names = ("inversion_accuracy_gap", "evaluator_accuracy_gap")
    gap = source.gap
    if gap is None:
        return missing(names, "there is no condition vector with a gap")
    found = accuracies(source, bootstrap, gap >= NEAR_TIE)
    return dict(zip(names, found.values(), strict=True))


def accuracy_bin(
    source: Source, bootstrap: Bootstrap, low: float, high: float, chosen: Bools | None = None
) -> AccuracyBin:
    """Both accuracies where the condition lies in a range."""
    why = broken(source)
    names = ("inversion_accuracy", "evaluator_accuracy")
    found = missing(names, why) if why is not None else accuracies(source, bootstrap, chosen)
    return AccuracyBin(low=low, high=high, **found)


def accuracies_by_gap(source: Source, bootstrap: Bootstrap) -> tuple[AccuracyBin, ...]:
    """Both accuracies in bins of the gap, low edges inclusive; none for sources without a condition."""
    gap = source.gap
    if gap is None:
        return ()
    place = np.digitize(gap, GAP_EDGES[1:-1])
    return tuple(
        accuracy_bin(source, bootstrap, GAP_EDGES[i], GAP_EDGES[i + 1], place == i) for i in range(len(GAP_EDGES) - 1)
    )


def accuracies_by_class(source: Source, bootstrap: Bootstrap) -> dict[str, tuple[Measure, ...]]:
    """Both accuracies for each wanted class."""
    label = source.label.numpy()
    found = [accuracies(source, bootstrap, label == k) for k in range(source.num_classes)]
    return {name: tuple(f[name] for f in found) for name in ("inversion_accuracy", "evaluator_accuracy")}


def confusion(source: Source) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Counts of wanted label by predicted label under each network."""
    num = source.num_classes
    result = {}
    for name, logits in (("classifier", source.logits), ("evaluator", source.evaluator_logits)):
        if logits is not None:
            cells = torch.bincount(source.label * num + logits.argmax(dim=1), minlength=num * num)
            result[name] = tuple(tuple(row) for row in cells.view(num, num).tolist())
    return result


# Intensity: does the classifier's output follow the condition vector?


def intensity(source: Source, bootstrap: Bootstrap) -> Measures:
    """``kl`` of the output from the condition, ``intensity_error`` and ``intensity_correlation`` of p_y and q_y.

    The error is the mean over bins of |mean p_y - mean q_y|, weighted by their samples, as in an expected calibration
    error.
    """
    names = ("kl", "intensity_error", "intensity_correlation")
    if source.vector is None:
        return missing(names, "there is no condition vector")
    if source.num_classes < 2:
        return missing(names, "with one class the output is always 1")
    log_q = F.log_softmax(source.logits.double(), dim=1)
    p = source.vector.double()
    kl = (torch.xlogy(p, p) - p * log_q).sum(dim=1).numpy()
    wanted, obtained = _intensities(source)
    num = len(wanted)
    draws = list(bootstrap.draws(num))
    result: Measures = {
        "kl": bootstrap.mean(kl),
        "intensity_error": spread_estimate(
            _intensity_error(wanted, obtained), [_intensity_error(wanted[i], obtained[i]) for i in draws], num
        ),
        "intensity_correlation": NotMeasured(not_measured="the intensity wanted or obtained never varies"),
    }
    if np.isfinite(_correlation(wanted, obtained)):
        result["intensity_correlation"] = spread_estimate(
            _correlation(wanted, obtained), [_correlation(wanted[i], obtained[i]) for i in draws], num
        )
    return result


def _intensities(source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The condition's and the classifier's probability of the wanted label, (N,) each."""
    assert source.vector is not None
    rows = torch.arange(len(source.label))
    probabilities = torch.softmax(source.logits.double(), dim=1)
    return source.vector.double()[rows, source.label].numpy(), probabilities[rows, source.label].numpy()


def _intensity_error(wanted: NDArray[np.float64], obtained: NDArray[np.float64]) -> float:
    place = np.digitize(wanted, INTENSITY_EDGES[1:-1])
    return float(np.abs(np.bincount(place, weights=wanted - obtained)).sum() / len(wanted))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's, NaN where one of the two varies by no more than rounding."""
    return float(np.corrcoef(a, b)[0, 1]) if min(np.ptp(a), np.ptp(b)) > ROUNDING else math.nan


def calibration(source: Source, bootstrap: Bootstrap) -> tuple[CalibrationBin, ...]:
    """Intensity obtained in bins of the intensity wanted; none for sources without a condition."""
    if source.vector is None or source.num_classes < 2:
        return ()
    wanted, obtained = _intensities(source)
    place = np.digitize(wanted, INTENSITY_EDGES[1:-1])
    return tuple(
        CalibrationBin(
            low=INTENSITY_EDGES[i],
            high=INTENSITY_EDGES[i + 1],
            wanted=bootstrap.mean(wanted[place == i]),
            obtained=bootstrap.mean(obtained[place == i]),
        )
        for i in range(len(INTENSITY_EDGES) - 1)
    )


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


def vendi_scores(vectors: Tensor, source: Source, n: int, bootstrap: Bootstrap) -> VendiScores:
    """Vendi score of the first n samples of each class.

    Args:
        vectors: What samples are compared by, features or pixels, (N, D).
        source: Gives the labels.
        n: Samples of each class; a class with fewer has no score.
        bootstrap: Gives the replicates.
    """
    num_classes = source.num_classes
    value = np.full(num_classes, np.nan)
    replicates = np.full((SPREAD_RESAMPLES, num_classes), np.nan)
    reasons = [""] * num_classes
    for k in range(num_classes):
        own = vectors[source.label == k][:n]  # (n, D)
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
        NotMeasured(not_measured=why) if why else spread_estimate(float(value), replicates, scores.n)
        for value, replicates, why in zip(scores.value, scores.replicates.T, scores.why, strict=True)
    )


def vendi_mean(scores: VendiScores) -> Measure:
    """Mean score over the classes that have one."""
    scored = np.isfinite(scores.value)
    if not scored.any():
        return NotMeasured(not_measured=f"no class has a score: {scores.why[0]}")
    return spread_estimate(
        float(scores.value[scored].mean()), scores.replicates[:, scored].mean(axis=1), scores.n * int(scored.sum())
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
    )


def overall_diversity(source: Source, n: int, bootstrap: Bootstrap) -> Measures:
    """On evaluator features: ``vendi_overall`` of the first n, ``cosine_within`` and ``cosine_between`` classes."""
    names = ("vendi_overall", "cosine_within", "cosine_between")
    why = constant(source.images)
    if source.features is None or why:
        return missing(names, why or "no evaluator was given")
    features, label, num_classes = source.features, source.label, source.num_classes
    if bool((features == 0).all(dim=1).any()):
        return missing(names, "an evaluator feature vector is all zero, so that its cosine to others is undefined")
    if len(label) < n:
        result: Measures = missing(names[:1], f"{len(label)} samples, {n} are needed")
    else:
        first = features[:n]
        replicates = [float(vendi_score(first[index])) for index in bootstrap.draws(n)]
        result = {"vendi_overall": spread_estimate(float(vendi_score(first)), replicates, n)}
    values = class_cosines(features, label, num_classes)
    draws = np.array([class_cosines(features[i], label[i], num_classes) for i in bootstrap.draws(len(label))])
    for name, value, replicates_of_one in zip(names[1:], values, draws.T, strict=True):
        result[name] = (
            spread_estimate(value, replicates_of_one, len(label))
            if np.isfinite(value)
            else NotMeasured(not_measured="there is no such pair of samples")
        )
    return result


# Resemblance to real images


def resemblance(source: Source, real: Source | None, radii: Tensor | None, n: int, bootstrap: Bootstrap) -> Measures:
    """``density``, ``coverage`` and ``frechet`` against real test images, in evaluator features.

    Args:
        source: Its first n samples are compared: coverage and the Frechet distance depend on how many there are.
        real: Real test images, or ``None``.
        radii: Their ``ball_radii``, or ``None`` if they are too few.
        n: Samples.
        bootstrap: Gives the intervals.
    """
    names = ("density", "coverage", "frechet")
    why = constant(source.images)
    if real is None or real.features is None or source.features is None:
        return missing(names, "no evaluator was given" if real else "no real test images were given")
    if source.name == real.name:
        return missing(names, "these are the images that the others are compared with")
    if why or len(source.label) < MIN_SAMPLES:
        return missing(names, why or f"{len(source.label)} samples, at least {MIN_SAMPLES} are needed")
    generated, reference = source.features[:n], real.features
    result = missing(names, f"{len(reference)} real test images, more than {NEIGHBOURS} are needed")
    if radii is not None:
        found = density_coverage(reference, radii, generated, NEIGHBOURS)
        result["density"] = bootstrap.mean(found.density)
        result["coverage"] = bootstrap.mean(found.coverage)
    fewest, dim = min(len(generated), len(reference)), generated.shape[1]
    if fewest <= dim:
        result["frechet"] = NotMeasured(not_measured=f"{fewest} images, more than the {dim} features are needed")
    else:
        pairs = zip(bootstrap.draws(len(generated), 0), bootstrap.draws(len(reference), 1), strict=True)
        replicates = [frechet_distance(generated[i], reference[j]) for i, j in pairs]
        result["frechet"] = spread_estimate(frechet_distance(generated, reference), replicates, len(generated))
    return result


# Robustness and usefulness


def survival(
    source: Source, classifier: InvertibleClassifier, epsilons: Sequence[float], steps: int, num: int, seed: int
) -> Tensor:
    """Which of the first ``num`` images keep their label under PGD at each epsilon, (num, E), bool."""
    device = classifier.device
    images, label = source.images[:num].nan_to_num().to(device), source.label[:num].to(device)
    kept = [survives(classifier, images, label, epsilon, steps, seed=seed) for epsilon in epsilons]
    return torch.stack(kept, dim=1).cpu()


def student_accuracy(
    source: Source,
    test: LabelledImages | None,
    architecture: ConvClassifierConfig,
    training: ClassifierTrainingConfig | None,
    bootstrap: Bootstrap,
    device: torch.device,
) -> Measure:
    """Accuracy on real test images of a fresh network that was trained on the source's images and labels alone."""
    if training is None:
        return NotMeasured(not_measured="evaluate.student is null")
    if source.name == "real_test":
        return NotMeasured(not_measured="the student is tested on these images")
    images = LabelledImages(to_uint8(source.images), source.label)

    def teach(student: Classifier) -> None:
        for _ in train_classifier(student, images, training, bootstrap.seed):
            pass

    return _taught(source.images, source.num_classes, test, architecture, teach, bootstrap, device)


def distilled_accuracy(
    images: Tensor,
    test: LabelledImages | None,
    architecture: ConvClassifierConfig,
    config: DistillationConfig | None,
    classifier: InvertibleClassifier,
    bootstrap: Bootstrap,
) -> Measure:
    """The same of a network that was taught the classifier's answers to the images (N, C, H, W); see :func:`distil`."""
    if config is None:
        return NotMeasured(not_measured="evaluate.distillation is null")

    def teach(student: Classifier) -> None:
        distil(student, classifier, images, config, bootstrap.seed)

    return _taught(images, classifier.num_classes, test, architecture, teach, bootstrap, classifier.device)


def _taught(
    images: Tensor,
    num_classes: int,
    test: LabelledImages | None,
    architecture: ConvClassifierConfig,
    teach: Callable[[Classifier], None],
    bootstrap: Bootstrap,
    device: torch.device,
) -> Measure:
    """Accuracy on real test images of a fresh network after it was taught by the images."""
    if test is None:
        return NotMeasured(not_measured="no real test images were given")
    if num_classes < 2:
        return NotMeasured(not_measured="with one class every answer is right")
    why = constant(images)
    if why is not None:
        return NotMeasured(not_measured=why)
    channels, height, width = images.shape[1:]
    mean, std = channel_statistics(to_uint8(images))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(bootstrap.seed)
        student = build_classifier(architecture, num_classes, (channels, height, width), mean, std).to(device)
        try:
            teach(student)
        except FloatingPointError:
            return NotMeasured(not_measured="the student's training diverged; lower its learning rate")
    logits, _ = predict(student, test.images)
    return bootstrap.mean((logits.argmax(dim=1).cpu() == test.labels).numpy())
