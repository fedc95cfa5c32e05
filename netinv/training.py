"""Training a classifier, as a plain generator: iterate over it, and stop whenever you like."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from netinv.classifiers import Classifier, InvertibleClassifier
from netinv.config import Config
from netinv.data import LabelledImages, to_float


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
def predict(classifier: InvertibleClassifier, images: Tensor, batch_size: int = 1000) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images, uint8 or float in [0, 1], a batch at a time."""
    device = classifier.device
    outputs = []
    for batch in torch.split(images, batch_size):
        batch = batch.to(device)
        outputs.append(classifier(to_float(batch) if batch.dtype == torch.uint8 else batch, return_features=True))
    return torch.cat([logits for logits, _ in outputs]), torch.cat([features for _, features in outputs])
