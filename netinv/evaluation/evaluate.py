"""Every measure of a set of generators, with its controls. ``docs/measures.md`` says what each number means.

A row of the result is a set of samples: each generator, their ensemble, and as references real training images, real
test images, uniform noise and one bent picture of each class, so that no number has to be read alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from netinv.classifiers import InvertibleClassifier
from netinv.core import InputError, batch_size_for
from netinv.data import LabelledImages, expect_fit, labelled, to_float, to_uint8
from netinv.evaluation import controls
from netinv.evaluation.config import EvaluationConfig
from netinv.evaluation.headline import headline, verdict
from netinv.evaluation.measures import Measures, missing
from netinv.evaluation.privacy import MIN_POOL, Pools, membership
from netinv.evaluation.rows import NEED_REAL, NO_TRAIN, REAL, Draws, Reference, empty_row, measured_row, reference_for
from netinv.evaluation.samples import SampleSet, broken, ensemble, first, observe
from netinv.evaluation.students import distilled_accuracy
from netinv.generators import ConditionedGenerator, draw_images, has_dropout
from netinv.perturbations import check_shift
from netinv.results import ROW_NAME, Bootstrap, Measure, NotMeasured, Results, Row

BATCH = 500
"""Images that a generator draws at a time; fewer large ones."""


class Evaluation(NamedTuple):
    """Results, and the images behind them."""

    results: Results
    images: dict[str, LabelledImages]
    """Of each row, by its name."""


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
        train: Real training images, or ``None`` if there are none.
        test: Real images that neither network was trained on, or ``None``.
        config: What to measure and how.
        sharpness: Range of the condition's sharpness to draw from: the one the generators were trained on.

    Raises:
        InputError: There is no generator, the networks and the data set are not of one shape, images are to be moved
            further than they reach, real images are none, or the evaluator is broken.
    """
    train = None if train is None else labelled(train, "The training images")
    test = None if test is None else labelled(test, "The test images")
    _expect_one_shape(generators, classifier, evaluator, classes, train, test)
    for name, lessons in (("student", config.student), ("distillation", config.distillation)):
        if lessons is not None:
            check_shift(lessons.shift, classifier.image_shape, f"evaluate.{name}.shift")
    rng, bootstrap = np.random.default_rng(config.seed), Bootstrap(config.seed, config.resamples)
    seen = partial(observe, classifier=classifier, evaluator=evaluator)
    draws = [
        _drawn(f"generator {i}", generator, seen, config, sharpness)
        for i, generator in enumerate(tqdm(generators, "evaluate: draw", unit="generator", disable=None))
    ]
    draws.append(_ensemble(draws))
    # Real images are observed once, and serve both as rows and as the audit's pools.
    real, order = _observed(train, test, seen, config, rng)
    _expect_sound_evaluator(real)
    pools = _pools(real, order, config)
    membership_auc = _membership(real, bootstrap)
    noise = controls.noise(classifier.image_shape, config.num_samples, seen, rng)
    bent = None
    if "real_train" in real:  # generators of one variant are finished alike
        bent = controls.one_picture(real["real_train"], config.num_samples, generators[0], seen, rng)
    real = {name: first(samples, config.num_samples) for name, samples in real.items()}

    sets = [*(d.plain for d in draws), *real.values()]
    reference = reference_for(sets, real, test, pools, config, bootstrap, classifier)
    sets += [noise] if bent is None else [noise, bent]
    rows = _rows(sets, draws, reference)
    leak, sentence = verdict(rows, membership_auc)
    results = Results(
        classes=tuple(classes),
        image_shape=classifier.image_shape,
        settings=config.model_dump(mode="json"),
        sharpness=sharpness,
        vendi_n=reference.vendi_n,
        headline=headline(rows)
        | {"membership_auc": membership_auc}
        | _distilled(generators, train, bent, test, config, bootstrap, classifier),
        verdict=sentence,
        leak=leak,
        rows=tuple(rows),
    )
    return Evaluation(results, {s.name: LabelledImages(to_uint8(s.images), s.label) for s in sets})


