"""A classifier tried out before the work: what it is, and the usual mistakes in plain words."""

import math
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from netinv.adapters import DEFAULT, AdaptedClassifier, AdapterConfig, OutputKind, probe_images
from netinv.config import Config
from netinv.data import LabelledImages, channel_statistics, to_float
from netinv.errors import InputError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation that most pretrained colour networks are normalised by."""
MAX_IMAGES = 500
"""Labelled images that a check looks at."""
TIMED_SECONDS = 0.5
"""How long throughput is measured."""

Severity = Literal["error", "warning", "note"]
Code = Literal[
    "unusable",
    "num_classes",
    "output",
    "gradients",
    "constant",
    "pixel_range",
    "normalisation",
    "channel_order",
    "train_mode",
    "random",
    "batch_dependent",
    "accuracy",
    "features",
    "data",
]


class Finding(Config):
    """One thing that a check found."""

    severity: Severity
    """An error makes inversion fail or mean nothing, a warning makes it doubtful, a note is good to know."""
    code: Code
    message: str
    """What is so, and what to do about it."""


class CheckReport(Config):
    """What a classifier is, as far as it could be found out, and what is wrong with it."""

    findings: tuple[Finding, ...]
    parameters: int
    image_shape: tuple[int, int, int]
    """(C, H, W) of the images that it is asked about."""
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


def check_classifier(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    config: AdapterConfig = DEFAULT,
    data: LabelledImages | None = None,
) -> CheckReport:
    """Try a network out, and leave it as it was found.

    Args:
        network: Any module, as for :class:`~netinv.adapters.AdaptedClassifier`.
        image_shape: (C, H, W).
        num_classes: K as its owner believes it to be.
        config: What the network takes and gives, as its owner believes it to be.
        data: Labelled images, uint8 or float in [0, 1], on which the beliefs can be tested.
    """
    findings = list(_as_found(network, config))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    try:
        classifier, more = _adapt(network, image_shape, num_classes, config)
    except InputError as error:
        findings.append(Finding(severity="error", code="unusable", message=str(error)))
        return CheckReport(findings=tuple(findings), parameters=parameters, image_shape=image_shape)
    findings += more
    findings += behaviour(classifier)
    measured = _measured(classifier, data, findings)
    order = ("error", "warning", "note")
    low, high = classifier.output_range
    return CheckReport(
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        parameters=parameters,
        image_shape=image_shape,
        input_shape=config.input_shape if config.input_shape is not None else image_shape,
        num_classes=classifier.num_classes,
        output=classifier.output,
        output_range=(low, high),
        feature_layer=classifier.feature_layer,
        feature_dim=classifier.feature_dim,
        images_per_second=None if any(f.severity == "error" for f in findings) else _throughput(classifier),
        accuracy=measured.accuracy,
        num_images=measured.num,
    )


def _adapt(
    network: nn.Module, image_shape: tuple[int, int, int], num_classes: int | None, config: AdapterConfig
) -> tuple[AdaptedClassifier, list[Finding]]:
    """The adapter, for the network's own K where that is not the one believed in."""
    try:
        return AdaptedClassifier(network, image_shape, num_classes, config), []
    except InputError as error:
        try:
            classifier = AdaptedClassifier(network, image_shape, None, config)
        except InputError:
            raise error from None
        return classifier, [Finding(severity="error", code="num_classes", message=str(error))]


def _as_found(network: nn.Module, config: AdapterConfig) -> Iterator[Finding]:
    """What can be seen without running the network."""
    if any(module.training for module in network.modules() if isinstance(module, _MODAL)):
        yield Finding(
            severity="note",
            code="train_mode",
            message="The network came in training mode; here it is evaluated in evaluation mode, and left as it was.",
        )
    if config.mean is not None:
        inside = [name for name, module in network.named_modules() if type(module).__name__ == "Normalize"]
        inside += [
            name
            for name, buffer in network.named_buffers()
            if name.rpartition(".")[2] in ("mean", "pixel_mean", "_mean") and buffer.numel() == len(config.mean)
        ]
        if inside:
            yield Finding(
                severity="warning",
                code="normalisation",
                message=f"Double normalisation? The network normalises by itself ({inside[0]}), the adapter "
                "does so once more: leave out mean and std.",
            )


_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.MultiheadAttention)
"""Modules that do something else in training mode."""


