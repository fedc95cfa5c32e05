"""A classifier tried out before the work: what it is, and the usual mistakes in plain words."""

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from netinv.classifiers.adapters import DEFAULT, AdaptedClassifier, AdapterConfig, adapt
from netinv.classifiers.calls import bare, frozen
from netinv.classifiers.findings import BATCH, Code, Finding, Severity, as_found, behaviour, largest_batch
from netinv.classifiers.inputs import expect_shape, probe_images, to_grey
from netinv.classifiers.networks import InvertibleClassifier
from netinv.classifiers.outputs import OutputKind
from netinv.classifiers.untrained import (
    EQUAL_LOGITS,
    how_to_enlarge,
    in_255,
    instead,
    logit_spread,
    untrained,
)
from netinv.core import Config, InputError, PixelRange, backward_pass, batch_size_for
from netinv.data import LabelledImages, channel_statistics, labelled, to_float

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation that most pretrained colour networks are normalised by."""
MAX_IMAGES = 500
"""Labelled images that a check looks at."""
TIMED_SECONDS = 0.5
"""How long throughput is measured."""


class CheckReport(Config):
    """What a classifier is, as far as it could be found out, and what is wrong with it."""

    findings: tuple[Finding, ...]
    parameters: int
    image_shape: tuple[int, ...]
    """(C, H, W) of the images that it is asked about; empty where no such shape was given."""
    input_shape: tuple[int, ...] | None = None
    """What the network itself is given."""
    num_classes: int | None = None
    """K."""
    output: OutputKind | None = None
    output_range: tuple[float, float] | None = None
    """Smallest and largest score on the images of the check."""
    feature_layer: str | None = None
    """Name of the module whose input is the features."""
    feature_dim: int | None = None
    """D."""
    images_per_second: float | None = None
    """Forward and backward, on this machine."""
    accuracy: float | None = None
    """On the labelled images."""
    num_images: int = 0
    """Labelled images behind the accuracy."""

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)


@torch.inference_mode(mode=False)  # whatever the caller's: gradients are tried
def check_classifier(
    classifier: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    adapter: AdapterConfig | None = None,
    data: LabelledImages | None = None,
) -> CheckReport:
    """Try a network out, and leave it as it was found.

    Args:
        classifier: Any module, as for :func:`~netinv.classifiers.adapt`.
        image_shape: (C, H, W).
        num_classes: K as its owner believes it to be.
        adapter: What the network takes and gives, as its owner believes it to be.
        data: Labelled images, uint8 or float in [0, 1], on which the beliefs can be tested.
    """
    parameters, shape = 0, tuple[int, ...]()
    try:
        shape, config = (
            expect_shape(image_shape),
            AdapterConfig.expect(DEFAULT if adapter is None else adapter, "adapter"),
        )
        network = bare(classifier)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        adapted, more = _adapt(network, image_shape, num_classes, config)
    except InputError as error:
        unusable = Finding(severity="error", code="unusable", message=str(error))
        return CheckReport(findings=(unusable,), parameters=parameters, image_shape=shape)
    findings = [*as_found(adapted.network, adapted.config), *more]
    with frozen(network):
        findings += behaviour(adapted, batch_size_for(BATCH, shape))
        measured = _measured(adapted, data)
        findings += measured.findings
        speed = None if any(f.severity == "error" for f in findings) else _throughput(adapted)
    order = ("error", "warning", "note")
    low, high = adapted.output_range
    return CheckReport(
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        parameters=parameters,
        image_shape=adapted.image_shape,
        input_shape=adapted.config.input_shape if adapted.config.input_shape is not None else adapted.image_shape,
        num_classes=adapted.num_classes,
        output=adapted.output,
        output_range=(low, high),
        feature_layer=adapted.feature_layer,
        feature_dim=adapted.feature_dim,
        images_per_second=speed,
        accuracy=measured.accuracy,
        num_images=measured.num,
    )


def _adapt(
    network: nn.Module, image_shape: tuple[int, int, int], num_classes: int | None, config: AdapterConfig
) -> tuple[AdaptedClassifier, list[Finding]]:
    """The adapter, for the network's own K where that is not the one believed in."""
    try:
        return adapt(network, image_shape, num_classes, config), []
    except InputError as error:
        try:
            classifier = adapt(network, image_shape, None, config)
        except InputError:
            raise error from None
        return classifier, [Finding(severity="error", code="num_classes", message=str(error))]


