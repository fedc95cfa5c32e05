"""Which classes a generator cannot draw, by the classifier that it inverts: asked at the end of every inversion."""

from collections.abc import Sequence

import torch

from netinv.classifiers import InvertibleClassifier
from netinv.generators import ConditionedGenerator, draw_images

DRAWN = 0.9
"""Inversion accuracy from which on a class counts as drawn."""
MOST, FEWEST, TOTAL = 50, 5, 2000
"""Images drawn of each class at most, at least, and of all classes together."""
BATCH = 100
"""Images classified at a time."""
NAMED = 10
"""Classes that a message names."""


@torch.no_grad()
def class_accuracies(
    generator: ConditionedGenerator, classifier: InvertibleClassifier, sharpness: tuple[float, float]
) -> tuple[float, ...]:
    """Inversion accuracy of each of K classes, in [0, 1], on fresh images, the same at every call.

    Args:
        generator: Its mode is left as it was.
        classifier: The one that it inverts.
        sharpness: Range of the condition's sharpness.
    """
    classes = generator.num_classes
    num = min(MOST, max(FEWEST, TOTAL // classes))
    labels = [label for label in range(classes) for _ in range(num)]
    images, vector = draw_images(generator, len(labels), seed=3, sharpness=sharpness, labels=labels)
    parts = zip(torch.split(images, BATCH), torch.split(vector.argmax(dim=1), BATCH), strict=True)
    right = [classifier(part.to(classifier.device)).argmax(dim=1).cpu() == wanted for part, wanted in parts]
    return tuple(torch.cat(right).float().view(classes, num).mean(dim=1).tolist())


def missing_classes(classes: Sequence[str], accuracies: Sequence[float]) -> tuple[str, ...]:
    """Names of the classes, of (K,), of which fewer than 9 in 10 images are read as asked."""
    return tuple(name for name, accuracy in zip(classes, accuracies, strict=True) if accuracy < DRAWN)


def told_missing(classes: Sequence[str], accuracies: Sequence[float]) -> str:
    """A sentence on them; at least one must be missing."""
    pairs = zip(classes, accuracies, strict=True)
    worst = [f"{name} ({accuracy:.2f})" for name, accuracy in pairs if accuracy < DRAWN]
    more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
    return (
        f"Of the classes {', '.join(worst[:NAMED])}{more} fewer than {DRAWN:.0%} of the images are read as asked: try "
        "more steps or another seed, and do not take what is drawn of them for what the classifier believes."
    )
