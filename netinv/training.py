"""The two training loops, as plain generators: iterate over them, and stop whenever you like."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from netinv.classifiers import Classifier
from netinv.conditioning import sample_condition
from netinv.config import Config
from netinv.data import LabelledImages, to_float
from netinv.generator import ConditionedGenerator
from netinv.losses import (
    cosine_loss,
    kl_loss,
    mode_seeking_loss,
    orthogonality_loss,
    total_variation_loss,
    within_class_cosine_loss,
)
from netinv.robustness import Norm, noise, pgd


class ClassifierTrainingConfig(Config):
    """How a classifier is trained: AdamW with a one-cycle learning rate."""

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    lr: PositiveFloat = 3e-3
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 1e-2
    shift: int = Field(0, ge=0)
    """Augmentation: move each image by up to so many pixels, at random."""
    flip: bool = False
    """Augmentation: mirror images left to right, at random."""


def train_classifier(
    classifier: Classifier, data: LabelledImages, config: ClassifierTrainingConfig, seed: int
) -> Iterator[dict[str, float]]:
    """Train in place, on the classifier's device.

    Yields:
        After every epoch: ``epoch``, ``samples`` seen so far, mean training ``loss`` and ``accuracy`` of the epoch.

    Raises:
        FloatingPointError: The loss is not finite; names the epoch.
    """
    device = classifier.mean.device
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout draws from the global state
    images, labels = data.images.to(device), data.labels.to(device)
    batches = math.ceil(len(labels) / config.batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.epochs * batches)
    for epoch in range(config.epochs):
        classifier.train()
        total_loss = torch.zeros((), device=device)
        correct = torch.zeros((), device=device)
        for index in torch.randperm(len(labels), generator=rng).to(device).split(config.batch_size):
            batch = augment(to_float(images[index]), config.shift, config.flip, rng)
            logits = classifier(batch)
            loss = F.cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss.detach() * len(index)
            correct += (logits.argmax(dim=1) == labels[index]).sum()
        mean_loss = float(total_loss) / len(labels)
        if not math.isfinite(mean_loss):
            raise FloatingPointError(f"The classifier's loss is {mean_loss} after epoch {epoch + 1}; lower train.lr.")
        yield {
            "epoch": epoch + 1,
            "samples": (epoch + 1) * len(labels),
            "loss": mean_loss,
            "accuracy": float(correct) / len(labels),
        }
    classifier.eval()


def augment(images: Tensor, shift: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Random shifts (edges repeated) and mirror images, each sample its own. Images are (N, C, H, W)."""
    num, _, height, width = images.shape
    if flip:
        mirrored = torch.rand(num, generator=rng).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if shift:
        padded = F.pad(images, (shift, shift, shift, shift), mode="replicate")
        offset = torch.randint(0, 2 * shift + 1, (2, num), generator=rng).to(images.device)
        rows = offset[0][:, None] + torch.arange(height, device=images.device)  # (N, H)
        columns = offset[1][:, None] + torch.arange(width, device=images.device)  # (N, W)
        sample = torch.arange(num, device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images


@torch.no_grad()
def predict(classifier: Classifier, images: Tensor, batch_size: int = 1000) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images, uint8 or float in [0, 1], a batch at a time."""
    device = classifier.mean.device
    outputs = []
    for batch in images.split(batch_size):
        batch = batch.to(device)
        outputs.append(classifier(to_float(batch) if batch.dtype == torch.uint8 else batch, return_features=True))
    return torch.cat([logits for logits, _ in outputs]), torch.cat([features for _, features in outputs])


class InversionConfig(Config):
    """How a generator is trained against a frozen classifier. Defaults are the paper's loss without robustness."""

    steps: PositiveInt = 500
    batch_size: int = Field(128, ge=2)
    lr: PositiveFloat = 2e-3
    """Peak learning rate of Adam, one cycle over all steps."""
    sharpness: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the condition's sharpness s; (1, 1) is the paper's plain soft-max."""
    alpha: NonNegativeFloat = 1.0
    """Weight of the KL divergence."""
    beta: NonNegativeFloat = 1.0
    """Weight of the cross-entropy."""
    gamma: NonNegativeFloat = 0.1
    """Weight of the mean cosine similarity over all pairs."""
    gamma_within: NonNegativeFloat = 0.0
    """Weight of the mean cosine similarity over pairs of one class."""
    delta: NonNegativeFloat = 0.0
    """Weight of the feature-orthogonality term."""
    total_variation: NonNegativeFloat = 0.0
    """Weight of the total variation of the images."""
    mode_seeking: NonNegativeFloat = 0.0
    """Weight of the mode-seeking ratio of latent distance to image distance."""
    perturbation: Literal["none", "noise", "pgd"] = "none"
    """Ask that the label survives no perturbation, random noise, or projected gradient ascent."""
    epsilon: NonNegativeFloat = 0.0
    """Bound of the perturbation, in pixels of [0, 1]."""
    epsilon_ramp: float = Field(0.5, ge=0, le=1)
    """Share of the steps over which epsilon grows from 0 to its bound."""
    norm: Norm = "linf"
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
    generator: ConditionedGenerator, classifier: Classifier, config: InversionConfig, seed: int
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
    device = classifier.mean.device
    torch.manual_seed(seed)  # dropout draws from the global state
    rng = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.Adam(generator.parameters(), lr=config.lr, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps, pct_start=0.2)
    weights = {
        "kl": config.alpha,
        "cross_entropy": config.beta,
        "cosine": config.gamma,
        "cosine_within": config.gamma_within,
        "orthogonality": config.delta,
        "total_variation": config.total_variation,
        "mode_seeking": config.mode_seeking,
    }
    generator.train()
    for step in range(1, config.steps + 1):
        condition = sample_condition(config.batch_size, classifier.num_classes, rng, config.sharpness)
        latent = torch.randn(config.batch_size, generator.config.latent_dim, generator=rng, device=device)  # (N, Z)
        images = generator(latent, condition.vector)  # (N, C, H, W)
        epsilon = config.epsilon * min(1.0, step / max(1.0, config.epsilon_ramp * config.steps))
        seen = images
        if config.perturbation == "noise":
            seen = images + noise(images.detach(), epsilon, config.norm, rng)
        elif config.perturbation == "pgd":
            seen = images + pgd(
                classifier,
                images.detach(),
                condition.label,
                epsilon,
                config.attack_steps,
                config.attack_step_size,
                config.norm,
                rng,
            )
        logits, features = classifier(seen, return_features=True)  # (N, K), (N, D)
        terms = {
            "kl": kl_loss(logits, condition.vector),
            "cross_entropy": F.cross_entropy(logits, condition.label),
            "cosine": cosine_loss(features),
            "cosine_within": within_class_cosine_loss(features, condition.label, classifier.num_classes),
            "orthogonality": orthogonality_loss(features),
            "total_variation": total_variation_loss(images),
            "mode_seeking": mode_seeking_loss(images, latent, condition.label),
        }
        loss = torch.stack([weight * terms[name] for name, weight in weights.items() if weight]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0 or step == config.steps:
            record = {name: float(term.detach()) for name, term in terms.items()}
            record["loss"] = float(loss.detach())
            if not math.isfinite(record["loss"]):
                raise FloatingPointError(f"The inversion loss is {record['loss']} at step {step}; lower the lr.")
            accuracy = (logits.argmax(dim=1) == condition.label).float().mean()
            yield {"step": step, "samples": step * config.batch_size, "accuracy": float(accuracy)} | record
    generator.eval()
