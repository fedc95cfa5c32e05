"""What the parts of ``gpu.py`` share: their rows and options, and the work that they measure."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from netinv.classifiers import (
    Classifier,
)
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, InversionTraining, variant_config

MNIST_ROBUST: dict[str, Any] = {
    "epsilon": 0.2,
    "gamma": 1.0,
    "latent_field": 2.0,
    "survival": 0.0,
    "attack_steps": 2,
    "attack_step_size": 1.0,
}
"""MNIST's preset over the general robust values."""
CONFIGS = {
    "standard": variant_config("standard"),
    "robust": variant_config("robust").model_copy(update=MNIST_ROBUST),
}
BLOCK = 10
"""Steps between two looks at the clock, and between two records."""


class Row(NamedTuple):
    """A line of the table."""

    name: str
    value: str
    beside: str
    """What it is compared with."""
    figures: dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How much is measured, and until when."""

    small: bool
    mirror: Path | None
    end: float
    """By ``time.monotonic``."""

    @property
    def device(self) -> torch.device:
        """The GPU, if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def left(self) -> float:
        """Seconds until its time is up."""
        return self.end - time.monotonic()


Part = Callable[[Options], Iterator[Row]]


def fresh_generator(
    shape: tuple[int, int, int], seed: int, device: torch.device, num_classes: int = 10
) -> ConditionedGenerator:
    torch.manual_seed(seed)
    return ConditionedGenerator(GeneratorConfig(), num_classes, shape).to(device)


@contextmanager
def tf32_allowed(convolutions: bool, products: bool) -> Iterator[None]:
    """Where a GPU may round to tf32 within; torch's default is in convolutions alone."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def several(
    options: Options, config: InversionConfig, classifier: Classifier, size: int, dtype: torch.dtype = torch.float32
) -> list[InversionTraining]:
    """Fresh trainings."""
    return [
        InversionTraining(
            fresh_generator(classifier.image_shape, seed, options.device, classifier.num_classes).to(dtype),
            classifier,
            config,
            seed,
        )
        for seed in range(size)
    ]


def endless(config: InversionConfig) -> InversionConfig:
    """Settings of a training that outlasts any measurement."""
    return config.model_copy(update={"steps": 100_000, "log_every": 2 if config.batch_size < 64 else BLOCK})
