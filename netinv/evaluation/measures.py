"""The measures of one set of samples, in groups; each gives all its names, with a number or the reason for none."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from netinv.classifiers import InvertibleClassifier, frozen
from netinv.evaluation.samples import ROUNDING, Bools, SampleSet, broken
from netinv.perturbations import robust_mask
from netinv.results import AccuracyBin, Bootstrap, CalibrationBin, Measure, NotMeasured, spread_estimate

Measures = dict[str, Measure]

NEAR_TIE = 0.05
"""A gap of less than this between the two largest entries of a condition is a near-tie."""
GAP_EDGES = (0.0, NEAR_TIE, 0.1, 0.2, 0.4, 1.0)
INTENSITY_EDGES = tuple(i / 10 for i in range(11))


def missing(names: Iterable[str], why: str) -> Measures:
    """The same reason for each of the names."""
    return dict.fromkeys(names, NotMeasured(not_measured=why))


# Accuracy


def accuracies(samples: SampleSet, bootstrap: Bootstrap, chosen: Bools | None = None) -> Measures:
    """``inversion_accuracy`` and ``evaluator_accuracy``, of all or of chosen samples."""
    chosen = np.ones(len(samples.label), bool) if chosen is None else chosen
    judged = samples.evaluator_correct
    return {
        "inversion_accuracy": NotMeasured(not_measured="noise is labelled by the classifier itself")
        if samples.name == "noise"
        else bootstrap.mean(samples.correct[chosen]),
        "evaluator_accuracy": NotMeasured(not_measured="no evaluator was given")
        if judged is None
        else bootstrap.mean(judged[chosen]),
    }


def accuracies_off_ties(samples: SampleSet, bootstrap: Bootstrap) -> Measures:
    """``inversion_accuracy_gap`` and ``evaluator_accuracy_gap``: without the near-ties."""
    names = ("inversion_accuracy_gap", "evaluator_accuracy_gap")
    gap = samples.gap
    if gap is None:
        return missing(names, "there is no condition vector with a gap")
    found = accuracies(samples, bootstrap, gap >= NEAR_TIE)
    return dict(zip(names, found.values(), strict=True))


def accuracy_bin(
    samples: SampleSet, bootstrap: Bootstrap, low: float, high: float, chosen: Bools | None = None
) -> AccuracyBin:
    """Both accuracies where the condition lies in a range."""
    why = broken(samples)
    names = ("inversion_accuracy", "evaluator_accuracy")
    found = missing(names, why) if why is not None else accuracies(samples, bootstrap, chosen)
    return AccuracyBin(low=low, high=high, **found)


def accuracies_by_gap(samples: SampleSet, bootstrap: Bootstrap) -> tuple[AccuracyBin, ...]:
    """Both accuracies in bins of the gap, low edges inclusive; none for samples without a condition."""
    gap = samples.gap
    if gap is None:
        return ()
    place = np.digitize(gap, GAP_EDGES[1:-1])
    return tuple(
        accuracy_bin(samples, bootstrap, GAP_EDGES[i], GAP_EDGES[i + 1], place == i) for i in range(len(GAP_EDGES) - 1)
    )


def accuracies_by_class(samples: SampleSet, bootstrap: Bootstrap) -> dict[str, tuple[Measure, ...]]:
    """Both accuracies for each wanted class."""
    label = samples.label.numpy()
    found = [accuracies(samples, bootstrap, label == k) for k in range(samples.num_classes)]
    return {name: tuple(f[name] for f in found) for name in ("inversion_accuracy", "evaluator_accuracy")}


def confusion(samples: SampleSet) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Counts of wanted label by predicted label under each network."""
    num = samples.num_classes
    result = {}
    for name, logits in (("classifier", samples.logits), ("evaluator", samples.evaluator_logits)):
        if logits is not None:
            cells = torch.bincount(samples.label * num + logits.argmax(dim=1), minlength=num * num)
            result[name] = tuple(tuple(row) for row in cells.view(num, num).tolist())
    return result


# Intensity: does the classifier's output follow the condition vector?


def intensity(samples: SampleSet, bootstrap: Bootstrap) -> Measures:
    """``kl`` of the output from the condition, ``intensity_error`` and ``intensity_correlation`` of p_y and q_y.

    The error is the mean over bins of |mean p_y - mean q_y|, weighted by their samples, as in an expected calibration
    error.
    """
    names = ("kl", "intensity_error", "intensity_correlation")
    if samples.vector is None:
        return missing(names, "there is no condition vector")
    log_q = F.log_softmax(samples.logits.double(), dim=1)
    p = samples.vector.double()
    kl = (torch.xlogy(p, p) - p * log_q).sum(dim=1).numpy()
    wanted, obtained = _intensities(samples)
    num = len(wanted)
    draws = list(bootstrap.draws(num))
    result: Measures = {
        "kl": bootstrap.mean(kl),
        "intensity_error": spread_estimate(
            _intensity_error(wanted, obtained), [_intensity_error(wanted[i], obtained[i]) for i in draws], num, (0, 1)
        ),
        "intensity_correlation": NotMeasured(not_measured="the intensity wanted or obtained never varies"),
    }
    if np.isfinite(_correlation(wanted, obtained)):
        result["intensity_correlation"] = spread_estimate(
            _correlation(wanted, obtained), [_correlation(wanted[i], obtained[i]) for i in draws], num, (-1, 1)
        )
    return result


def _intensities(samples: SampleSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The condition's and the classifier's probability of the wanted label, (N,) each."""
    assert samples.vector is not None
    rows = torch.arange(len(samples.label))
    probabilities = torch.softmax(samples.logits.double(), dim=1)
    return samples.vector.double()[rows, samples.label].numpy(), probabilities[rows, samples.label].numpy()


def _intensity_error(wanted: NDArray[np.float64], obtained: NDArray[np.float64]) -> float:
    place = np.digitize(wanted, INTENSITY_EDGES[1:-1])
    return float(np.abs(np.bincount(place, weights=wanted - obtained)).sum() / len(wanted))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's, NaN where one of the two varies by no more than rounding."""
    return float(np.corrcoef(a, b)[0, 1]) if min(np.ptp(a), np.ptp(b)) > ROUNDING else math.nan


def calibration(samples: SampleSet, bootstrap: Bootstrap) -> tuple[CalibrationBin, ...]:
    """Intensity obtained in bins of the intensity wanted; none for samples without a condition."""
    if samples.vector is None:
        return ()
    wanted, obtained = _intensities(samples)
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


# Robustness and usefulness


def survival(
    samples: SampleSet, classifier: InvertibleClassifier, epsilons: Sequence[float], steps: int, num: int, seed: int
) -> Tensor:
    """Which of the first ``num`` images keep their label under PGD at each epsilon, (num, E), bool."""
    device = classifier.device
    images, label = samples.images[:num].nan_to_num().to(device), samples.label[:num].to(device)
    with frozen(classifier):
        kept = [robust_mask(classifier, images, label, epsilon, steps, seed=seed) for epsilon in epsilons]
    return torch.stack(kept, dim=1).cpu()
