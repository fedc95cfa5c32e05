"""What a search for settings makes large: three numbers from 0 to 1, none of which asks an evaluator or sees an image.

So the evaluator stays a stranger to whatever the search finds:

* ``accuracy``: share of the images that the classifier reads as asked for.
* ``robustness``: share that it still does under PGD within a bound.
* ``diversity``: entropy of the spectrum within a class over its maximum, log(Vendi score) / log(n), on the images at
  no more than 8 x 8 pixels. Not on the classifier's features, since the cosine term of the loss is made of them, and
  not on single pixels, where noise is the most diverse of all.
"""

import math

import torch
import torch.nn.functional as F

from netinv.classifiers import InvertibleClassifier
from netinv.evaluation.metrics import vendi_score
from netinv.generators import ConditionedGenerator, draw_images
from netinv.perturbations import robust_accuracy

OBJECTIVES = ("accuracy", "robustness", "diversity")
MAX_SIDE = 8
"""Pixels of an image's side for its diversity."""


def objectives(
    generator: ConditionedGenerator,
    classifier: InvertibleClassifier,
    sharpness: tuple[float, float],
    samples_per_class: int,
    epsilon: float,
    attack_steps: int,
) -> dict[str, float]:
    """``OBJECTIVES`` of a generator, on the same draws at every call. Leaves its mode as it was.

    Args:
        generator: On the classifier's device.
        classifier: Frozen.
        sharpness: Range of the condition's sharpness.
        samples_per_class: n, at least 2.
        epsilon: Bound of the attack, L-infinity, in pixels of [0, 1].
        attack_steps: PGD steps.
    """
    num, classes = samples_per_class, generator.num_classes
    labels = [label for label in range(classes) for _ in range(num)]
    images, _ = draw_images(generator, num * classes, seed=0, sharpness=sharpness, labels=labels)
    images, label = images.to(classifier.device), torch.tensor(labels, device=classifier.device)
    height, width = (min(side, MAX_SIDE) for side in images.shape[2:])
    small = F.adaptive_avg_pool2d(images, (height, width))
    vendi = vendi_score(small.flatten(1).view(classes, num, -1))  # (K,)
    return {
        "accuracy": robust_accuracy(classifier, images, label, 0.0),
        "robustness": robust_accuracy(classifier, images, label, epsilon, attack_steps),
        "diversity": float(vendi.log().mean()) / math.log(num),
    }
