"""The nearest image that a classifier reads as a wanted class: a counterfactual, found within a bound."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.core import batch_size_for
from netinv.perturbations.attacks import Norm, pgd, reads_as, tempered

HALVINGS = 12
"""Of the interval of bounds: the last one is 0.02 % of the first."""
STEP_SIZE = 0.1
"""Of a gradient step, as a share of the bound: small, so that it settles where several classes are equally near. Fewer
than 20 steps are longer, so that they reach the bound."""


class Nearest(NamedTuple):
    """What was found for each image."""

    images: Tensor
    """(N, C, H, W) in [0, 1]: the nearest one found, or where none was the image as it was."""
    distance: Tensor
    """How far that is from the image, (N,), in the norm of the search; infinite where none was found."""
    succeeded: Tensor
    """Whether the classifier reads it as wanted, (N,), bool."""


def nearest_of_class(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    norm: Norm = "l2",
    steps: int = 20,
    batch_size: int = 128,
    eight_bit: bool = False,
) -> Nearest:
    """From each image to the nearest one that is read as its label, by bisection of the bound of :func:`pgd`.

    Within a bound, the steps go where the score of the label gains most on the best other score. The image found lies
    just on the label's side of the border. Nearer ones may exist where a classifier is not linear.

    Args:
        classifier: Images to logits, in evaluation mode. Its parameters should not require gradients.
        images: (N, C, H, W) in [0, 1].
        label: What each is to be read as, (N,).
        epsilon: The farthest that is looked for, in pixel units of ``norm``, at most the diameter of [0, 1]^(C H W).
        norm: In which distances are measured.
        steps: Gradient steps at each of 13 bounds.
        batch_size: Images at once, fewer where they are large.
        eight_bit: Look among images of 256 levels alone, which are the same when they have been stored as pictures.

    Raises:
        InputError: There is no such norm.
    """
    epsilon = min(epsilon, 1.0 if norm == "linf" else math.sqrt(math.prod(images.shape[1:])))
    at_once = batch_size_for(batch_size, images.shape)
    parts = zip(torch.split(images.detach(), at_once), torch.split(label, at_once), strict=True)
    found = [_nearest(classifier, x, y, epsilon, norm, steps, eight_bit) for x, y in parts]
    return Nearest(*map(torch.cat, zip(*found, strict=True)))


def _nearest(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    label: Tensor,
    epsilon: float,
    norm: Norm,
    steps: int,
    eight_bit: bool,
) -> Nearest:
    """:func:`nearest_of_class` of one batch."""
    first = torch.zeros_like(label)

    def contest(x: Tensor) -> Tensor:
        """The best other score and the label's own, (N, 2): to move away from the first is to gain on it."""
        scores = classifier(x)
        wanted = F.one_hot(label, scores.shape[1]).bool()
        others = scores.masked_fill(wanted, -torch.inf).amax(dim=1, keepdim=True)
        return tempered(torch.cat([others, scores.gather(1, label[:, None])], dim=1), first)

    def read(x: Tensor) -> Tensor:
        with torch.no_grad():
            return reads_as(classifier(x), label)

    def stored(x: Tensor) -> Tensor:
        return x.mul(255).round().div(255) if eight_bit else x

    def length(delta: Tensor) -> Tensor:
        order = torch.inf if norm == "linf" else 2
        lengths: Tensor = torch.linalg.vector_norm(delta, ord=order, dim=(1, 2, 3), keepdim=True)
        return lengths

    candidate = stored(images)
    succeeded = read(candidate) & (length(candidate - images) <= epsilon).flatten()
    does = succeeded[:, None, None, None]
    found = torch.where(does, candidate, images)
    low = images.new_zeros(len(images), 1, 1, 1)
    high = torch.where(does, length(candidate - images), epsilon)  # the smallest bound that may do
    bound = high
    for attempt in range(HALVINGS + 1):
        delta = pgd(contest, images, first, bound, steps, max(STEP_SIZE, 2 / max(steps, 1)), norm)
        candidate = stored(images + delta)
        distance = length(candidate - images) if eight_bit else length(delta)
        # What is rounded may be farther than an earlier find, or than the bound.
        hit = read(candidate) & ((distance <= high).flatten() if eight_bit else True)
        does = hit[:, None, None, None]
        found, succeeded = torch.where(does, candidate, found), succeeded | hit
        # The largest bound may fail where smaller ones do not, since its steps are the longest.
        low = torch.where(does | (attempt == 0), low, bound)
        high = torch.where(does, distance, high)
        bound = (low + high) / 2
    return Nearest(found, high.flatten().masked_fill(~succeeded, torch.inf), succeeded)
