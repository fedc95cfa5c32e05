"""One row of the results: everything about one set of samples."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from netinv.classifiers import InvertibleClassifier
from netinv.data import LabelledImages
from netinv.evaluation.config import EvaluationConfig
from netinv.evaluation.diversity import (
    NEIGHBOURS,
    VendiScores,
    overall_diversity,
    resemblance,
    vendi_by_class,
    vendi_mean,
    vendi_ratio,
    vendi_scores,
)
from netinv.evaluation.measures import (
    Measures,
    accuracies,
    accuracies_by_class,
    accuracies_by_gap,
    accuracies_off_ties,
    accuracy_bin,
    calibration,
    confusion,
    intensity,
    missing,
    survival,
)
from netinv.evaluation.metrics import ball_radii
from netinv.evaluation.privacy import Pools, memorisation_test, not_audited
from netinv.evaluation.samples import SampleSet, broken, constant
from netinv.evaluation.students import student_accuracy
from netinv.results import MIN_SAMPLES, Audit, Bootstrap, Kind, Measure, NotMeasured, RobustPoint, Row

REAL = ("real_train", "real_test")
"""Rows of real images."""
NO_TRAIN, NO_TEST = "no real training images were given", "no real test images were given"
NEED_REAL = {"real_train": NO_TRAIN, "real_test": NO_TEST, "one_picture": NO_TRAIN}
"""Rows that are empty without real images, and the reason."""
MEASURES = (
    "inversion_accuracy",
    "inversion_accuracy_gap",
    "evaluator_accuracy",
    "evaluator_accuracy_gap",
    "kl",
    "intensity_error",
    "intensity_correlation",
    "vendi",
    "vendi_ratio",
    "vendi_overall",
    "vendi_centred",
    "vendi_centred_ratio",
    "vendi_pixels",
    "vendi_pixels_ratio",
    "cosine_within",
    "cosine_between",
    "density",
    "coverage",
    "frechet",
    "robust_accuracy",
    "student_accuracy",
)
"""The measures of a row."""


class Draws(NamedTuple):
    """What was drawn from one generator, or from the ensemble."""

    plain: SampleSet
    dropout: SampleSet | None
    """With dropout left on; ``None`` for a generator that has none."""
    sharpness: list[SampleSet]
    """At each fixed sharpness."""


class Reference(NamedTuple):
    """What every row is measured with and against."""

    config: EvaluationConfig
    bootstrap: Bootstrap
    classifier: InvertibleClassifier
    test: LabelledImages | None
    real_test: SampleSet | None
    radii: Tensor | None
    vendi_n: int
    vendi: dict[str, VendiScores]
    """Of real test images, by the name of the measure."""
    num_compared: int
    """Samples behind the coverage and the Frechet distance of every row."""
    num_overall: int
    """Samples behind the overall Vendi score of every row."""
    pools: Pools | str
    """Real images of the privacy audit, or why there are none."""
    num_audited: int
    """Sets of generated images that are audited: each generator's, and the ensemble's where there are several."""


def reference_for(
    sets: Sequence[SampleSet],
    real: dict[str, SampleSet],
    test: LabelledImages | None,
    pools: Pools | str,
    config: EvaluationConfig,
    bootstrap: Bootstrap,
    classifier: InvertibleClassifier,
) -> Reference:
    """One n for every row, since Vendi scores and Frechet distances depend on it.

    Classes and sets that are too small do not count.
    """
    counts = np.concatenate([np.bincount(s.label.numpy(), minlength=s.num_classes) for s in sets])
    vendi_n = min(config.vendi_samples, *counts[counts >= MIN_SAMPLES].tolist() or [MIN_SAMPLES])
    real_test = real.get("real_test")
    radii = None
    vendi = {}
    if real_test is not None:
        vendi = _vendi_scores(real_test, real_test, vendi_n, bootstrap)
        if real_test.features is not None and len(real_test.label) > NEIGHBOURS:
            radii = ball_radii(real_test.features, NEIGHBOURS)
    large = [s for s in sets if len(s.label) >= MIN_SAMPLES]
    num_compared = min((len(s.label) for s in large if s.name != "real_test"), default=MIN_SAMPLES)
    num_overall = min((len(s.label) for s in large), default=MIN_SAMPLES)
    num_generators = sum(s.kind == "generator" for s in sets)
    return Reference(
        config,
        bootstrap,
        classifier,
        test,
        real_test,
        radii,
        vendi_n,
        vendi,
        num_compared,
        num_overall,
        pools,
        num_generators + (num_generators > 1),
    )


def measured_row(samples: SampleSet, draws: Draws | None, reference: Reference) -> Row:
    """Everything about one set."""
    config, bootstrap = reference.config, reference.bootstrap
    why = broken(samples)
    if why is not None:
        return empty_row(samples.name, samples.kind, len(samples.label), why)
    curve = _curve(samples, reference)
    vendi, vendi_of_classes = _vendi(samples, reference)
    return Row(
        name=samples.name,
        kind=samples.kind,
        samples=len(samples.label),
        measures=_measures(samples, curve, vendi, reference),
        dropout=_with_dropout(draws, reference),
        by_class=accuracies_by_class(samples, bootstrap) | {"vendi": vendi_of_classes},
        confusion=confusion(samples),
        by_gap=accuracies_by_gap(samples, bootstrap),
        by_sharpness=tuple(
            accuracy_bin(drawn, bootstrap, s, s) for s, drawn in zip(config.sharpness, draws.sharpness, strict=True)
        )
        if draws
        else (),
        calibration=calibration(samples, bootstrap),
        robustness=curve,
        audit=_audit(samples, reference),
    )


def _curve(samples: SampleSet, reference: Reference) -> tuple[RobustPoint, ...]:
    """Accuracy under attack at each epsilon."""
    config = reference.config
    kept = survival(
        samples, reference.classifier, config.epsilons, config.attack_steps, config.robust_samples, config.seed
    )
    return tuple(
        RobustPoint(epsilon=epsilon, accuracy=reference.bootstrap.mean(column.numpy()))
        for epsilon, column in zip(config.epsilons, kept.T, strict=True)
    )


def _measures(samples: SampleSet, curve: Sequence[RobustPoint], vendi: Measures, reference: Reference) -> Measures:
    """All of ``MEASURES``."""
    config, bootstrap = reference.config, reference.bootstrap
    found = (
        accuracies(samples, bootstrap)
        | accuracies_off_ties(samples, bootstrap)
        | intensity(samples, bootstrap)
        | vendi
        | overall_diversity(samples, reference.num_overall, bootstrap)
        | resemblance(samples, reference.real_test, reference.radii, reference.num_compared, bootstrap)
        | {
            "robust_accuracy": next(p.accuracy for p in curve if p.epsilon == config.robust_epsilon),
            "student_accuracy": student_accuracy(
                samples,
                reference.test,
                config.student_architecture,
                config.student,
                bootstrap,
                reference.classifier.device,
            ),
        }
    )
    return {name: found[name] for name in MEASURES}


def _with_dropout(draws: Draws | None, reference: Reference) -> Measures:
    """All of ``MEASURES`` for the images drawn with dropout left on."""
    if draws is None or draws.dropout is None:
        return missing(MEASURES, "the generator has no dropout" if draws else "these images are not generated")
    samples = draws.dropout
    why = broken(samples)
    if why is not None:
        return missing(MEASURES, why)
    curve, (vendi, _) = _curve(samples, reference), _vendi(samples, reference)
    return _measures(samples, curve, vendi, reference)


def _vendi(samples: SampleSet, reference: Reference) -> tuple[Measures, tuple[Measure, ...]]:
    """Every Vendi score and its ratio to that of real test images, and ``vendi`` of each class."""
    names = [name for name in MEASURES if name.startswith("vendi") and name != "vendi_overall"]
    why = constant(samples.images)
    if why:
        return missing(names, why), (NotMeasured(not_measured=why),) * samples.num_classes
    result = missing(names, "no evaluator was given")
    if reference.real_test is None:
        result |= missing([name for name in names if "centred" in name], "no real test images were given")
    by_class: tuple[Measure, ...] = (NotMeasured(not_measured="no evaluator was given"),) * samples.num_classes
    for name, scores in _vendi_scores(samples, reference.real_test, reference.vendi_n, reference.bootstrap).items():
        result[name] = vendi_mean(scores)
        result[f"{name}_ratio"] = (
            vendi_ratio(scores, reference.vendi[name])
            if name in reference.vendi
            else NotMeasured(not_measured="no real test images were given")
        )
        if name == "vendi":
            by_class = vendi_by_class(scores)
    return result, by_class


def _vendi_scores(
    samples: SampleSet, real_test: SampleSet | None, n: int, bootstrap: Bootstrap
) -> dict[str, VendiScores]:
    """Vendi scores on pixels, on evaluator features, and on these centred on their mean over real test images."""
    vectors = {"vendi_pixels": samples.images.flatten(1)}
    if samples.features is not None:
        vectors["vendi"] = samples.features
        if real_test is not None and real_test.features is not None:
            vectors["vendi_centred"] = samples.features - real_test.features.mean(dim=0)
    return {name: vendi_scores(own, samples, n, bootstrap) for name, own in vectors.items()}


def _audit(samples: SampleSet, reference: Reference) -> Audit:
    pools, config = reference.pools, reference.config
    if isinstance(pools, str):
        return not_audited(pools)
    # Of real images those in the pools: the training images are the copies that an audit must find.
    chosen = slice(min(config.privacy_samples, pools.size) if samples.kind == "reference" else config.privacy_samples)
    features = samples.features[chosen] if samples.features is not None else None
    return memorisation_test(
        pools,
        samples.images[chosen],
        features,
        samples.label[chosen],
        samples.num_classes,
        config.seed,
        sets=reference.num_audited,
    )


def empty_row(name: str, kind: Kind, samples: int, why: str) -> Row:
    """A row of which nothing can be measured."""
    return Row(
        name=name,
        kind=kind,
        samples=samples,
        measures=missing(MEASURES, why),
        dropout=missing(MEASURES, why),
        by_class={},
        confusion={},
        by_gap=(),
        by_sharpness=(),
        calibration=(),
        robustness=(),
        audit=not_audited(why),
    )
