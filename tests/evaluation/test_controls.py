"""The control of one picture a class against plain definitions."""

import dataclasses
from functools import partial

import pytest
import torch
from draws import numpy_rng
from made_up import SHAPE, K, data, network
from torch import Tensor

from netinv.classifiers import Classifier
from netinv.data import to_float
from netinv.evaluation.controls import BENDING, one_picture
from netinv.evaluation.samples import SampleSet, observe
from netinv.generators import Bend, ConditionedGenerator, GeneratorConfig

SEEN = partial(observe, classifier=network(7), evaluator=None)
PLAIN = ConditionedGenerator(GeneratorConfig(width=2), K, SHAPE)


def real(classes: tuple[int, ...] = (0, 1, 2), evaluator: Classifier | None = None) -> SampleSet:
    images, label = data(90, 1)
    chosen = torch.isin(label, torch.tensor(classes))
    return SEEN("real_train", "reference", to_float(images[chosen]), label[chosen], evaluator=evaluator)


def central(samples: SampleSet, k: int) -> Tensor:
    """Of the images that are read right, that nearest to the mean of its class."""
    judge = samples.logits if samples.evaluator_logits is None else samples.evaluator_logits
    space = samples.images if samples.features is None else samples.features
    rows = [i for i, label in enumerate(samples.label.tolist()) if label == k]
    right = [i for i in rows if int(judge[i].argmax()) == k] or rows
    mean = sum(space[i] for i in rows) / len(rows)
    return samples.images[min(right, key=lambda i: float(((space[i] - mean) ** 2).sum()))]


@pytest.mark.parametrize("read", ["by the classifier", "by an evaluator", "by none"])
def test_unbent_it_is_the_image_nearest_to_the_mean_of_its_class_that_is_read(
    monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.setattr("netinv.evaluation.controls.BENDING", 0.0)
    samples = real(evaluator=network(1) if read == "by an evaluator" else None)
    if read == "by none":
        samples = dataclasses.replace(samples, logits=-torch.eye(K)[samples.label])
    one = one_picture(samples, 60, PLAIN, SEEN, numpy_rng(0))
    assert (one.name, one.kind, one.vector) == ("one_picture", "reference", None)
    assert torch.bincount(one.label).tolist() == [20] * K
    for image, k in zip(one.images, one.label.tolist(), strict=True):
        torch.testing.assert_close(image, central(samples, k), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bending", [0.0, 0.1])
def test_it_is_softened_toned_and_bent_as_the_generator_does(bending: float) -> None:
    config = GeneratorConfig(width=2, latent_dim=9, softening=1.5, toning=0.7, negatives=True, bending=bending)
    generator, samples, rng = ConditionedGenerator(config, K, SHAPE), real(), numpy_rng(5)
    one = one_picture(samples, 10, generator, SEEN, numpy_rng(5))
    latent = torch.from_numpy(rng.standard_normal((10, 9), dtype="float32"))
    plain = torch.stack([central(samples, k) for k in one.label.tolist()])
    assert generator.soften is not None
    assert generator.tone is not None
    toned = generator.tone(generator.soften(plain), latent)
    bend = generator.bend or Bend(BENDING, 64, SHAPE[1:])
    if not bending:
        latent = torch.from_numpy(rng.standard_normal((10, 64), dtype="float32"))
    assert torch.equal(one.images, bend(toned, latent).clamp(0, 1))
    assert len(one.images.flatten(1).unique(dim=0)) == 10


def test_a_class_without_images_is_left_out() -> None:
    one = one_picture(real((0, 2)), 7, PLAIN, SEEN, numpy_rng(0))
    assert one.label.tolist() == [0, 2, 0, 2, 0, 2, 0]
