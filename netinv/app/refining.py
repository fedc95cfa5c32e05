"""Counterfactuals in one call: from an image to the nearest one that a classifier reads as another class."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netinv.classifiers import AdapterConfig, adapt, frozen
from netinv.core import InputError, positive, whole
from netinv.data import pixels, to_float
from netinv.perturbations import Nearest, Norm, nearest_of_class


@torch.inference_mode(mode=False)  # whatever the caller's: gradients are needed
def refine(
    images: Tensor | NDArray[np.float32 | np.uint8],
    classifier: nn.Module,
    label: int | Tensor,
    *,
    epsilon: float,
    norm: Norm = "l2",
    steps: int = 20,
    num_classes: int | None = None,
    adapter: AdapterConfig | None = None,
    eight_bit: bool = False,
) -> Nearest:
    """The nearest images that a classifier reads as wanted, within a bound: what it would take to change its mind.

    The classifier is left as it was found. There is no chance in it: the same images give the same result.

    Args:
        images: (N, C, H, W), uint8 or floats in [0, 1], drawn or real; all but float64 become float32.
        classifier: Any network that maps a batch of images to one score for each class.
        label: What they are to be read as: one class for all, or one for each, (N,).
        epsilon: The farthest that is looked for, above 0, in the units of ``norm``; pixels are in [0, 1].
        norm: ``l2``, the length of all pixels' changes together, or ``linf``, the largest change of a pixel.
        steps: Gradient steps at each of 13 bounds, at least 1.
        num_classes: K; ``None`` takes the network's word for it.
        adapter: What the classifier takes and gives, where that is not images in [0, 1] and one tensor of scores.
        eight_bit: Look among images of 256 levels alone. Others lie so near the border that many are of the former
            class again once they have been stored as pictures.

    Returns:
        ``images`` (N, C, H, W), ``distance`` (N,) and ``succeeded`` (N,) of :class:`netinv.perturbations.Nearest`, on
        the classifier's device.

    Raises:
        InputError: The images, labels, bound, norm or steps cannot be, or the classifier cannot be used as it is. Says
            why.

    Example:
        >>> found = refine(sevens, classifier, label=1, epsilon=3.0)  # doctest: +SKIP
        >>> found.images[found.succeeded]  # doctest: +SKIP
    """
    if isinstance(images, np.ndarray):
        images = torch.as_tensor(np.asarray(images, order="C"))  # torch takes no array that runs backwards
    if not isinstance(images, Tensor):
        raise InputError(f"The images are a {type(images).__name__}: give a tensor (N, C, H, W).")
    images = pixels(images, "The images")
    if not len(images):
        raise InputError(f"There are no images in a tensor of shape {tuple(images.shape)}: give one at least.")
    if not positive(epsilon, "epsilon") < math.inf:
        raise InputError(f"epsilon is {epsilon}: a finite bound above 0 is needed.")
    steps = whole(steps, "steps", least=1)
    channels, height, width = images.shape[1:]
    adapted = adapt(classifier, (channels, height, width), num_classes, adapter)
    labels = _whole_numbers(label).to(adapted.device)
    if labels.shape not in ((), (len(images),)):
        raise InputError(
            f"One label for all {len(images)} images or one for each is needed, not {tuple(labels.shape)}."
        )
    if not bool(((labels >= 0) & (labels < adapted.num_classes)).all()):
        raise InputError(f"A label is not a class of the classifier, which knows 0 to {adapted.num_classes - 1}.")
    if images.dtype != torch.float64:  # the steps of the others are farther apart than the nearest images
        images = to_float(images)
    # Copies, since tensors made in inference mode have no gradients.
    images, labels = images.to(adapted.device, copy=True), labels.expand(len(images)).clone()
    with frozen(adapted.network):
        return nearest_of_class(adapted, images, labels, epsilon, norm, steps, eight_bit=eight_bit)


def _whole_numbers(label: Any) -> Tensor:
    """Labels as they are given, int64."""
    try:
        labels = torch.as_tensor(np.asarray(label, order="C") if isinstance(label, np.ndarray) else label)
    except (TypeError, ValueError, RuntimeError):  # of a text, or of nothing
        raise InputError(
            f"Labels are needed as whole numbers, and this is {label!r}: give the classes' places."
        ) from None
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise InputError(f"Labels are needed as whole numbers, and these are {labels.dtype}: give the classes' places.")
    return labels.long()
