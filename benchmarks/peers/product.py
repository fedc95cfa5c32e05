"""This library: its generator, loop and settings of a variant, as ``netinv.invert`` has them.

It ends with the steps of its variant, and is not tried a second time where a class is missing.
"""

from typing import Literal

import torch
from torch import Tensor

from netinv.app import settings_of
from netinv.classifiers import AdaptedClassifier
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images
from netinv.inversion import InversionTraining

PIECE = 5
"""Steps between two looks at the clock, in place of 25."""


class Product:
    """See the module."""

    made = None

    def __init__(self, classifier: AdaptedClassifier, seed: int, variant: Literal["standard", "robust"]) -> None:
        config, _ = settings_of(variant, classifier)
        self.config = config.model_copy(update={"log_every": PIECE})
        torch.manual_seed(seed)
        self.generator = ConditionedGenerator(GeneratorConfig(), classifier.num_classes, classifier.image_shape)
        self.records = iter(InversionTraining(self.generator, classifier, self.config, seed))
        self.generator.eval()

    def work(self) -> bool:
        """Some steps of its training."""
        return next(self.records, None) is not None

    def sample(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Fresh images without dropout."""
        sharpness = self.config.sharpness
        images, _ = draw_images(self.generator, len(label), seed=seed, sharpness=sharpness, labels=label.tolist())
        return images, label
