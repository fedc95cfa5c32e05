"""The control of one picture a class against plain definitions."""

from functools import partial

import pytest
import torch
from draws import numpy_rng
from made_up import SHAPE, K, data, network
from torch import Tensor

from netinv.data import to_float
from netinv.evaluation.controls import BENDING, one_picture
from netinv.evaluation.samples import SampleSet, observe
from netinv.generators import Bend, Tone

SEEN = partial(observe, classifier=network(7), evaluator=None)


def real(classes: tuple[int, ...] = (0, 1, 2)) -> SampleSet:
    images, label = data(90, 1)
    chosen = torch.isin(label, torch.tensor(classes))
    return SEEN("real_train", "reference", to_float(images[chosen]), label[chosen])


def central(samples: SampleSet, k: int) -> Tensor:
    own = samples.images[samples.label == k]
    distances = [float(((image - own.mean(0)) ** 2).sum()) for image in own]
    return own[distances.index(min(distances))]


def test_unbent_it_is_the_image_nearest_to_the_mean_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netinv.evaluation.controls.BENDING", 0.0)
    samples = real()
    one = one_picture(samples, 60, None, SEEN, numpy_rng(0))
    assert (one.name, one.kind, one.vector) == ("one_picture", "reference", None)
    assert torch.bincount(one.label).tolist() == [20] * K
    for image, k in zip(one.images, one.label.tolist(), strict=True):
        torch.testing.assert_close(image, central(samples, k), rtol=0, atol=1e-4)


@pytest.mark.parametrize("tone", [None, Tone(0.7, True)])
def test_it_is_bent_and_toned_as_a_generator_does(tone: Tone | None) -> None:
    samples = real()
    one = one_picture(samples, 10, tone, SEEN, numpy_rng(5))
    latent = torch.from_numpy(numpy_rng(5).standard_normal((10, 64), dtype="float32"))
    plain = torch.stack([central(samples, k) for k in one.label.tolist()])
    toned = plain if tone is None else tone(plain, latent)
    assert torch.equal(one.images, Bend(BENDING, 64, SHAPE[1:])(toned, latent).clamp(0, 1))
    assert len(one.images.flatten(1).unique(dim=0)) == 10


def test_a_class_without_images_is_left_out() -> None:
    one = one_picture(real((0, 2)), 7, None, SEEN, numpy_rng(0))
    assert one.label.tolist() == [0, 2, 0, 2, 0, 2, 0]