def measure_images(
    sets: Mapping[str, tuple[Tensor, Tensor]],
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
    test: LabelledImages | None,
    config: EvaluationConfig,
) -> dict[str, Row]:
    """The measures of images, wherever they came from: those of :func:`evaluate` that need no generator, nor an audit.

    Some measures look at the first images of a set alone. So each set is shuffled, by the configuration's seed, and the
    order in which it is given does not matter.

    Args:
        sets: Of each name images (N, C, H, W), uint8 or in [0, 1], and the labels (N,) that they are meant to have,
            int64. How many are compared with real ones is the same for all of them, the fewest.
        classifier: The inverted classifier, in evaluation mode.
        evaluator: A classifier of another make; ``None`` if there is none.
        test: Real images that neither network was trained on, or ``None``.
        config: What to measure and how.

    Returns:
        A row for each set.

    Raises:
        InputError: The evaluator is broken, a set's name cannot be that of a row, or images are none, or of another
            shape or other classes than the classifier's.
    """
    for name in sets:
        if not re.fullmatch(ROW_NAME, name):
            raise InputError(
                f"{name!r} cannot name a set of images: begin with a letter or a digit, and use these, spaces and _.+- "
                "alone."
            )
    if test is not None:
        test = labelled(test, "The test images")
        expect_fit(test, "The test images", classifier.image_shape, classifier.num_classes)
    rng, bootstrap = np.random.default_rng(config.seed), Bootstrap(config.seed, config.resamples)
    seen = partial(observe, classifier=classifier, evaluator=evaluator)
    given = []
    for name, (images, label) in sets.items():
        what = f"The images {name}"
        expect_fit(LabelledImages(images, label), what, classifier.image_shape, classifier.num_classes)
        order = torch.from_numpy(np.random.default_rng(config.seed).permutation(len(label)))
        given.append(seen(name, "generator", to_float(images[order]), label[order]))
    real, _ = _observed(None, test, seen, config, rng)
    _expect_sound_evaluator(real)
    real = {name: first(samples, config.num_samples) for name, samples in real.items()}
    why = "images alone are not audited"
    reference = reference_for([*given, *real.values()], real, test, why, config, bootstrap, classifier)
    return {samples.name: measured_row(samples, None, reference) for samples in given}


def _drawn(
    name: str,
    generator: ConditionedGenerator,
    seen: Callable[..., SampleSet],
    config: EvaluationConfig,
    sharpness: tuple[float, float],
) -> Draws:
    """All that is drawn from one generator."""
    at_once = batch_size_for(BATCH, generator.image_shape)

    def sample(num: int, s: tuple[float, float], dropout: bool = False) -> SampleSet:
        images, vector = draw_images(generator, num, seed=config.seed, sharpness=s, dropout=dropout, batch_size=at_once)
        return seen(name, "generator", images, vector.argmax(dim=1), vector)

    return Draws(
        sample(config.num_samples, sharpness),
        sample(config.num_samples, sharpness, dropout=True) if has_dropout(generator) else None,
        [sample(config.sharpness_samples, (s, s)) for s in config.sharpness],
    )


def _observed(
    train: LabelledImages | None,
    test: LabelledImages | None,
    seen: Callable[..., SampleSet],
    config: EvaluationConfig,
    rng: np.random.Generator,
) -> tuple[dict[str, SampleSet], dict[str, NDArray[np.int64]]]:
    """Real images of each split that has some, and their places in it, in random order."""
    real: dict[str, SampleSet] = {}
    order: dict[str, NDArray[np.int64]] = {}
    for name, data in zip(REAL, (train, test), strict=True):
        if data is not None and len(data.labels):
            order[name] = rng.permutation(len(data.labels))[: max(config.num_samples, config.privacy_pool)]
            real[name] = seen(name, "reference", to_float(data.images[order[name]]), data.labels[order[name]])
    return real, order


def _rows(sets: Sequence[SampleSet], draws: Sequence[Draws], reference: Reference) -> list[Row]:
    """A row for each set, of which the first ones are drawn, and an empty one for real images that were not given."""
    rows: list[Row] = []
    for i, samples in enumerate(tqdm(sets, "evaluate: measure", unit="row", disable=None)):
        if samples.kind == "ensemble" and len(draws) == 2:  # of one generator alone, which is the first row
            rows.append(rows[0].model_copy(update={"name": samples.name, "kind": samples.kind}))
        else:
            rows.append(measured_row(samples, draws[i] if i < len(draws) else None, reference))
    given = {samples.name for samples in sets}
    return rows + [empty_row(name, "reference", 0, why) for name, why in NEED_REAL.items() if name not in given]