def behaviour(classifier: AdaptedClassifier) -> Iterator[Finding]:
    """What shows on a few made-up images, without any data."""
    for finding in _output_findings(classifier):
        yield finding
        if finding.severity == "error":
            return  # what follows would judge the wrong numbers
    images = probe_images(classifier.image_shape).to(classifier.device)
    with torch.no_grad():
        logits = classifier(images)
        again = classifier(images)
        fewer = classifier(images[::2])
    scale = float(logits.abs().mean()) + 1e-6
    constant = float(logits.std(dim=0).max()) < 1e-6 * scale
    yield from _gradient_findings(classifier, images, constant)
    if constant:
        yield Finding(
            severity="error",
            code="constant",
            message="The classifier gives the same scores for every image: its weights are not loaded, its input is "
            "overwritten, or its activations are dead.",
        )
        return
    if not torch.allclose(logits, again, atol=1e-3 * scale):
        yield Finding(
            severity="warning",
            code="random",
            message="The same images get other scores the second time, even in evaluation mode: some dropout or noise "
            "does not heed the mode (F.dropout without training=self.training?).",
        )
    elif not torch.allclose(logits[::2], fewer, atol=1e-2 * scale):
        yield Finding(
            severity="warning",
            code="batch_dependent",
            message="An image's scores depend on the other images of its batch: the network was exported in training "
            "mode, or its batch norm keeps no running statistics. Export it after eval().",
        )
    yield from _scale_findings(classifier, images)
    if classifier.feature_layer is None:
        yield Finding(
            severity="note",
            code="features",
            message="No linear layer was found, so that the logits stand in for the features: name a feature_layer.",
        )


def _output_findings(classifier: AdaptedClassifier) -> Iterator[Finding]:
    """The kind of output that is believed in against the one that shows."""
    believed, shown = classifier.output, classifier.detected_output
    low, high = classifier.output_range
    if believed == "logits" and shown == "probabilities":
        message = (
            "Probabilities are taken for logits: the outputs are not negative and each row sums to 1, and a second "
            "soft-max would flatten them. Set output to probabilities, or remove the network's soft-max."
        )
    elif believed == "probabilities" and shown != "probabilities":
        kind = "Log-probabilities" if shown == "log_probabilities" else "Logits"
        message = (
            f"{kind} are taken for probabilities: the outputs reach from {low:.3g} to {high:.3g}. "
            f"Set output to {shown}, or to auto."
        )
    elif believed == "log_probabilities" and shown == "probabilities":
        message = "Probabilities are taken for log-probabilities. Set output to probabilities, or to auto."
    else:
        if shown == "logits" and low >= 0 and high <= 1:
            yield Finding(
                severity="warning",
                code="output",
                message="All outputs lie in [0, 1] but no row sums to 1: a sigmoid for each class? They are taken for "
                "logits; give the values before the sigmoid.",
            )
        return
    yield Finding(severity="error", code="output", message=message)


def _gradient_findings(classifier: AdaptedClassifier, images: Tensor, constant: bool) -> Iterator[Finding]:
    """Whether the scores tell the images which way to go."""
    images = images.clone().requires_grad_()
    advice = "Look for no_grad, detach, argmax, rounding or conversion to numpy in its forward."
    logits = classifier(images)
    if not logits.requires_grad:
        message = f"Gradients are blocked: the scores do not depend on the images as far as torch knows. {advice}"
        yield Finding(severity="error", code="gradients", message=message)
        return
    weights = torch.linspace(-1, 1, logits.shape[1], device=logits.device)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        if not constant:
            message = f"Gradients are blocked: they are 0 for every image. {advice}"
            yield Finding(severity="error", code="gradients", message=message)
    elif not bool(gradient.isfinite().all()):
        yield Finding(severity="error", code="gradients", message="Gradients of the scores are not finite.")


