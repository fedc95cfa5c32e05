"""Images that are worth nothing, so that what the measures say of them is what each number starts from."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from netinv.evaluation.samples import SampleSet
from netinv.generators import Bend, Tone

BENDING = 0.04
"""How far the one picture of a class is bent, as :class:`netinv.generators.GeneratorConfig` has it."""


def noise(
    image_shape: tuple[int, int, int], num: int, seen: Callable[..., SampleSet], rng: np.random.Generator
) -> SampleSet:
    """Uniform pixels. Noise is of no class: what the classifier takes it for stands in, and the evaluator may agree."""
    pixels = torch.from_numpy(rng.random((num, *image_shape), dtype=np.float32))
    drawn = seen("noise", "reference", pixels, torch.zeros(num, dtype=torch.long))
    return dataclasses.replace(drawn, label=drawn.logits.argmax(dim=1))


def one_picture(
    real: SampleSet, num: int, tone: Tone | None, seen: Callable[..., SampleSet], rng: np.random.Generator
) -> SampleSet:
    """One real image of each class, the nearest to the mean of its class, bent at random time and again.

    It is toned, too, where generators tone theirs.

    Coverage, Vendi scores and students take bent copies for variety. What a generator has above these is its own.
    """
    classes = torch.unique(real.label)  # those that there are images of
    chosen = torch.stack([_nearest_mean(real.images[real.label == k]) for k in classes])
    bend = Bend(BENDING, latent_dim := 64, (chosen.shape[2], chosen.shape[3]))
    place = torch.arange(num) % len(classes)
    latent = torch.from_numpy(rng.standard_normal((num, latent_dim), dtype=np.float32))
    images = chosen[place] if tone is None else tone(chosen[place], latent)
    return seen("one_picture", "reference", bend(images, latent).clamp(0, 1), classes[place])


def _nearest_mean(images: torch.Tensor) -> torch.Tensor:
    """The image (C, H, W) that lies nearest to the mean of all (N, C, H, W)."""
    distance = (images - images.mean(dim=0)).flatten(1).norm(dim=1)
    return images[int(distance.argmin())]