class _Measured(NamedTuple):
    findings: list[Finding]
    accuracy: float | None = None
    num: int = 0


def _measured(classifier: AdaptedClassifier, data: LabelledImages | None) -> _Measured:
    """Accuracy on labelled images, and what else they show."""
    findings: list[Finding] = []

    def add(severity: Severity, code: Code, message: str) -> None:
        findings.append(Finding(severity=severity, code=code, message=message))

    if data is None:
        add("note", "data", "Without labelled images, accuracy, normalisation and channel order cannot be tested.")
        return _Measured([*findings, *untrained(classifier)])
    try:
        data = labelled(data, "The labelled images")
    except InputError as error:
        add("error", "pixel_range" if isinstance(error, PixelRange) else "data", str(error))
        return _Measured(findings)
    if tuple(data.images.shape[1:]) != classifier.image_shape:
        add("error", "data", f"The labelled images are {tuple(data.images.shape[1:])}, not {classifier.image_shape}.")
        return _Measured(findings)
    if not len(data.labels):
        add("error", "data", "There are no labelled images.")
        return _Measured(findings)
    num_classes = classifier.num_classes
    given = int(data.labels.max()) + 1
    if given > num_classes:
        add(
            "error",
            "num_classes",
            f"The images have labels up to {given - 1}, but the classifier knows {num_classes} classes.",
        )
        return _Measured(findings)
    if given < num_classes:
        add("warning", "num_classes", f"The images have {given} classes, but the classifier knows {num_classes}.")

    images, labels = _chosen(data, classifier.device)
    try:
        logits = _logits(classifier, images)
    except InputError as error:
        add("error", "data", str(error))
        return _Measured(findings, None, 0)
    predicted = logits.argmax(dim=1)
    accuracy = _right(logits, labels)
    best = _better(classifier, images, labels, accuracy)
    if best is not None and best.accuracy >= _right(-logits, labels):  # distances are told below
        add("warning", best.code, f"{best.message} (accuracy {best.accuracy:.3f} instead of {accuracy:.3f}).")
    elif bool((predicted == predicted[0]).all()) and not bool((labels == labels[0]).all()):
        add("warning", "constant", f"The classifier takes all {len(labels)} images for class {int(predicted[0])}.")
    elif accuracy < _chance(labels):
        add("warning", "accuracy", _hardly_better(logits, labels))
    elif (spread := logit_spread(logits)) < EQUAL_LOGITS and classifier.output == "logits":
        add(
            "warning",
            "output",
            f"Its scores are right but small, which inversion suffers from: {how_to_enlarge(spread)}.",
        )
    return _Measured(findings, accuracy, len(labels))


def near_chance(classifier: InvertibleClassifier, data: LabelledImages) -> str | None:
    """What the check says of an accuracy on labelled images that is hardly better than chance; ``None`` of others."""
    if not len(data.labels):
        return None
    images, labels = _chosen(data, classifier.device)
    logits = _logits(classifier, images)
    return _hardly_better(logits, labels) if _right(logits, labels) < _chance(labels) else None


def _chosen(data: LabelledImages, device: torch.device) -> tuple[Tensor, Tensor]:
    """Some of the images, in [0, 1], and their labels."""
    chosen = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:MAX_IMAGES]
    return to_float(data.images[chosen]).to(device), data.labels[chosen].to(device)


def _right(logits: Tensor, labels: Tensor) -> float:
    """Share of the images whose label has the largest score."""
    return float((logits.argmax(dim=1) == labels).float().mean())


def _hardly_better(logits: Tensor, labels: Tensor) -> str:
    told = (
        f"The accuracy of {_right(logits, labels):.3f} is hardly better than chance: was it trained, are these its "
        "weights, its classes in this order, and images of its kind?"
    )
    if (least := _right(-logits, labels)) > _chance(labels):
        told += (
            f" Its smallest score is right more often ({least:.3f}): if it gives distances, have it give -distances."
        )
    return told


