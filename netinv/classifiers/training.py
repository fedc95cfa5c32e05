"""Training a classifier, as a plain generator: iterate over it, and stop whenever you like."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.classifiers.adapters import AdaptedClassifier
from netinv.classifiers.fresh import FreshClassifier
from netinv.classifiers.networks import Classifier, InvertibleClassifier, freeze
from netinv.core import (
    BatchSize,
    Concentration,
    Config,
    Decay,
    Distortion,
    Epochs,
    LearningRate,
    PixelBound,
    Precision,
    Shift,
    autocast,
    backward_pass,
    batch_size_for,
)
from netinv.data import LabelledImages, to_float
from netinv.perturbations import augment, pgd, unit_ball


class ClassifierTrainingConfig(Config):
    """How a classifier is trained: AdamW with a one-cycle learning rate."""

    epochs: Epochs = 10
    batch_size: BatchSize = 128
    lr: LearningRate = 3e-3
    """Peak learning rate."""
    weight_decay: Decay = 1e-2
    shift: Shift = 0
    """Augmentation: move each image by up to so many pixels, at random."""
    flip: bool = False
    """Augmentation: mirror images left to right, at random."""
    distortion: Distortion = 0.0
    """Augmentation: stretch and turn each image at random; see :func:`netinv.perturbations.affine`."""
    mixup: Concentration = 0.0
    """Augmentation: blend the images of a batch, and their labels, in shares drawn from Beta(mixup, mixup).

    Source: Zhang and others, mixup: Beyond empirical risk minimization (2018). Between two classes such a classifier
    is as unsure as its input is mixed, and what it is inverted to is mostly recognised better by other classifiers.
    """
    epsilon: PixelBound = 0.0
    """Augmentation: perturb each image by a gradient step up the loss, at most so far in pixels of [0, 1].

    Source: Wong and others, Fast is better than free (2020). Far below the bounds of robust classifiers it costs next
    to no accuracy, and the images that such a classifier is inverted to are recognised by other classifiers too.
    """
    precision: Precision = "auto"
    """What the layers compute in."""


def _mixup(alpha: float, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and labels (N,) to blended images and their labels' probabilities (N, K); draws from the global state."""
    from torchvision.transforms.v2 import MixUp  # a second of import that few need

    blend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = MixUp(alpha=alpha, num_classes=num_classes)
    return blend


def train_classifier(
    classifier: Classifier | FreshClassifier, data: LabelledImages, config: ClassifierTrainingConfig, seed: int
) -> Iterator[dict[str, float]]:
    """Train in place, on the classifier's device. Between two epochs it is in evaluation mode.

    Yields:
        After every epoch: ``epoch``, ``samples`` seen so far, mean training ``loss`` and ``accuracy`` of the epoch; of
        blended images the label of the larger share counts as right.

    Raises:
        FloatingPointError: The loss is not finite; names the epoch.
    """
    device = classifier.mean.device
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout and mixup draw from the global state
    images, labels = data.images.to(device), data.labels.to(device)
    batches = len(_batches(torch.arange(len(labels)), config.batch_size))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.epochs * batches)
    blend = _mixup(config.mixup, classifier.num_classes) if config.mixup else None
    for epoch in range(config.epochs):
        classifier.train()
        try:
            total_loss = torch.zeros((), device=device)
            correct = torch.zeros((), device=device)
            order = torch.randperm(len(labels), generator=rng).to(device)
            for index in _batches(order, config.batch_size):
                batch = augment(to_float(images[index]), config.shift, config.flip, rng, config.distortion)
                target = labels[index]
                if blend:
                    batch, target = blend(batch, target)
                with autocast(config.precision, device):
                    if config.epsilon:
                        freeze(classifier)
                        batch = batch + pgd(
                            classifier,
                            batch,
                            target,
                            config.epsilon,
                            1,
                            1.0,
                            start=unit_ball(batch.shape, "linf", device=device),
                        )
                        classifier.train().requires_grad_(True)
                    logits = classifier(batch)
                logits = logits.float()
                loss = F.cross_entropy(logits, target)
                optimizer.zero_grad(set_to_none=True)
                with backward_pass():
                    torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                total_loss += loss.detach() * len(index)
                correct += (logits.argmax(dim=1) == (target.argmax(dim=1) if blend else target)).sum()
        finally:
            classifier.eval()
        mean_loss = float(total_loss) / len(labels)
        if not math.isfinite(mean_loss):
            raise FloatingPointError(f"The classifier's loss is {mean_loss} after epoch {epoch + 1}; lower train.lr.")
        yield {
            "epoch": epoch + 1,
            "samples": (epoch + 1) * len(labels),
            "loss": mean_loss,
            "accuracy": float(correct) / len(labels),
        }


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Places (N,) in batches of a size, but that a last single one joins those before: batch norm refuses it alone."""
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def batch_for(classifier: InvertibleClassifier, batch_size: int) -> int:
    """Images that a classifier is given at a time: fewer where they are large, or become so behind an adapter."""
    at_once = batch_size_for(batch_size, classifier.image_shape)
    if isinstance(classifier, AdaptedClassifier):
        at_once = min(at_once, batch_size_for(batch_size, classifier.input_shape))
    return at_once


@torch.no_grad()
def predict(classifier: InvertibleClassifier, images: Tensor, batch_size: int = 1000) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images, uint8 or float in [0, 1], a :func:`batch_for` it at a time."""
    device = classifier.device
    outputs = []
    for batch in torch.split(images, batch_for(classifier, batch_size)):
        batch = batch.to(device)
        outputs.append(classifier(to_float(batch), return_features=True))
    return torch.cat([logits for logits, _ in outputs]), torch.cat([features for _, features in outputs])
