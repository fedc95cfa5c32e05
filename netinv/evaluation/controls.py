"""Images that are worth nothing, so that what the measures say of them is what each number starts from."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from netinv.evaluation.samples import SampleSet
from netinv.generators import Bend, ConditionedGenerator

BENDING = 0.04
"""How far the one picture of a class is bent where generators do not bend theirs."""


def noise(
    image_shape: tuple[int, int, int], num: int, seen: Callable[..., SampleSet], rng: np.random.Generator
) -> SampleSet:
    """Uniform pixels. Noise is of no class: what the classifier takes it for stands in, and the evaluator may agree."""
    pixels = torch.from_numpy(rng.random((num, *image_shape), dtype=np.float32))
    drawn = seen("noise", "reference", pixels, torch.zeros(num, dtype=torch.long))
    return dataclasses.replace(drawn, label=drawn.logits.argmax(dim=1))


def one_picture(
    real: SampleSet,
    num: int,
    generator: ConditionedGenerator,
    seen: Callable[..., SampleSet],
    rng: np.random.Generator,
) -> SampleSet:
    """One real image of each class that is read, finished time and again as the generator finishes its own.

    It is bent even where the generator bends nothing.

    Coverage, Vendi scores and students take such copies for variety. What a generator has above these is its own.
    """
    classes = torch.unique(real.label)  # those that there are images of
    place = torch.arange(num) % len(classes)
    chosen = torch.stack([_typical(real, k) for k in classes])[place]
    device = next(generator.parameters()).device

    def drawn(latent_dim: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((num, latent_dim), dtype=np.float32))

    images = generator.finish(chosen.to(device), drawn(generator.config.latent_dim).to(device)).cpu()
    if generator.bend is None:
        images = Bend(BENDING, latent_dim := 64, (images.shape[2], images.shape[3]))(images, drawn(latent_dim))
    return seen("one_picture", "reference", images.clamp(0, 1), classes[place])


def _typical(real: SampleSet, label: torch.Tensor) -> torch.Tensor:
    """The image (C, H, W) of a class nearest to its mean, of those that are read right, or of all if none is.

    The evaluator reads, and its features are compared; without one the classifier reads, and pixels are.
    """
    own = real.label == label
    space = (real.images if real.features is None else real.features)[own].flatten(1)
    right = (real.logits if real.evaluator_logits is None else real.evaluator_logits)[own].argmax(dim=1) == label
    distance = (space - space.mean(dim=0)).norm(dim=1)
    if right.any():
        distance[~right] = torch.inf
    return real.images[own][int(distance.argmin())]
