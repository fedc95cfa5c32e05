"""The settings that a variant has for a network, and single ones of them changed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import ConvNet
from torch import nn

import netinv
from netinv.app.api import settings_of
from netinv.app.inversions import MissingClasses
from netinv.classifiers import adapt
from netinv.core import InputError

# Trained too briefly to draw every class, if at all; and they say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Of the classes"),
    pytest.mark.filterwarnings("ignore:Was it trained"),
]

SHAPE = (1, 16, 16)


def test_a_perceptrons_images_are_compared_with_what_its_norms_have_seen() -> None:
    def settings(*layers: nn.Module) -> netinv.InversionConfig:
        network = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(512, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
        )
        return settings_of(
            "robust", adapt(network.eval(), (2, 16, 16), 10, netinv.AdapterConfig(mean=(0.1, 0.1), std=(1, 1)))
        )[0]

    robust = netinv.variant_config("robust")
    assert settings() == robust.model_copy(update={"layer_statistics": 5.0})
    assert settings(nn.BatchNorm2d(2)) == robust  # maps, too
    perceptron = nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.BatchNorm1d(10))
    assert not settings_of("standard", adapt(perceptron.eval(), SHAPE, 10))[0].layer_statistics


@pytest.mark.filterwarnings("ignore:The variant robust compares")
def test_single_settings_of_a_variant_are_changed_as_the_page_says(root: Path) -> None:
    """Of a network that normalises nothing; all others are those that the variant has for it."""
    (line,) = re.findall(r"`(netinv\.invert\(network.*?changes=.*?)\)`", (root / "docs/bring-your-own.md").read_text())
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    quick = line.replace("{", '{"steps": 2, "batch_size": 8, ') + ", attempts=1, progress=False)"
    found = eval(quick, {"netinv": netinv, "network": network}).config
    fitting, _ = settings_of("robust", adapt(network, (3, 32, 32)))
    assert not fitting.pixel_statistics
    assert found == fitting.model_copy(update={"steps": 2, "batch_size": 8, "epsilon": 0.05})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epsilonn": 0.5}, r"epsilonn is not a known key \(there are: steps, "),
        ({"perturbation": "pdg"}, r"perturbation: expected 'none', 'noise' or 'pgd', got 'pdg'"),
        ({"steps": -3}, "steps: expected greater than or equal to 1, got -3"),
        ({"survival": 0.9}, "survival is that of a perturbation, and needs one"),
    ],
)
def test_settings_that_are_none_are_refused_however_they_come(changed: dict[str, Any], message: str) -> None:
    network = ConvNet(in_channels=1)
    copied = netinv.InversionConfig().model_copy(update=changed)
    for name, settings in (("changes", {"changes": changed}), ("config", {"config": copied})):
        with pytest.raises(InputError, match=f"^{name}.*{message}"):
            netinv.invert(network, image_shape=SHAPE, progress=False, **settings)
    with pytest.raises(InputError, match=r"^adapter\.men is not a known key"):
        adapt(network, SHAPE, None, netinv.AdapterConfig().model_copy(update={"men": (0.5,)}))


def test_a_scale_is_not_taken_for_the_training_images_statistics() -> None:
    """Pixels in 0..255 are told as a mean of 0 and a deviation of 1/255, those in -1..1 as 0.5: no images have that."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    for mean, std in ((0.0, 1 / 255), (0.0, 1.0), (0.5, 0.5)):
        adapted = adapt(network, SHAPE, 10, netinv.AdapterConfig(mean=(mean,), std=(std,)))
        config, left_out = settings_of("robust", adapted)
        assert config.pixel_statistics == 0
        assert "are not known (a mean of 0 or 0.5 is a scale): this is left out" in " ".join(left_out.split())
        with pytest.raises(InputError, match="pixel_statistics needs the mean and std of the training images"):
            netinv.invert(adapted, image_shape=SHAPE, config=netinv.variant_config("robust"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    adapted = adapt(network, (3, 16, 16), 10, netinv.AdapterConfig(mean=(0.5, 0.49, 0.45), std=(0.25, 0.25, 0.25)))
    assert settings_of("robust", adapted) == (netinv.variant_config("robust"), "")


@pytest.mark.parametrize(("shape", "shift"), [((1, 1, 40), 0), ((1, 40, 1), 0), ((1, 2, 3), 1), ((1, 3, 3), 2)])
def test_the_robust_variant_fits_tiny_images(shape: tuple[int, int, int], shift: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], 3))
    config, _ = settings_of("robust", adapt(network, shape, 3))
    assert config.shift == shift
    quick = config.model_copy(update={"steps": 2, "batch_size": 8})
    with pytest.warns(MissingClasses):
        made = netinv.invert(network, image_shape=shape, config=quick, attempts=1, progress=False)
    assert torch.isfinite(made.sample(4)).all()
    assert all(np.isfinite([*record.values()]).all() for record in made.history)
