"""The images whose activations are interpreted: generated, real, noise."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from netinv.classifiers import AdaptedClassifier, Classifier, predict
from netinv.data import LabelledImages, to_float
from netinv.generators import ConditionedGenerator, draw_image_batches
from netinv.interpretation.concepts import Pool
from netinv.interpretation.measures import Seen
from netinv.interpretation.sites import BATCH
from netinv.sampling import draw

DRAWN_AT_ONCE = 100
"""Images that a generator draws at a time."""


class Drawn(NamedTuple):
    """The generators of one variant, and how they are to be asked."""

    generators: list[ConditionedGenerator]
    sharpness: tuple[float, float]
    """Range of the condition's sharpness."""


@torch.no_grad()
def draw_pool(
    variants: Mapping[str, Drawn], num: int, seed: int, evaluator: Classifier | AdaptedClassifier | None = None
) -> Pool:
    """Images of all generators of all variants, as many of each, in turn.

    Args:
        variants: By name. Generators are numbered through all of them, and left as they were.
        num: N, images in all.
        seed: Of the draws; each generator has its own.
        evaluator: Looks at the images, where there is one.
    """
    parts = [(generator, drawn.sharpness) for drawn in variants.values() for generator in drawn.generators]
    latents, vectors = [], []
    pixels = torch.empty(num, *parts[0][0].image_shape)
    for index, (generator, sharpness) in enumerate(parts):
        own, stream = pixels[index :: len(parts)], 1000 * seed + index
        drawn = draw_image_batches(generator, len(own), seed=stream, sharpness=sharpness, batch_size=DRAWN_AT_ONCE)
        for place, (images, _) in zip(torch.split(own, DRAWN_AT_ONCE), drawn, strict=True):
            place.copy_(images)  # where they stay, so that none of them is held twice
        z, p = draw(  # what those images are of
            -(-num // len(parts)),
            latent_dim=generator.config.latent_dim,
            num_classes=generator.num_classes,
            seed=stream,
            sharpness=sharpness,
        )
        latents.append(torch.from_numpy(z))
        vectors.append(torch.from_numpy(p))
    order = torch.arange(len(parts) * len(latents[0])).view(len(parts), -1).T.flatten()[:num]
    vector = torch.cat(vectors)[order]
    source = torch.arange(len(parts)).repeat_interleave(len(latents[0]))[order]
    widest = max(z.shape[1] for z in latents)
    latent = torch.cat([torch.nn.functional.pad(z, (0, widest - z.shape[1])) for z in latents])[order]
    return Pool(_seen(pixels, vector.argmax(dim=1), evaluator), latent, vector, source)


def real_images(
    data: LabelledImages, num: int, seed: int, evaluator: Classifier | AdaptedClassifier | None = None
) -> Seen:
    """Real images, ``num`` of them by chance, or all where there are fewer."""
    order = np.random.default_rng(seed).permutation(len(data.labels))[:num]
    images = to_float(data.images[torch.from_numpy(order)])
    return _seen(images, data.labels[torch.from_numpy(order)], evaluator)


def noise_images(shape: tuple[int, int, int], num: int, seed: int) -> Tensor:
    """Uniform noise, (N, C, H, W), a control: a dictionary of it has seen no class at all."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(num, *shape, generator=rng)


def _seen(images: Tensor, label: Tensor, evaluator: Classifier | AdaptedClassifier | None) -> Seen:
    features = None if evaluator is None else predict(evaluator, images, BATCH)[1].cpu()
    return Seen(images, label, features)
