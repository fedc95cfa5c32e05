"""Where tensors come to lie: with the images or with the draws, whatever torch's default device is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from draws import torch_rng
from torch import Tensor

from netinv.perturbations import (
    affine,
    augment,
    color_jitter,
    draw_maps,
    draw_offsets,
    nearest_of_class,
    noise,
    pgd,
    robust_mask,
    translate,
    unit_ball,
    unit_sphere,
)

IMAGES = torch.rand(6, 3, 7, 8, generator=torch_rng(3))
LABEL = torch.arange(6) % 3


def classifier(images: Tensor) -> Tensor:
    """The channels' means."""
    return 9 * images.mean(dim=(2, 3))


CALLS: dict[str, Callable[[], Any]] = {
    "draw_offsets": lambda: draw_offsets(6, 2, torch_rng(0)),
    "draw_maps": lambda: draw_maps(6, torch_rng(0)),
    "translate": lambda: translate(IMAGES, draw_offsets(6, 2, torch_rng(0)), 2),
    "affine": lambda: affine(IMAGES, draw_maps(6, torch_rng(0)), 0.3),
    "color_jitter": lambda: color_jitter(IMAGES, torch_rng(0)),
    "augment": lambda: augment(IMAGES, 2, True, torch_rng(0), 0.2),
    "unit_ball, linf": lambda: unit_ball((6, 3, 7, 8), "linf", torch_rng(0)),
    "unit_ball, l2": lambda: unit_ball((6, 3, 7, 8), "l2", torch_rng(0)),
    "unit_sphere, linf": lambda: unit_sphere((6, 3, 7, 8), "linf", torch_rng(0)),
    "unit_sphere, l2": lambda: unit_sphere((6, 3, 7, 8), "l2", torch_rng(0)),
    "noise": lambda: noise(IMAGES, 0.1, unit_ball(IMAGES.shape, "linf", torch_rng(0))),
    "pgd, linf": lambda: pgd(classifier, IMAGES, LABEL, 0.1, 3, 0.5),
    "pgd, l2": lambda: pgd(classifier, IMAGES, LABEL, 0.5, 3, 0.5, "l2"),
    "robust_mask": lambda: robust_mask(classifier, IMAGES, LABEL, 0.05, 3),
    "nearest_of_class": lambda: tuple(nearest_of_class(classifier, IMAGES, LABEL, 2.0, "linf", 3)._asdict().values()),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_default_device_changes_nothing(name: str) -> None:
    """``meta`` is a device that computes nothing: what lies there by mistake is told at once."""
    expected = CALLS[name]()
    with torch.device("meta"):
        found = CALLS[name]()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
