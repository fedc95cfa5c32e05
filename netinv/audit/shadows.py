"""Shadow models: the audited architecture, trained again and again on halves of the same images."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from netinv.audit.lira import confidence
from netinv.audit.policy import ShadowConfig
from netinv.classifiers import (
    ClassifierTrainingConfig,
    InvertibleClassifier,
    batch_for,
    fresh_copy,
    train_classifier,
)
from netinv.data import LabelledImages, channel_statistics, to_float

BATCH = 1000
"""Images classified at a time, at most."""


class Shadows(NamedTuple):
    """What S shadow models say of N images."""

    confidence: NDArray[np.float64]
    """In the true class, (S, N)."""
    is_out: NDArray[np.bool_]
    """Whether the model was trained without the image, (S, N)."""
    architecture: str
    """What they are, in words."""
    accuracy: NDArray[np.float64]
    """Share of images that each model reads rightly of those that it was trained without, (S,)."""


def train_shadows(classifier: InvertibleClassifier, images: LabelledImages, config: ShadowConfig, seed: int) -> Shadows:
    """Train shadow models in pairs: one on a random half of the images, the other on the rest of them.

    So every image is unknown to half of the models, whether the audited classifier was trained on it or not. Torch's
    random state is left as it was.

    Args:
        classifier: Gives the architecture, and is left as it is.
        images: Of both kinds, N of them.
        config: How many models, and how they are trained.
        seed: Fixes halves, weights and trainings.

    Raises:
        FloatingPointError: The training of a model diverges.
    """
    rng, num = np.random.default_rng([seed, 2]), len(images.labels)
    mean, std = channel_statistics(images.images)
    found, is_out, accuracy, architecture = [], [], [], ""
    half = np.zeros(num, bool)
    device = classifier.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for i in tqdm(range(config.models), "audit: shadow models", unit="model", disable=None):
            half = ~half if i % 2 else rng.permutation(num) < num // 2
            torch.manual_seed(seed + i)
            model = fresh_copy(classifier, mean, std, config.architecture == "stand_in")
            architecture = model.architecture
            chosen = torch.from_numpy(np.flatnonzero(half))
            part = LabelledImages(images.images[chosen], images.labels[chosen])
            for _ in train_classifier(model, part, _training(config, len(chosen)), seed + i):
                pass
            with torch.no_grad():
                batches = torch.split(images.images, batch_for(classifier, BATCH))
                parts = [model(to_float(x).to(device)).float().cpu() for x in batches]
            logits = torch.cat(parts)
            if not torch.isfinite(logits).all():
                raise FloatingPointError(f"Shadow model {i + 1} gives values that are not finite; lower its lr.")
            found.append(confidence(logits, images.labels))
            is_out.append(~half)
            accuracy.append((logits.argmax(dim=1) == images.labels).numpy()[~half].mean())
    return Shadows(np.stack(found), np.stack(is_out), architecture, np.array(accuracy))


def _training(config: ShadowConfig, num: int) -> ClassifierTrainingConfig:
    """Of so many steps; no batch has a single image, which batch norm would refuse."""
    batch = next(size for size in range(min(config.batch_size, num), 0, -1) if num % size != 1 or size == 1)
    return ClassifierTrainingConfig(
        epochs=max(1, round(config.steps / -(-num // batch))),
        batch_size=batch,
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
