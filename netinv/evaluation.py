"""Every measure of a set of generators, with its controls. ``docs/measures.md`` says what each number means.

A row of the result is a source of images: each generator, their ensemble, and as references real training images,
real test images and uniform noise, so that no number has to be read alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from tqdm import tqdm

from netinv import measures
from netinv.classifiers import ConvClassifierConfig, InvertibleClassifier
from netinv.config import Config
from netinv.data import LabelledImages, to_float
from netinv.distillation import DistillationConfig
from netinv.diversity import ball_radii
from netinv.errors import InputError
from netinv.estimates import MIN_SAMPLES, Bootstrap, Measure, NotMeasured
from netinv.generator import ConditionedGenerator
from netinv.headline import headline, verdict
from netinv.measures import Measures, missing
from netinv.privacy import MIN_POOL, Pools, audit, membership, not_audited
from netinv.results import Audit, Kind, Results, RobustPoint, Row
from netinv.samples import (
    Source,
    broken,
    constant,
    dropout_layers,
    ensemble,
    first,
    generate,
    observe,
    to_uint8,
)
from netinv.training import ClassifierTrainingConfig

REAL = ("real_train", "real_test")
"""Rows of real images."""
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


class EvaluationConfig(Config):
    """How generators are measured."""

    num_samples: int = Field(2048, ge=MIN_SAMPLES)
    """Images drawn from each generator; also the bound on each reference row. A Frechet distance asks for 2048."""
    seed: int = Field(0, ge=0)
    """Of the draws, the attack's starts, the resampling and the students."""
    sharpness: tuple[PositiveFloat, ...] = (1.0, 3.0, 10.0)
    """Fixed values of the condition's sharpness to measure accuracy at, beside the variant's own range."""
    sharpness_samples: int = Field(500, ge=MIN_SAMPLES)
    """Images drawn at each of them."""
    vendi_samples: int = Field(100, ge=MIN_SAMPLES)
    """Images of each class behind a Vendi score; where a class has fewer, fewer in every row."""
    epsilons: tuple[NonNegativeFloat, ...] = Field((0.0, 0.05, 0.1, 0.2, 0.3), min_length=1)
    """L-infinity bounds of the robustness curve, in pixels of [0, 1]."""
    robust_epsilon: NonNegativeFloat = 0.1
    """The one of them that is a headline number."""
    attack_steps: PositiveInt = 10
    """PGD steps, of size 2.5 epsilon / steps, with one random start."""
    robust_samples: int = Field(200, ge=MIN_SAMPLES)
    """Images of each row that are attacked."""
    privacy_samples: int = Field(1000, ge=MIN_SAMPLES)
    """Images of each row that the privacy audit looks at."""
    privacy_pool: int = Field(5000, ge=MIN_POOL)
    """Bound on its training pool and its test pool, which are of equal size."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind the interval of a mean."""
    student: ClassifierTrainingConfig | None = ClassifierTrainingConfig(epochs=5, batch_size=128)
    """How a student is trained on images and labels; ``null`` leaves it out."""
    distillation: DistillationConfig | None = DistillationConfig()
    """How another one is taught the classifier's own answers to the images; ``null`` leaves it out."""
    student_architecture: ConvClassifierConfig = ConvClassifierConfig(channels=(16, 32), dropout=0)
    """Of both, with fresh weights."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationConfig":
        if self.robust_epsilon not in self.epsilons:
            raise ValueError(f"robust_epsilon must be one of epsilons, {list(self.epsilons)}")
        return self


class Evaluation(NamedTuple):
    """Results, and the images behind them."""

    results: Results
    images: dict[str, LabelledImages]
    """Of each row, by its name."""


class _Draws(NamedTuple):
    """What was drawn from one generator, or from the ensemble."""

    plain: Source
    dropout: Source | None
    """With dropout left on; ``None`` for a generator that has none."""
    sharpness: list[Source]
    """At each fixed sharpness."""


class _Reference(NamedTuple):
    """What every row is measured with and against."""

    config: EvaluationConfig
    bootstrap: Bootstrap
    classifier: InvertibleClassifier
    test: LabelledImages | None
    real_test: Source | None
    radii: Tensor | None
    vendi_n: int
    vendi: dict[str, measures.VendiScores]
    """Of real test images, by the name of the measure."""
    num_compared: int
    """Samples behind the coverage and the Frechet distance of every row."""
    num_overall: int
    """Samples behind the overall Vendi score of every row."""
    pools: Pools | str
    """Real images of the privacy audit, or why there are none."""


def evaluate(
    generators: Sequence[ConditionedGenerator],
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
    classes: Sequence[str],
    train: LabelledImages | None,
    test: LabelledImages | None,
    config: EvaluationConfig,
    sharpness: tuple[float, float] = (1.0, 1.0),
) -> Evaluation:
    """Measure generators against the classifier they invert, an independent evaluator, and real images.

    Args:
        generators: At least one.
        classifier: The inverted classifier, in evaluation mode.
        evaluator: A classifier that no generator ever saw; ``None`` if there is none. All networks on one device.
        classes: Names of the K classes.
        train: Real training images, or ``None`` if they are not to be had.
        test: Real images that neither network was trained on, or ``None``.
        config: What to measure and how.
        sharpness: Range of the condition's sharpness to draw from: the one the generators were trained on.

    Raises:
        InputError: There is no generator, the networks and the data set are not of one shape, or the evaluator is
            broken.
    """
    _expect_one_shape(generators, classifier, evaluator, classes, train, test)
    rng, bootstrap = np.random.default_rng(config.seed), Bootstrap(config.seed, config.resamples)

    def seen(name: str, kind: Kind, images: Tensor, label: Tensor, vector: Tensor | None = None) -> Source:
        return observe(name, kind, images, label, vector, classifier, evaluator)

    def drawn(generator: ConditionedGenerator, name: str) -> _Draws:
        def sample(num: int, s: tuple[float, float], dropout: bool = False) -> Source:
            images, vector = generate(generator, num, config.seed, s, dropout)
            return seen(name, "generator", images, vector.argmax(dim=1), vector)

        drops = any(layer.p > 0 for layer in dropout_layers(generator))
        return _Draws(
            sample(config.num_samples, sharpness),
            sample(config.num_samples, sharpness, dropout=True) if drops else None,
            [sample(config.sharpness_samples, (s, s)) for s in config.sharpness],
        )

    draws = [
        drawn(generator, f"generator {i}")
        for i, generator in enumerate(tqdm(generators, "evaluate: draw", unit="generator", disable=None))
    ]
    draws.append(_ensemble(draws))
    # Real images are observed once, and serve both as rows and as the audit's pools.
    real: dict[str, Source] = {}
    order: dict[str, NDArray[np.int64]] = {}
    for name, data in zip(REAL, (train, test), strict=True):
        if data is not None and len(data.labels):
            order[name] = rng.permutation(len(data.labels))[: max(config.num_samples, config.privacy_pool)]
            images = to_float(data.images[order[name]])
            real[name] = seen(name, "reference", images, data.labels[order[name]])
    _expect_sound_evaluator(real)
    pools = _pools(real, order, config)
    told = _membership(real, bootstrap)
    real = {name: first(source, config.num_samples) for name, source in real.items()}
    pixels = torch.from_numpy(rng.random((config.num_samples, *classifier.image_shape), dtype=np.float32))
    noise = seen("noise", "reference", pixels, torch.zeros(len(pixels), dtype=torch.long))
    # Noise is of no class. What the classifier takes it for stands in, and the evaluator may agree or not.
    noise = dataclasses.replace(noise, label=noise.logits.argmax(dim=1))

    sources = [*(d.plain for d in draws), *real.values(), noise]
    reference = _reference(sources[:-1], real, test, pools, config, bootstrap, classifier)
    rows: list[Row] = []
    for i, source in enumerate(tqdm(sources, "evaluate: measure", unit="row", disable=None)):
        if source.kind == "ensemble" and len(generators) == 1:
            rows.append(rows[0].model_copy(update={"name": source.name, "kind": source.kind}))
        else:
            rows.append(_row(source, draws[i] if i < len(draws) else None, reference))
    rows += [_empty_row(name, "reference", 0, "no real images were given") for name in REAL if name not in real]
    leak, sentence = verdict(rows, told)
    results = Results(
        classes=tuple(classes),
        image_shape=classifier.image_shape,
        settings=config.model_dump(mode="json"),
        sharpness=sharpness,
        vendi_n=reference.vendi_n,
        headline=headline(rows, sources[: len(generators)], bootstrap)
        | {"membership_auc": told}
        | _distilled(generators, real, noise, test, config, bootstrap, classifier),
        verdict=sentence,
        leak=leak,
        rows=tuple(rows),
    )
    return Evaluation(results, {s.name: LabelledImages(to_uint8(s.images), s.label) for s in sources})


def _expect_one_shape(
    generators: Sequence[ConditionedGenerator],
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
    classes: Sequence[str],
    train: LabelledImages | None,
    test: LabelledImages | None,
) -> None:
    if not generators:
        raise InputError("There is no generator to evaluate: run the invert stage first.")
    networks: list[tuple[str, InvertibleClassifier]] = [("the classifier", classifier)] + (
        [("the evaluator", evaluator)] if evaluator is not None else []
    )
    given: list[tuple[str, int, tuple[int, ...]]] = [(n, c.num_classes, c.image_shape) for n, c in networks]
    given += [(f"generator {i}", g.num_classes, g.image_shape) for i, g in enumerate(generators)]
    for name, data in (("the training split", train), ("the test split", test)):
        if data is not None:
            given.append((name, len(classes), tuple(data.images.shape[1:])))
    for name, num_classes, shape in given:
        if (num_classes, shape) != (len(classes), classifier.image_shape):
            raise InputError(
                f"The data set has {len(classes)} classes and the classifier takes images of shape "
                f"{classifier.image_shape}, but {name} has {num_classes} classes and images of shape {shape}: "
                "run its stage again."
            )


def _ensemble(draws: Sequence[_Draws]) -> _Draws:
    dropout = [d.dropout for d in draws if d.dropout is not None]
    return _Draws(
        ensemble([d.plain for d in draws]),
        ensemble(dropout) if len(dropout) == len(draws) else None,
        [ensemble(sources) for sources in zip(*(d.sharpness for d in draws), strict=True)],
    )


def _distilled(
    generators: Sequence[ConditionedGenerator],
    real: dict[str, Source],
    noise: Source,
    test: LabelledImages | None,
    config: EvaluationConfig,
    bootstrap: Bootstrap,
    classifier: InvertibleClassifier,
) -> Measures:
    """``distilled_accuracy`` of all generators together, and its two controls. Not of every row: it takes minutes."""

    def accuracy(images: Tensor) -> Measure:
        return measures.distilled_accuracy(
            images, test, config.student_architecture, config.distillation, classifier, bootstrap
        )

    controls = {
        "distilled_noise_accuracy": accuracy(noise.images),
        "distilled_real_accuracy": accuracy(real["real_train"].images)
        if "real_train" in real
        else NotMeasured(not_measured="no real images were given"),
    }
    if config.distillation is None:
        return {"distilled_accuracy": controls["distilled_noise_accuracy"], **controls}
    num, sharpness = -(-config.distillation.images // len(generators)), config.distillation.sharpness
    drawn = [generate(g, num, config.seed + i, sharpness, dropout=False)[0] for i, g in enumerate(generators)]
    return {"distilled_accuracy": accuracy(torch.cat(drawn)), **controls}


def _expect_sound_evaluator(real: dict[str, Source]) -> None:
    """Features of real images are what all others are compared with."""
    for source in real.values():
        if source.features is not None and not torch.isfinite(source.features).all():
            raise InputError(
                "The evaluator gives values that are not finite for real images: train it again, or leave it out."
            )


def _pools(real: dict[str, Source], order: dict[str, NDArray[np.int64]], config: EvaluationConfig) -> Pools | str:
    """The real images of the privacy audit, or why there are none; ``order`` tells their places in their splits."""
    if len(real) < len(REAL):
        return "it needs real training and real test images"
    size = min([config.privacy_pool, *(len(source.label) for source in real.values())])
    if size < MIN_POOL:
        return f"{size} real images on one side, at least {MIN_POOL} are needed"
    train, test = (first(real[name], size) for name in REAL)
    index = [order[name][:size] for name in REAL]
    return Pools(train.images, test.images, train.features, test.features, index[0], index[1])


def _membership(real: dict[str, Source], bootstrap: Bootstrap) -> Measure:
    if len(real) < len(REAL):
        return NotMeasured(not_measured="it needs real training and real test images")
    train, test = (real[name] for name in REAL)
    why = broken(train) or broken(test)
    if why is not None:
        return NotMeasured(not_measured=why)
    return membership(train.logits, train.label, test.logits, test.label, bootstrap)


def _reference(
    sources: Sequence[Source],
    real: dict[str, Source],
    test: LabelledImages | None,
    pools: Pools | str,
    config: EvaluationConfig,
    bootstrap: Bootstrap,
    classifier: InvertibleClassifier,
) -> _Reference:
    """One n for every row, since Vendi scores and Frechet distances depend on it. Classes too small do not count."""
    counts = np.concatenate([np.bincount(s.label.numpy(), minlength=s.num_classes) for s in sources])
    vendi_n = min([config.vendi_samples, *counts[counts >= MIN_SAMPLES].tolist()])
    real_test = real.get("real_test")
    radii = None
    vendi = {}
    if real_test is not None:
        vendi = _vendi_scores(real_test, real_test, vendi_n, bootstrap)
        if real_test.features is not None and len(real_test.label) > measures.NEIGHBOURS:
            radii = ball_radii(real_test.features, measures.NEIGHBOURS)
    num_compared = min(len(s.label) for s in sources if s.name != "real_test")
    num_overall = min(len(s.label) for s in sources)
    return _Reference(
        config, bootstrap, classifier, test, real_test, radii, vendi_n, vendi, num_compared, num_overall, pools
    )


def _row(source: Source, draws: _Draws | None, reference: _Reference) -> Row:
    """Everything about one source."""
    config, bootstrap = reference.config, reference.bootstrap
    why = broken(source)
    if why is not None:
        return _empty_row(source.name, source.kind, len(source.label), why)
    curve = _curve(source, reference)
    vendi, vendi_by_class = _vendi(source, reference)
    return Row(
        name=source.name,
        kind=source.kind,
        samples=len(source.label),
        measures=_measures(source, curve, vendi, reference),
        dropout=_with_dropout(draws, reference),
        by_class=measures.accuracies_by_class(source, bootstrap) | {"vendi": vendi_by_class},
        confusion=measures.confusion(source),
        by_gap=measures.accuracies_by_gap(source, bootstrap),
        by_sharpness=tuple(
            measures.accuracy_bin(drawn, bootstrap, s, s)
            for s, drawn in zip(config.sharpness, draws.sharpness, strict=True)
        )
        if draws
        else (),
        calibration=measures.calibration(source, bootstrap),
        robustness=curve,
        audit=_audit(source, reference),
    )


def _curve(source: Source, reference: _Reference) -> tuple[RobustPoint, ...]:
    """Accuracy under attack at each epsilon."""
    config = reference.config
    kept = measures.survival(
        source, reference.classifier, config.epsilons, config.attack_steps, config.robust_samples, config.seed
    )
    return tuple(
        RobustPoint(epsilon=epsilon, accuracy=reference.bootstrap.mean(column.numpy()))
        for epsilon, column in zip(config.epsilons, kept.T, strict=True)
    )


def _measures(source: Source, curve: Sequence[RobustPoint], vendi: Measures, reference: _Reference) -> Measures:
    """All of ``MEASURES``."""
    config, bootstrap = reference.config, reference.bootstrap
    found = (
        measures.accuracies(source, bootstrap)
        | measures.accuracies_off_ties(source, bootstrap)
        | measures.intensity(source, bootstrap)
        | vendi
        | measures.overall_diversity(source, reference.num_overall, bootstrap)
        | measures.resemblance(source, reference.real_test, reference.radii, reference.num_compared, bootstrap)
        | {
            "robust_accuracy": next(p.accuracy for p in curve if p.epsilon == config.robust_epsilon),
            "student_accuracy": measures.student_accuracy(
                source,
                reference.test,
                config.student_architecture,
                config.student,
                bootstrap,
                reference.classifier.device,
            ),
        }
    )
    return {name: found[name] for name in MEASURES}


def _with_dropout(draws: _Draws | None, reference: _Reference) -> Measures:
    """All of ``MEASURES`` for the images drawn with dropout left on."""
    if draws is None or draws.dropout is None:
        return missing(MEASURES, "the generator has no dropout" if draws else "these images are not generated")
    source = draws.dropout
    why = broken(source)
    if why is not None:
        return missing(MEASURES, why)
    curve, (vendi, _) = _curve(source, reference), _vendi(source, reference)
    return _measures(source, curve, vendi, reference)


def _vendi(source: Source, reference: _Reference) -> tuple[Measures, tuple[Measure, ...]]:
    """Every Vendi score and its ratio to that of real test images, and ``vendi`` of each class."""
    names = [name for name in MEASURES if name.startswith("vendi") and name != "vendi_overall"]
    why = constant(source.images)
    if why:
        return missing(names, why), (NotMeasured(not_measured=why),) * source.num_classes
    result = missing(names, "no evaluator was given")
    if reference.real_test is None:
        result |= missing([name for name in names if "centred" in name], "no real test images were given")
    by_class: tuple[Measure, ...] = (NotMeasured(not_measured="no evaluator was given"),) * source.num_classes
    for name, scores in _vendi_scores(source, reference.real_test, reference.vendi_n, reference.bootstrap).items():
        result[name] = measures.vendi_mean(scores)
        result[f"{name}_ratio"] = (
            measures.vendi_ratio(scores, reference.vendi[name])
            if name in reference.vendi
            else NotMeasured(not_measured="no real test images were given")
        )
        if name == "vendi":
            by_class = measures.vendi_by_class(scores)
    return result, by_class


def _vendi_scores(
    source: Source, real_test: Source | None, n: int, bootstrap: Bootstrap
) -> dict[str, measures.VendiScores]:
    """Vendi scores on pixels, on evaluator features, and on these centred on their mean over real test images."""
    vectors = {"vendi_pixels": source.images.flatten(1)}
    if source.features is not None:
        vectors["vendi"] = source.features
        if real_test is not None and real_test.features is not None:
            vectors["vendi_centred"] = source.features - real_test.features.mean(dim=0)
    return {name: measures.vendi_scores(own, source, n, bootstrap) for name, own in vectors.items()}


def _audit(source: Source, reference: _Reference) -> Audit:
    pools, config = reference.pools, reference.config
    if isinstance(pools, str):
        return not_audited(pools)
    # Of real images those in the pools: the training images are the copies that an audit must find.
    chosen = slice(min(config.privacy_samples, pools.size) if source.kind == "reference" else config.privacy_samples)
    features = source.features[chosen] if source.features is not None else None
    return audit(pools, source.images[chosen], features, source.label[chosen], source.num_classes, config.seed)


def _empty_row(name: str, kind: Kind, samples: int, why: str) -> Row:
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
