"""Which classes a generator cannot draw, by the classifier that it inverts: asked at the end of every inversion."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from netinv.classifiers import InvertibleClassifier
from netinv.core import listed
from netinv.generators import ConditionedGenerator, draw_image_batches
from netinv.inversion.config import InversionConfig
from netinv.inversion.parts import in_parts
from netinv.perturbations import reads_as

DRAWN = 0.9
"""Inversion accuracy from which on a class counts as drawn."""
FIRST, FEWEST, TOTAL = 50, 10, 2000
"""Images of each class at a first look, at least so many, and about so many of all classes together."""
MOST, EFFORT = 400, 4
"""Images of a class at most; images of all classes at most, as a multiple of those of the first look."""
CHANCE = 0.001
"""That any class which is drawn looks, before its last images, as if it surely were not."""
MIXED = 10
"""Classes that are drawn in turn, where there are so many: some networks' scores depend on the rest of the batch."""
NAMED = 10
"""Classes that a message names."""


@torch.no_grad()
def read_as_asked(
    generator: ConditionedGenerator,
    classifier: InvertibleClassifier,
    config: InversionConfig,
    num: int,
    seed: int,
    labels: Sequence[int] | None = None,
) -> Tensor:
    """Which of so many fresh images the classifier reads as the class that they are drawn for: (N,), bool, on the CPU.

    Takes no more memory than a step of the training did, however many there are, and gives the classifier only batches
    of sizes that it was trained with: some networks fail on others.

    Args:
        generator: Its mode is left as it was.
        classifier: The one that it inverts.
        config: Its training's: the range of sharpness, the batch, the images that the classifier works on at once.
        num: N.
        seed: Of the draws.
        labels: Wanted label of each image, (N,); ``None`` leaves them to chance.
    """
    size = config.batch_size
    whole = num + -num % size
    if labels is not None:
        labels = np.resize(labels, whole).tolist()
    drawn = draw_image_batches(generator, whole, seed=seed, sharpness=config.sharpness, labels=labels, batch_size=size)
    right = torch.empty(whole, dtype=torch.bool)  # at once: small pieces between large ones would scatter the memory
    with closing(drawn) as batches:
        for part, (images, vector) in zip(torch.split(right, size), batches, strict=True):
            scores = in_parts(classifier, config.images_at_once, images.to(classifier.device))
            part.copy_(reads_as(scores.cpu(), vector.argmax(dim=1)))
    return right[:num]


def class_accuracies(
    generator: ConditionedGenerator, classifier: InvertibleClassifier, config: InversionConfig
) -> tuple[float, ...]:
    """Inversion accuracy of each of K classes, in [0, 1], on fresh images, the same at every call.

    A few images of each class are enough for most; unclear classes get as many again, and so on. A class stops being
    sampled when one more miss would not change its verdict, or when so few hits have probability below 0.001 / K. This
    early stopping biases accuracies near 0.9 slightly upwards. Batches stay as mixed as in training: images of other
    classes fill them and do not count.

    Args:
        generator: Its mode is left as it was.
        classifier: The one that it inverts.
        config: Its training's.
    """
    from scipy.special import bdtr  # imported here: settings are read without scipy

    classes = generator.num_classes
    more = first = min(FIRST, max(FEWEST, TOTAL // classes))
    right, seen, unclear = np.zeros(classes, int), np.zeros(classes, int), np.arange(classes)
    seed = 3
    while len(unclear) and seen.max() + more <= MOST and seen.sum() + more * len(unclear) <= EFFORT * first * classes:
        others = np.setdiff1d(np.arange(classes), unclear)[: max(0, MIXED - len(unclear))]
        asked = np.tile([*unclear, *others], more).tolist()
        hits = read_as_asked(generator, classifier, config, len(asked), seed, asked).view(more, -1)
        right[unclear] += hits[:, : len(unclear)].sum(dim=0).numpy()
        seen[unclear] += more
        clear = ((right - 1) / seen >= DRAWN) | (bdtr(right, seen, DRAWN) < CHANCE / classes)
        unclear = np.flatnonzero(~clear)
        more, seed = int(seen.max()), seed + 1
    return tuple((right / seen).tolist())


def missing_classes(classes: Sequence[str], accuracies: Sequence[float]) -> tuple[str, ...]:
    """Names of the classes, of (K,), of which fewer than 9 in 10 images are read as asked."""
    return tuple(name for name, accuracy in zip(classes, accuracies, strict=True) if accuracy < DRAWN)


def missing_message(classes: Sequence[str], accuracies: Sequence[float]) -> str:
    """A sentence on them; at least one must be missing."""
    pairs = zip(classes, accuracies, strict=True)
    worst = [f"{name} ({accuracy:.3f})" for name, accuracy in pairs if accuracy < DRAWN]
    return (
        f"Of the classes {listed(worst, NAMED)} fewer than {DRAWN:.0%} of the images are read as asked: try "
        "more steps or another seed, and do not take what is drawn of them for what the classifier believes."
    )
