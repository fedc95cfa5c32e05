"""What the call in one line hands on."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netinv.app.inversions import Inversion, inversion_accuracy
from netinv.core import InputError
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig
from netinv.sampling import draw

K = 3
SHAPE = (1, 4, 4)


class Condition(ConditionedGenerator):
    """Draws the wanted probabilities themselves, as the first three pixels."""

    def __init__(self) -> None:
        super().__init__(GeneratorConfig(latent_dim=4, width=2, max_width=2), K, SHAPE)

    def forward(self, latent: Tensor, vector: Tensor, noise: Any = None) -> Tensor:
        return nn.functional.pad(vector, (0, 16 - K)).view(-1, *SHAPE)


class Sure(nn.Module):
    """Reads the largest of the first three pixels where it stands out, else class 0."""

    device, num_classes, image_shape = torch.device("cpu"), K, SHAPE

    def forward(self, images: Tensor) -> Tensor:
        vector = images.flatten(1)[:, :K]
        return torch.where(vector.amax(dim=1, keepdim=True) > 0.9, vector, torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize("sharpness", [(0.5, 0.5), (1.0, 20.0), (50.0, 50.0)])
def test_accuracy_is_measured_at_the_sharpness_of_the_training(sharpness: tuple[float, float]) -> None:
    inversion = Inversion(Condition().eval(), InversionConfig(sharpness=sharpness), [], tuple("abc"), 0.0)
    vector = draw(200, latent_dim=4, num_classes=K, seed=1, sharpness=sharpness)[1]
    seen = [row.argmax() if row.max() > 0.9 else 0 for row in vector]
    expected = sum(a == b for a, b in zip(seen, vector.argmax(axis=1), strict=True)) / 200
    sure: Any = Sure()
    assert inversion_accuracy(inversion, sure, num=200) == pytest.approx(expected)
    other = dataclasses.replace(inversion, config=InversionConfig(sharpness=(7.0, 7.0)))
    assert inversion_accuracy(other, sure, num=200) != pytest.approx(expected)
    assert torch.equal(
        inversion.sample(9).flatten(1)[:, :K],
        torch.from_numpy(draw(9, latent_dim=4, num_classes=K, seed=0, sharpness=sharpness)[1]),
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num": 2.5}, "The number of images is 2.5: give a whole number"),
        ({"num": -1}, "The number of images is -1: give 0 or more"),
        ({"seed": -1}, "The seed is -1: give 0 or more"),
        ({"seed": 0.5}, "The seed is 0.5: give a whole number"),
        ({"label": 1.9}, "A label is 1.9: give a whole number"),
        ({"label": True}, "A label is True: give a whole number"),
        ({"label": 3}, "Label 3 does not exist: the classes are 0 "),
        ({"sharpness": 0}, "The sharpness is 0: give a number above 0 to 1,000"),
        ({"sharpness": ()}, "The sharpness is"),
        ({"sharpness": (1.0, 1e308)}, "The sharpness is"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(change: dict[str, Any], told: str) -> None:
    inversion = Inversion(Condition().eval(), InversionConfig(), [], tuple("abc"), 0.0)
    with pytest.raises(InputError, match=told):
        inversion.sample(**{"num": 2} | change)


def test_numbers_are_numpys_too_and_one_sharpness_is_a_range() -> None:
    inversion = Inversion(Condition().eval(), InversionConfig(), [], tuple("abc"), 0.0)
    plain = inversion.sample(2, label=1, seed=3, sharpness=(5.0, 5.0))
    one: Any = np.int64(1)
    five: Any = np.float32(5)
    assert torch.equal(inversion.sample(2 * one, label=one, seed=3 * one, sharpness=five), plain)
