"""What the parts of ``inversion.py`` share: the settings that both contenders implement, and both of them at work."""

from collections.abc import Iterator
from typing import Any

import baseline
import torch
from torch import nn

from netinv.classifiers import Classifier
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert

STANDARD = InversionConfig(steps=400, batch_size=64, log_every=5)
ROBUST = InversionConfig(
    steps=600,
    batch_size=64,
    sharpness=(10.0, 10.0),
    alpha=0.1,
    gamma=1.0,
    total_variation=0.3,
    pixel_statistics=1.0,
    shift=2,
    perturbation="pgd",
    epsilon=0.2,
    log_every=5,
)
CONFIGS = {"standard": STANDARD, "robust": ROBUST}
"""What both contenders implement, looked at often: of MNIST's presets the steps, batches and bounds, without the second
step of the attack, the distortions and the latent field, and with a sharpness of 10 in the robust variant."""
BLOCK = 5
"""Steps between two turns, and between two looks at the clock."""

Row = tuple[str, ...]
"""Of the table: what, netinv, baseline, ratio."""


def trainings(
    classifier: Classifier, variant: str, seed: int, steps: int | None = None
) -> dict[str, tuple[nn.Module, Iterator[Any]]]:
    """Both contenders, each a generator and an iterator that trains it by ``BLOCK`` steps at a time."""
    config = CONFIGS[variant] if steps is None else CONFIGS[variant].model_copy(update={"steps": steps})
    torch.manual_seed(seed)
    ours = ConditionedGenerator(GeneratorConfig(), classifier.num_classes, classifier.image_shape)
    plain = baseline.Generator(classifier.num_classes, classifier.image_shape)
    ours.to(classifier.device), plain.to(classifier.device)

    def blocks() -> Iterator[int]:
        steps = baseline.invert(plain, classifier, config.steps, config.batch_size, variant == "robust")
        return (step for step in steps if step % BLOCK == 0)

    return {"netinv": (ours, invert(ours, classifier, config, seed)), "baseline": (plain, blocks())}
