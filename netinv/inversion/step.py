"""One step of the method: draw all of its random numbers, then compute its loss from them and the weights alone.

So several processes share a step by slicing its draws, and the steps of several generators are computed at once by
concatenating their draws.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from netinv.classifiers import BatchNormInputs, InvertibleClassifier
from netinv.core import autocast
from netinv.generators import ConditionedGenerator, condition_of, draw_condition
from netinv.inversion.config import InversionConfig
from netinv.inversion.losses import Batch
from netinv.inversion.parts import in_parts, recomputed
from netinv.perturbations import (
    affine,
    draw_maps,
    draw_offsets,
    noise,
    pgd,
    translate,
    unit_ball,
    unit_sphere,
)

Terms = dict[str, Tensor]
Generate = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Images (N, C, H, W) of latents (N, Z), conditions (N, K), what dropout decides by (N, U), and its probability."""


class StepDraws(NamedTuple):
    """All random numbers of a step. What the settings do not ask for is empty, (N, 0)."""

    normal: Tensor
    """e of the condition, (N, K)."""
    uniform: Tensor
    """Place of its sharpness in the range, (N, 1)."""
    latent: Tensor
    """z, (N, Z)."""
    dropped: Tensor
    """What dropout decides by, (N, U)."""
    offsets: Tensor
    """Of the shift, (N, 2)."""
    maps: Tensor
    """Of the distortion, (N, 2, 3)."""
    direction: Tensor
    """Of the noise, or where the attack starts, for a bound of 1, (N, C, H, W)."""


def draw_step(config: InversionConfig, generator: ConditionedGenerator, rng: torch.Generator) -> StepDraws:
    """The random numbers of one step of one generator, on the device of the random state."""
    num, device = config.batch_size, rng.device
    none = torch.empty(num, 0, device=device)
    shape = (num, *generator.image_shape)
    normal, uniform = draw_condition(num, generator.num_classes, config.sharpness, rng)
    return StepDraws(
        normal=normal,
        uniform=uniform,
        latent=torch.randn(num, generator.config.latent_dim, generator=rng, device=device),
        dropped=torch.rand(num, generator.noise_dim, generator=rng, device=device),
        offsets=draw_offsets(num, config.shift, rng) if config.shift else none,
        maps=draw_maps(num, rng) if config.distortion else none,
        direction=_draw_direction(config, shape, rng),
    )


def _draw_direction(config: InversionConfig, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Of the noise, or where the attack starts."""
    if config.perturbation == "noise":
        return unit_sphere(shape, config.norm, rng)
    if config.perturbation == "pgd":
        return unit_ball(shape, config.norm, rng)
    return torch.empty(shape[0], 0, device=rng.device)


def epsilon_at(step: int, config: InversionConfig) -> float:
    """Bound of the perturbation in a step: it grows to its full size over the first ``epsilon_ramp`` of the steps."""
    return config.epsilon * min(1.0, step / max(1.0, config.epsilon_ramp * config.steps))


def dropout_at(step: int, config: InversionConfig, dropout: float) -> float:
    """Probability of dropout in a step: the generator's own, and over the second half of the steps down to 0."""
    return dropout * min(1.0, 2 * (1 - step / config.steps))


def perturb(
    images: Tensor,
    label: Tensor,
    draws: StepDraws,
    classifier: InvertibleClassifier,
    config: InversionConfig,
    epsilon: float | Tensor,
) -> Tensor:
    """What the classifier gets to see of images in a step: moved, distorted, within ``epsilon``. (N, C, H, W).

    The bound may be one of each sample, (N, 1, 1, 1).
    """
    seen = translate(images, draws.offsets, config.shift) if config.shift else images
    if config.distortion:
        seen = affine(seen, draws.maps, config.distortion)
    if config.perturbation == "noise":
        seen = seen + noise(seen.detach(), epsilon, draws.direction)
    elif config.perturbation == "pgd":
        steps, size = config.attack_steps, config.attack_step_size

        def attack(images: Tensor, label: Tensor, start: Tensor, epsilon: float | Tensor) -> Tensor:
            return pgd(classifier, images, label, epsilon, steps, size, config.norm, start)

        seen = seen + in_parts(attack, config.images_at_once, seen, label, draws.direction, epsilon)
    return seen


def classify(
    images: Tensor, classifier: InvertibleClassifier, moments: bool, at_once: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the classifier says of images, in their precision.

    Args:
        images: (N, C, H, W) in [0, 1].
        classifier: Frozen.
        moments: Watch its batch norms.
        at_once: Images in a part; ``None`` is all of them. The result is one batch again, so that batch-coupled
            terms still see the whole batch.

    Returns:
        Logits (N, K), features (N, D), and of its batch norms the moments (N, 2, S) of
        :class:`netinv.classifiers.BatchNormInputs`, with S = 0 where they are not watched.

    Raises:
        ValueError: They are to be watched, and there are none.
    """
    if at_once is not None and len(images) > at_once:
        part = partial(classify, classifier=classifier, moments=moments)
        logits, features, found = recomputed(part, at_once, images)
        return logits, features, found
    with BatchNormInputs() if moments else nullcontext() as inputs:
        logits, features = classifier(images, return_features=True)
    found = inputs.moments(images) if inputs else images.new_zeros(len(images), 2, 0)
    if inputs and not found.shape[2]:
        raise ValueError("layer_statistics needs a classifier with batch norm")
    return logits.to(images.dtype), features.to(images.dtype), found.to(images.dtype)


def step_batch(
    generate: Generate,
    classifier: InvertibleClassifier,
    config: InversionConfig,
    draws: StepDraws,
    step: int,
    dropout: float,
    bounds: Tensor | None = None,
) -> Batch:
    """What a step's loss is of: a pure function of weights and draws, the heart of the method.

    Args:
        generate: The generator.
        classifier: Frozen.
        config: The settings.
        draws: All random numbers.
        step: Counted from 1.
        dropout: The generator's own probability of dropout.
        bounds: Epsilon of each class for each sample, (N, K); ``None`` is that of the step for all.
    """
    with autocast(config.precision, draws.latent.device):
        condition = condition_of(draws.normal, draws.uniform, config.sharpness)  # what is asked for
        images = generate(draws.latent, condition.vector, draws.dropped, dropout_at(step, config, dropout))
        images = images.to(draws.latent.dtype)  # (N, C, H, W)
        # The classifier sees the perturbed images only, so that the label must survive the perturbation.
        label = condition.label
        epsilon = epsilon_at(step, config) if bounds is None else bounds.gather(1, label[:, None])[..., None, None]
        seen = perturb(images, label, draws, classifier, config, epsilon)
        logits, features, moments = classify(seen, classifier, config.layer_statistics > 0, config.images_at_once)
    return Batch(images, logits, features, moments, *condition, draws.latent)