def _scale_findings(classifier: AdaptedClassifier, images: Tensor) -> Iterator[Finding]:
    """Activations at the first batch norm against its running statistics, which remember the training images."""
    norms = [m for m in classifier.network.modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None]
    if not norms or norms[0].running_var is None:
        return
    seen: list[Tensor] = []
    handle = norms[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            classifier(images)
    finally:
        handle.remove()
    if not seen or norms[0].num_batches_tracked is None or not int(norms[0].num_batches_tracked):
        return
    ratio = float((seen[0].var(dim=(0, 2, 3)) / norms[0].running_var.clamp(min=1e-12)).sqrt().median())
    if ratio < 0.03:
        yield Finding(
            severity="warning",
            code="pixel_range",
            message=f"Was it trained on pixels in 0..255? Its first batch norm remembers inputs {1 / ratio:.0f} times "
            "as strong as these. If so, set mean to 0 and std to 1/255 for each channel.",
        )
    elif ratio > 30:
        yield Finding(
            severity="warning",
            code="pixel_range",
            message=f"Its first batch norm sees inputs {ratio:.0f} times as strong as in training: images are "
            "in [0, 1] here, and so are mean and std.",
        )


class _Measured(NamedTuple):
    accuracy: float | None
    num: int


def _measured(classifier: AdaptedClassifier, data: LabelledImages | None, findings: list[Finding]) -> _Measured:
    """Accuracy on labelled images, and what else they show; appends to the findings."""

    def add(severity: Severity, code: Code, message: str) -> None:
        findings.append(Finding(severity=severity, code=code, message=message))

    if data is None:
        add("note", "data", "Without labelled images, accuracy, normalisation and channel order cannot be tested.")
        return _Measured(None, 0)
    if tuple(data.images.shape[1:]) != classifier.image_shape:
        add("error", "data", f"The labelled images are {tuple(data.images.shape[1:])}, not {classifier.image_shape}.")
        return _Measured(None, 0)
    brightest = float(data.images.max())
    if data.images.is_floating_point() and brightest > 1.5:
        message = f"Pixels in 0..255? The labelled images reach {brightest:.0f}; give uint8, or floats in [0, 1]."
        add("error", "pixel_range", message)
        return _Measured(None, 0)
    num_classes = classifier.num_classes
    given = int(data.labels.max()) + 1
    if given > num_classes:
        add(
            "error",
            "num_classes",
            f"The images have labels up to {given - 1}, but the classifier knows {num_classes} classes.",
        )
        return _Measured(None, 0)
    if given < num_classes:
        add("warning", "num_classes", f"The images have {given} classes, but the classifier knows {num_classes}.")

    chosen = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:MAX_IMAGES]
    images, labels = data.images[chosen], data.labels[chosen].to(classifier.device)
    images = (images if images.is_floating_point() else to_float(images)).to(classifier.device)
    predicted = _predict(classifier, images)
    accuracy = float((predicted == labels).float().mean())
    best = _better(classifier, images, labels, accuracy)
    if best is not None:
        add("warning", best.code, f"{best.message} (accuracy {best.accuracy:.3f} instead of {accuracy:.3f}).")
    elif bool((predicted == predicted[0]).all()) and not bool((labels == labels[0]).all()):
        add("warning", "constant", f"The classifier takes all {len(labels)} images for class {int(predicted[0])}.")
    elif accuracy < 1.5 / num_classes:
        add(
            "warning",
            "accuracy",
            f"The accuracy of {accuracy:.3f} is hardly better than chance: are these its weights, its classes in this "
            "order, and images of its kind?",
        )
    return _Measured(accuracy, len(labels))


def _predict(classifier: AdaptedClassifier, images: Tensor) -> Tensor:
    """Predicted labels, (N,)."""
    with torch.no_grad():
        return torch.cat([classifier(batch).argmax(dim=1) for batch in torch.split(images, 100)])


class _Alternative(NamedTuple):
    config: AdapterConfig
    code: Code
    message: str
    accuracy: float = 0.0


def _better(classifier: AdaptedClassifier, images: Tensor, labels: Tensor, accuracy: float) -> _Alternative | None:
    """The other treatment of the images under which the classifier is much more often right, if there is one."""
    margin = max(0.03, 3 * math.sqrt(max(accuracy * (1 - accuracy), 0.02) / len(labels)))
    best = None
    for alternative in _alternatives(classifier, images):
        other = AdaptedClassifier(
            classifier.network, classifier.image_shape, classifier.num_classes, alternative.config
        )
        measured = float((_predict(other, images) == labels).float().mean())
        if measured > accuracy + margin and (best is None or measured > best.accuracy):
            best = alternative._replace(accuracy=measured)
    return best


def _alternatives(classifier: AdaptedClassifier, images: Tensor) -> Iterator[_Alternative]:
    """Treatments of the images that people mistake for one another, one change at a time."""
    config, channels = classifier.config, classifier.input_shape[0]
    zero, one = (0.0,) * channels, (1.0,) * channels

    def changed(mean: tuple[float, ...], std: tuple[float, ...]) -> AdapterConfig:
        return config.model_copy(update={"mean": mean, "std": std})

    yield _Alternative(
        changed(zero, (1 / 255,) * channels),
        "pixel_range",
        "It was trained on pixels in 0..255: set mean to 0 and std to 1/255 for each channel",
    )
    if config.mean is not None:
        yield _Alternative(
            changed(zero, one), "normalisation", "Double normalisation, it does better without: leave out mean and std"
        )
    else:
        own = channel_statistics((images * 255).round().to("cpu", torch.uint8))
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


def _throughput(classifier: AdaptedClassifier, batch_size: int = 16) -> float:
    """Images a second, forward and backward, after one batch to warm up."""
    images = probe_images(classifier.image_shape, batch_size).to(classifier.device)
    done, start = -1, 0.0
    while done < 1 or time.perf_counter() - start < TIMED_SECONDS:
        if done == 0:
            start = time.perf_counter()
        given = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(classifier(given).sum(), given)
        float(gradient.sum())  # waits for a GPU
        done += 1
    return done * batch_size / (time.perf_counter() - start)