def _chance(labels: Tensor) -> float:
    """Accuracy that no training is needed for: that of the commonest label, and a tenth of the way up to 1.

    Among many classes a tenth is many times that: there it is as much again, or what so few images may add by luck.
    """
    commonest = float(labels.bincount().max()) / len(labels)
    luck = 3 * math.sqrt(commonest * (1 - commonest) / len(labels))
    return commonest + min(0.1 * (1 - commonest), max(commonest, luck))


def _logits(classifier: InvertibleClassifier, images: Tensor) -> Tensor:
    """Logits of images, (N, K)."""
    at_once = largest_batch(classifier, min(BATCH, len(images)))
    with torch.no_grad():
        return torch.cat([classifier(batch) for batch in torch.split(images, at_once)])


class _Alternative(NamedTuple):
    config: AdapterConfig
    code: Code
    message: str
    accuracy: float = 0.0


def _better(classifier: AdaptedClassifier, images: Tensor, labels: Tensor, accuracy: float) -> _Alternative | None:
    """The other treatment of the images under which the classifier is much more often right, if there is one."""
    margin = max(0.03, 3 * math.sqrt(max(accuracy * (1 - accuracy), 0.02) / len(labels)))
    enough = max(accuracy + margin, _chance(labels))  # with meaningless labels one treatment is always the best
    best = None
    for alternative in _alternatives(classifier, images):
        try:
            other = instead(classifier, alternative.config)
            measured = _right(_logits(other, images), labels)
        except InputError:  # a network that fails on pixels of another kind is not meant for them
            continue
        if measured > enough and (best is None or measured > best.accuracy):
            best = alternative._replace(accuracy=measured)
    return best


def _alternatives(classifier: AdaptedClassifier, images: Tensor) -> Iterator[_Alternative]:
    """Treatments of the images that people mistake for one another, one change at a time."""
    config, channels = classifier.config, classifier.input_shape[0]
    zero, one = (0.0,) * channels, (1.0,) * channels

    def changed(mean: tuple[float, ...], std: tuple[float, ...]) -> AdapterConfig:
        return config.model_copy(update={"mean": mean, "std": std})

    yield _Alternative(
        in_255(classifier),
        "pixel_range",
        "It was trained on pixels in 0..255: set mean to 0 and std to 1/255 for each channel",
    )
    if config.mean is not None:
        yield _Alternative(
            changed(zero, one), "normalisation", "Double normalisation, it does better without: leave out mean and std"
        )
    else:
        seen = images if channels == 3 or images.shape[1] != 3 else to_grey(images)
        own = channel_statistics(seen.cpu())
        guesses = [own if len(own[0]) == channels else (own[0] * 3, own[1] * 3), ((0.5,) * channels, (0.5,) * channels)]
        guesses += [IMAGENET] if channels == 3 else []
        for mean, std in guesses:
            rounded = tuple(round(value, 3) for value in mean), tuple(round(value, 3) for value in std)
            message = (
                f"Normalisation is missing: set mean and std as in training, such as {rounded[0]} and {rounded[1]}"
            )
            yield _Alternative(changed(mean, std), "normalisation", message)
    if channels == 3:
        other = "rgb" if config.channel_order == "bgr" else "bgr"
        yield _Alternative(
            config.model_copy(update={"channel_order": other}),
            "channel_order",
            f"It takes its channels in the order {other.upper()}: set channel_order to {other}",
        )


def _throughput(classifier: AdaptedClassifier) -> float:
    """Images a second, forward and backward, after one batch to warm up."""
    batch_size = largest_batch(classifier, 16)
    images = probe_images(classifier.image_shape, batch_size).to(classifier.device)
    done, start = -1, 0.0
    while done < 1 or time.perf_counter() - start < TIMED_SECONDS:
        if done == 0:
            start = time.perf_counter()
        given = images.clone().requires_grad_()
        with backward_pass():
            (gradient,) = torch.autograd.grad(classifier(given).sum(), given)
        float(gradient.sum())  # waits for a GPU
        done += 1
    return done * batch_size / (time.perf_counter() - start)
