"""Signs that a classifier was never trained: scores that are nearly equal for all classes of an image."""

from collections.abc import Iterator

import torch
from torch import Tensor

from netinv.classifiers.adapters import AdaptedClassifier, AdapterConfig
from netinv.classifiers.findings import Finding
from netinv.classifiers.inputs import probe_images
from netinv.core import InputError

EQUAL_LOGITS = 0.25
"""Mean deviation of the logits of an image, in nats, below which a network seems untrained."""
USUAL_LOGITS = 3.0
"""Typical deviation of networks trained with cross-entropy, on images of their kind."""


def untrained(classifier: AdaptedClassifier) -> Iterator[Finding]:
    """A warning where a classifier seems to have its initial weights; needs no data."""
    if undecided(classifier):
        yield Finding(severity="warning", code="untrained", message=_why_undecided(classifier))


@torch.no_grad()
def undecided(classifier: AdaptedClassifier) -> bool:
    """Whether no class of an image stands out, as with initial weights."""
    return logit_spread(_probed(classifier)) < EQUAL_LOGITS


@torch.no_grad()
def _probed(classifier: AdaptedClassifier) -> Tensor:
    """Logits (N, K) of a few made-up images."""
    logits: Tensor = classifier(probe_images(classifier.image_shape).to(classifier.device))
    return logits


def logit_spread(logits: Tensor) -> float:
    """Standard deviation of the logits (N, K) of an image, mean over images."""
    return float(logits.std(dim=1).mean())


def how_to_enlarge(spread: float) -> str:
    """What to do about scores that are small by design, in words."""
    larger = f"{USUAL_LOGITS / spread:.2g} times as much"
    return f"wrap it so that it gives {larger}, which changes no answer, and compare both"


def _why_undecided(classifier: AdaptedClassifier) -> str:
    """Possible causes in words, among them pixels that are too small, if larger ones make a class stand out."""
    told = "Was it trained? Its scores for the classes of an image are nearly equal: are these its weights?"
    spread = logit_spread(_probed(classifier))
    if classifier.output == "logits" and spread > 0:
        told += f" If they are small by design (cosine, squared error, temperature), {how_to_enlarge(spread)}."
    try:
        small = not undecided(instead(classifier, in_255(classifier)))
    except InputError:  # it fails on larger ones
        small = False
    if small:
        told += " If it was trained on pixels in 0..255, where they differ more, set mean to 0 and std to 1/255."
    return told


def instead(classifier: AdaptedClassifier, config: AdapterConfig) -> AdaptedClassifier:
    """The network behind another adapter.

    Raises:
        InputError: It fails on such images.
    """
    return AdaptedClassifier(classifier.network, classifier.image_shape, classifier.num_classes, config)


def in_255(classifier: AdaptedClassifier) -> AdapterConfig:
    """The adapter's settings with pixels in 0..255."""
    channels = classifier.input_shape[0]
    return classifier.config.model_copy(update={"mean": (0.0,) * channels, "std": (1 / 255,) * channels})
