"""The inversion loop, as a plain generator: iterate over it, and stop whenever you like."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from netinv.classifiers import InvertibleClassifier
from netinv.conditioning import sample_condition
from netinv.config import Config
from netinv.generator import ConditionedGenerator
from netinv.losses import (
    cosine_loss,
    kl_loss,
    orthogonality_loss,
    pixel_statistics_loss,
    total_variation_loss,
)
from netinv.robustness import Norm, augment, noise, pgd


class InversionConfig(Config):
    """How a generator is trained against a frozen classifier. Defaults are the paper's loss without robustness."""

    steps: PositiveInt = 500
    batch_size: int = Field(128, ge=2)
    lr: PositiveFloat = 2e-3
    """Peak learning rate of Adam, one cycle over all steps; its first beta cycles between 0.85 and 0.95 meanwhile."""
    sharpness: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the condition's sharpness s; (1, 1) is the paper's plain soft-max."""
    alpha: NonNegativeFloat = 1.0
    """Weight of the KL divergence."""
    beta: NonNegativeFloat = 1.0
    """Weight of the cross-entropy."""
    gamma: NonNegativeFloat = 0.1
    """Weight of the mean cosine similarity over all pairs."""
    delta: NonNegativeFloat = 0.0
    """Weight of the feature-orthogonality term."""
    total_variation: NonNegativeFloat = 0.0
    """Weight of the total variation of the images."""
    pixel_statistics: NonNegativeFloat = 0.0
    """Weight of the distance of the images' mean and deviation from those that the classifier normalises by."""
    perturbation: Literal["none", "noise", "pgd"] = "none"
    """Ask that the label survives no perturbation, random noise, or projected gradient ascent."""
    epsilon: NonNegativeFloat = 0.0
    """Bound of the perturbation, in pixels of [0, 1]."""
    epsilon_ramp: float = Field(0.5, ge=0, le=1)
    """Share of the steps over which epsilon grows from 0 to its bound."""
    norm: Norm = "linf"
    shift: int = Field(0, ge=0)
    """Ask that the label survives a random shift by up to so many pixels, too."""
    attack_steps: PositiveInt = 1
    """Gradient steps of ``pgd``."""
    attack_step_size: PositiveFloat = 1.0
    """Length of such a step as a share of epsilon."""
    log_every: PositiveInt = 25
    """Steps between two records."""

    @model_validator(mode="after")
    def _consistent(self) -> "InversionConfig":
        if self.sharpness[0] > self.sharpness[1]:
            raise ValueError("sharpness is a range (low, high) with low <= high")
        if (self.perturbation != "none") != (self.epsilon > 0):
            raise ValueError("a perturbation needs an epsilon above 0, and epsilon a perturbation other than none")
        if not self.alpha and not self.beta:
            raise ValueError("alpha or beta must be above 0, or nothing asks for the wanted class")
        return self


def invert(
    generator: ConditionedGenerator, classifier: InvertibleClassifier, config: InversionConfig, seed: int
) -> Iterator[dict[str, float]]:
    """Train a generator in place against a frozen classifier, both on the classifier's device.

    The four lines of the method: draw a condition, generate, classify, weigh the losses. Under a perturbation the
    classifier sees the perturbed images only, so that the label must survive it.

    Yields:
        Every ``log_every`` steps and after the last: ``step``, ``samples`` drawn so far, ``accuracy`` on the batch,
        ``loss`` and each of its terms, unweighted, whether or not its weight is 0.

    Raises:
        FloatingPointError: The loss is not finite; names the step.
    """
    device = classifier.device
    torch.manual_seed(seed)  # dropout draws from the global state
    rng = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps)
    weights = {
        "kl": config.alpha,
        "cross_entropy": config.beta,
        "cosine": config.gamma,
        "orthogonality": config.delta,
        "total_variation": config.total_variation,
        "pixel_statistics": config.pixel_statistics,
    }
    generator.train()
    for step in range(1, config.steps + 1):
        condition = sample_condition(config.batch_size, classifier.num_classes, rng, config.sharpness)
        latent = torch.randn(config.batch_size, generator.config.latent_dim, generator=rng, device=device)  # (N, Z)
        images = generator(latent, condition.vector)  # (N, C, H, W)
        epsilon = config.epsilon * min(1.0, step / max(1.0, config.epsilon_ramp * config.steps))
        seen = augment(images, config.shift, flip=False, rng=rng)
        if config.perturbation == "noise":
            seen = seen + noise(seen.detach(), epsilon, config.norm, rng)
        elif config.perturbation == "pgd":
            seen = seen + pgd(
                classifier,
                seen,
                condition.label,
                epsilon,
                config.attack_steps,
                config.attack_step_size,
                config.norm,
                rng,
            )
        logits, features = classifier(seen, return_features=True)  # (N, K), (N, D)
        terms = {
            "kl": partial(kl_loss, logits, condition.vector),
            "cross_entropy": partial(F.cross_entropy, logits, condition.label),
            "cosine": partial(cosine_loss, features),
            "orthogonality": partial(orthogonality_loss, features),
            "total_variation": partial(total_variation_loss, images),
            "pixel_statistics": partial(pixel_statistics_loss, images, classifier.mean, classifier.std),
        }
        values = {name: terms[name]() for name, weight in weights.items() if weight}
        loss = torch.stack([weights[name] * value for name, value in values.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0 or step == config.steps:
            with torch.no_grad():  # terms without a weight are only worth computing here
                record = {name: float(values[name] if name in values else term()) for name, term in terms.items()}
            record["loss"] = float(loss.detach())
            if not math.isfinite(record["loss"]):
                raise FloatingPointError(f"The inversion loss is {record['loss']} at step {step}; lower the lr.")
            accuracy = (logits.argmax(dim=1) == condition.label).float().mean()
            yield {"step": step, "samples": step * config.batch_size, "accuracy": float(accuracy)} | record
    generator.eval()
