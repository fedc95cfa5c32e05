"""Real digits, networks that know them, and fake generators whose measures are known."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from draws import numpy_rng, seed_torch
from torch import Tensor

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    ResidualClassifierConfig,
    build_classifier,
    freeze,
    load_classifier,
    save_classifier,
    train_classifier,
)
from netinv.core import Config
from netinv.data import LabelledImages, channel_statistics, to_float
from netinv.evaluation import EvaluationConfig, evaluate
from netinv.evaluation.evaluate import Evaluation
from netinv.evaluation.students import DistillationConfig
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.results import Estimate, Measure, NotMeasured, Results, Row

SHAPE = (1, 8, 8)
CLASSES = tuple("0123456789")
CONFIG = EvaluationConfig(
    num_samples=300,
    sharpness=(1.0, 10.0),
    sharpness_samples=100,
    vendi_samples=20,
    epsilons=(0.0, 0.1),
    attack_steps=3,
    robust_samples=50,
    privacy_samples=200,
    resamples=200,
    student=ClassifierTrainingConfig(epochs=8, batch_size=32),
    distillation=DistillationConfig(images=200, steps=120, batch_size=32, shift=1, distortion=0.1, color_jitter=0),
    student_architecture=ConvClassifierConfig(channels=(8,), feature_dim=32, dropout=0),
)
QUICK = CONFIG.model_copy(update={"student": None, "distillation": None})


class World(NamedTuple):
    """Real digits in three parts, and two networks trained on the first."""

    train: LabelledImages
    test: LabelledImages
    unseen: LabelledImages
    classifier: Classifier
    evaluator: Classifier


def three_parts() -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Of the digits, in an order that tells nothing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = numpy_rng(0).permutation(len(digits.target))
    images = torch.from_numpy((digits.images[order] / 16 * 255).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target[order].astype(np.int64))
    train, test, unseen = (LabelledImages(images[a:b], labels[a:b]) for a, b in ((0, 800), (800, 1200), (1200, 1797)))
    return train, test, unseen


def train_networks(folder: Path) -> None:
    """Train the two networks on the first part."""
    train, _, _ = three_parts()
    training = ClassifierTrainingConfig(epochs=8, batch_size=64, shift=1)
    for seed, architecture in enumerate(
        (ConvClassifierConfig(channels=(16, 32), feature_dim=32), ResidualClassifierConfig(channels=(8, 16)))
    ):
        seed_torch(seed)
        network = build_classifier(architecture, 10, SHAPE, *channel_statistics(train.images))
        assert list(train_classifier(network, train, training, seed))
        save_classifier(folder / str(seed), network)


def read_world(folder: Path) -> World:
    """The parts, and the networks as they were trained."""
    classifier, evaluator = (load_classifier(folder / name) for name in "01")
    freeze(classifier), freeze(evaluator)
    return World(*three_parts(), classifier, evaluator)


class Replay(ConditionedGenerator):
    """A fake generator that shows images it was given, of the wanted class, chosen by the latent."""

    def __init__(self, data: LabelledImages) -> None:
        super().__init__(GeneratorConfig(width=2, latent_dim=4, dropout=0), 10, SHAPE)
        self.pictures, self.members = to_float(data.images), [torch.nonzero(data.labels == k)[:, 0] for k in range(10)]

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        pick = (latent[:, 0].abs() * 1e4).long()
        chosen = [self.members[k][i % len(self.members[k])] for k, i in zip(vector.argmax(1), pick, strict=True)]
        return self.pictures[torch.stack(chosen)]


class Fixed(ConditionedGenerator):
    """A fake generator that always shows the same pixel value, which may be NaN."""

    def __init__(self, pixel: float) -> None:
        super().__init__(GeneratorConfig(width=2, latent_dim=4), 10, SHAPE)
        self.pixel = pixel

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        return torch.full((len(latent), *SHAPE), self.pixel)


def untrained(seed: int = 0, dropout: float = 0.2) -> ConditionedGenerator:
    seed_torch(seed)
    generator = ConditionedGenerator(GeneratorConfig(width=4, latent_dim=8, dropout=dropout), 10, SHAPE)
    return generator.eval()


def run(world: World, *generators: ConditionedGenerator, config: EvaluationConfig = QUICK) -> Evaluation:
    return evaluate(generators, world.classifier, world.evaluator, CLASSES, world.train, world.test, config, (3.0, 3.0))


def row(results: Results, name: str) -> Row:
    return next(r for r in results.rows if r.name == name)


def value(measure: Measure) -> float:
    assert isinstance(measure, Estimate), measure
    return measure.value


def reason(measure: Measure) -> str:
    assert isinstance(measure, NotMeasured), measure
    return measure.not_measured


def walk(part: object) -> list[Measure]:
    """Every measure in a result."""
    if isinstance(part, Estimate | NotMeasured):
        return [part]
    inner: list[object] = []
    if isinstance(part, Config):
        inner = [getattr(part, name) for name in type(part).model_fields]
    elif isinstance(part, dict):
        inner = list(part.values())
    elif isinstance(part, tuple):
        inner = list(part)
    return [measure for item in inner for measure in walk(item)]


# What known sources get