def _expect_one_shape(
    generators: Sequence[ConditionedGenerator],
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
    classes: Sequence[str],
    train: LabelledImages | None,
    test: LabelledImages | None,
) -> None:
    if not generators:
        raise InputError("There is no generator to evaluate: invert the classifier first.")
    networks: list[tuple[str, InvertibleClassifier]] = [("the classifier", classifier)] + (
        [("the evaluator", evaluator)] if evaluator is not None else []
    )
    given: list[tuple[str, int, tuple[int, ...]]] = [(n, c.num_classes, c.image_shape) for n, c in networks]
    given += [(f"generator {i}", g.num_classes, g.image_shape) for i, g in enumerate(generators)]
    for name, data in (("the training split", train), ("the test split", test)):
        if data is not None:
            given.append((name, len(classes), tuple(data.images.shape[1:])))
            if len(data.labels) and int(data.labels.max()) >= len(classes):
                raise InputError(
                    f"{name} has the class {int(data.labels.max())}, but there are {len(classes)}, from 0 on."
                )
    for name, num_classes, shape in given:
        if (num_classes, shape) != (len(classes), classifier.image_shape):
            raise InputError(
                f"The data set has {len(classes)} classes and the classifier takes images of shape "
                f"{classifier.image_shape}, but {name} has {num_classes} classes and images of shape {shape}: "
                "make it again."
            )


def _ensemble(draws: Sequence[Draws]) -> Draws:
    dropout = [d.dropout for d in draws if d.dropout is not None]
    return Draws(
        ensemble([d.plain for d in draws]),
        ensemble(dropout) if len(dropout) == len(draws) else None,
        [ensemble(sets) for sets in zip(*(d.sharpness for d in draws), strict=True)],
    )


def _distilled(
    generators: Sequence[ConditionedGenerator],
    train: LabelledImages | None,
    bent: SampleSet | None,
    test: LabelledImages | None,
    config: EvaluationConfig,
    bootstrap: Bootstrap,
    classifier: InvertibleClassifier,
) -> Measures:
    """``distilled_accuracy`` of all generators together, and its controls. Not of every row: it takes minutes.

    Each student is taught by as many images as the others, or by all real training images, or all of one bent picture
    of each class, where those are fewer.
    """
    lessons = config.distillation
    names = ("distilled_accuracy", *(f"distilled_{row}_accuracy" for row in ("real", "noise", "one_picture")))
    if lessons is None:
        return missing(names, "evaluate.distillation is null")
    num, rng = -(-lessons.images // len(generators)), np.random.default_rng(config.seed)
    total = num * len(generators)

    at_once = batch_size_for(BATCH, classifier.image_shape)

    def drawn() -> Tensor:
        parts = [
            draw_images(g, num, seed=config.seed + i, sharpness=lessons.sharpness, batch_size=at_once)[0]
            for i, g in enumerate(generators)
        ]
        return torch.cat(parts)

    def real() -> Tensor | None:
        chosen = rng.permutation(0 if train is None else len(train.labels))[:total]
        return None if train is None or not len(chosen) else to_float(train.images[chosen])

    def noise() -> Tensor:
        return torch.from_numpy(rng.random((total, *classifier.image_shape), dtype=np.float32))

    def one_picture() -> Tensor | None:
        return None if bent is None else bent.images[:total]

    def accuracy(images: Tensor | None) -> Measure:
        if images is None:
            return NotMeasured(not_measured=NO_TRAIN)
        return distilled_accuracy(images, test, config.student_architecture, lessons, classifier, bootstrap)

    # Made one after another: together they would take several times the memory.
    return {name: accuracy(images()) for name, images in zip(names, (drawn, real, noise, one_picture), strict=True)}


def _expect_sound_evaluator(real: dict[str, SampleSet]) -> None:
    """Features of real images are what all others are compared with."""
    for samples in real.values():
        if samples.features is not None and not torch.isfinite(samples.features).all():
            raise InputError(
                "The evaluator gives values that are not finite for real images: train it again, or leave it out."
            )


def _pools(real: dict[str, SampleSet], order: dict[str, NDArray[np.int64]], config: EvaluationConfig) -> Pools | str:
    """The real images of the privacy audit, or why there are none; ``order`` tells their places in their splits."""
    if len(real) < len(REAL):
        return "it needs real training and real test images"
    size = min([config.privacy_pool, *(len(samples.label) for samples in real.values())])
    if size < MIN_POOL:
        return f"{size} real images on one side, at least {MIN_POOL} are needed"
    train, test = (first(real[name], size) for name in REAL)
    index = [order[name][:size] for name in REAL]
    return Pools(train.images, test.images, train.features, test.features, index[0], index[1])


def _membership(real: dict[str, SampleSet], bootstrap: Bootstrap) -> Measure:
    if len(real) < len(REAL):
        return NotMeasured(not_measured="it needs real training and real test images")
    train, test = (real[name] for name in REAL)
    why = broken(train) or broken(test)
    if why is not None:
        return NotMeasured(not_measured=why)
    return membership(train.logits, train.label, test.logits, test.label, bootstrap)
