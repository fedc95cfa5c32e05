"""Networks that nobody trained and images that nobody drew, for tests that compare with definitions."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch
from draws import library_torch_rng, seed_torch, torch_rng
from torch import Tensor, nn

from netinv.classifiers import Classifier, ConvClassifierConfig, build_classifier, freeze
from netinv.data import LabelledImages
from netinv.evaluation import EvaluationConfig
from netinv.evaluation.privacy import Pools
from netinv.evaluation.samples import SampleSet
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.results import NotMeasured
from netinv.sampling import draw

K = 3
SHAPE = (1, 8, 8)
ONE = EvaluationConfig(
    num_samples=60,
    seed=0,
    sharpness=(5.0,),
    sharpness_samples=30,
    vendi_samples=12,
    epsilons=(0.0, 0.1),
    robust_epsilon=0.1,
    attack_steps=1,
    robust_samples=50,
    privacy_samples=40,
    privacy_pool=50,
    resamples=100,
    student=None,
    distillation=None,
)


def no(why: str) -> NotMeasured:
    return NotMeasured(not_measured=why)


def source(num: int = 60, seed: int = 0, name: str = "generator 0", **changes: Any) -> SampleSet:
    """Random images of three classes; the classifier follows the condition somewhat, the evaluator a little less."""
    rng = torch_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    vector = torch.softmax(2 * normal(num, K), dim=1)
    made = SampleSet(
        name=name,
        kind="generator",
        images=torch.rand(num, *SHAPE, generator=rng),
        label=vector.argmax(dim=1),
        vector=vector,
        logits=vector.log() + normal(num, K),
        evaluator_logits=vector.log() + 2 * normal(num, K),
        features=normal(num, 5).abs() + 0.1,
    )
    return dataclasses.replace(made, **changes)


class Spy(ConditionedGenerator):
    """A generator of pictures that follow latent and condition; it remembers what it was asked for, and how."""

    def __init__(self, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> None:
        seed_torch(seed)
        super().__init__(GeneratorConfig(latent_dim=4, hidden_dim=8, width=4, max_width=8, dropout=0.3), K, shape)
        self.mixing = nn.Parameter(torch.randn(4 + K, math.prod(shape)))
        self.calls: list[tuple[Tensor, Tensor, bool]] = []

    def forward(self, latent: Tensor, vector: Tensor, noise: Tensor | None = None) -> Tensor:
        dropout = any(layer.training for layer in self.modules() if isinstance(layer, nn.Dropout2d))
        self.calls.append((latent.clone(), vector.clone(), dropout))
        pixels = torch.cat([latent, 4 * vector], dim=1) @ self.mixing
        return torch.sigmoid(pixels.view(-1, *self.image_shape) + super().forward(latent, vector, noise))


def network(seed: int, shape: tuple[int, int, int] = SHAPE) -> Classifier:
    """An untrained classifier, which small steps can fool: of noise it says each class as often, about."""
    seed_torch(seed)
    architecture = ConvClassifierConfig(channels=(8,), feature_dim=16, batch_norm=False, dropout=0)
    classifier = build_classifier(architecture, K, shape, (0.5,) * shape[0], (0.3,) * shape[0])
    freeze(classifier)
    # Left as it comes, one in ten says one class of everything, and no attack within reason changes that.
    logits = classifier(torch.rand(200, *shape, generator=torch_rng(seed)))
    classifier.head.bias -= logits.mean(dim=0)
    return classifier


def data(num: int, seed: int) -> LabelledImages:
    rng = torch_rng(seed)
    images = torch.randint(0, 256, (num, *SHAPE), generator=rng, dtype=torch.uint8)
    return LabelledImages(images, torch.arange(num) % K)


def wanted(num: int, sharpness: tuple[float, float], seed: int) -> tuple[Tensor, Tensor]:
    """Latents and conditions as an evaluation draws them."""
    drawn = draw(num, latent_dim=4, num_classes=K, seed=seed, sharpness=sharpness)
    return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])


def pictures(
    generator: ConditionedGenerator, num: int, sharpness: tuple[float, float], seed: int
) -> tuple[Tensor, Tensor]:
    """What a generator then draws, and of which class."""
    latent, vector = wanted(500, sharpness, seed)  # as many at a time as an evaluation draws
    with torch.no_grad():
        return copy.deepcopy(generator).eval()(latent, vector)[:num], vector.argmax(1)[:num]


def pools(side: int = 8, size: int = 60) -> Pools:
    """Training and test images of noise, whose first pixels are their features."""
    train, test = (torch.rand(size, 1, side, side, generator=library_torch_rng(seed)) for seed in (1, 2))
    features = [images.flatten(1)[:, :6] for images in (train, test)]
    return Pools(train, test, *features, np.arange(size) + 100, np.arange(size) + 500)
