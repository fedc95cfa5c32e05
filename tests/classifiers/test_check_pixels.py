"""The check of a classifier finds pixels in another range or order, and wrong normalisation."""

import math
from typing import Any

import torch
from coloured import CLASSES, MEAN, NORMALISED, SHAPE, codes, message, normalise, trained
from draws import seed_torch
from foreign_networks import (
    ConvNet,
)
from torch import Tensor, nn

from netinv.classifiers import AdapterConfig, check_classifier
from netinv.data import LabelledImages


def test_pixels_in_0_to_255_shown_by_labelled_images(data: LabelledImages) -> None:
    seed_torch(0)
    network = trained(ConvNet(num_classes=CLASSES), lambda images: images * 255)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None  # so that only the images can tell
    report = check_classifier(network, SHAPE, data=data)
    assert codes(report) == {"pixel_range"}
    assert "trained on pixels in 0..255: set mean to 0 and std to 1/255" in message(report, "pixel_range")
    cured = AdapterConfig(mean=(0, 0, 0), std=(1 / 255,) * 3)
    assert check_classifier(network, SHAPE, adapter=cured, data=data).findings == ()


def test_pixels_in_0_to_255_shown_by_batch_norm_alone() -> None:
    seed_torch(0)
    network = trained(ConvNet(num_classes=CLASSES), lambda images: images * 255)
    report = check_classifier(network, SHAPE)
    assert codes(report) == {"pixel_range"}
    assert "trained on pixels in 0..255?" in message(report, "pixel_range")
    cured = AdapterConfig(mean=(0, 0, 0), std=(1 / 255,) * 3)
    assert codes(check_classifier(network, SHAPE, adapter=cured)) == set()


def test_pixels_in_0_to_255_shown_by_the_batch_norm_of_a_perceptron() -> None:
    seed_torch(0)
    layers = (nn.Linear(math.prod(SHAPE), 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, CLASSES))
    network = trained(nn.Sequential(nn.Flatten(), *layers), lambda images: images * 255)
    assert "trained on pixels in 0..255?" in message(check_classifier(network, SHAPE), "pixel_range")
    cured = AdapterConfig(mean=(0, 0, 0), std=(1 / 255,) * 3)
    assert "pixel_range" not in codes(check_classifier(network, SHAPE, adapter=cured))


def test_pixels_in_0_to_255_shown_by_scores_that_are_nearly_equal() -> None:
    """Without batch norm nothing remembers the pixels, but that scores are far apart only for large ones."""
    seed_torch(0)
    layers = (nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, CLASSES))
    network = nn.Sequential(*layers)
    with torch.no_grad():  # scores as small as those of a network that learned from pixels of 255
        network[3].weight.mul_(0.3)
        network[3].bias.zero_()
    report = check_classifier(network, SHAPE)
    assert codes(report) == {"untrained"}
    told = message(report, "untrained")
    assert told.startswith("Was it trained? Its scores for the classes of an image are nearly equal: are these its")
    assert told.endswith(
        "If it was trained on pixels in 0..255, where they differ more, set mean to 0 and std to 1/255."
    )
    cured = AdapterConfig(mean=(0, 0, 0), std=(1 / 255,) * 3)
    assert codes(check_classifier(network, SHAPE, adapter=cured)) == set()
    with torch.no_grad():
        network[3].weight.mul_(1e-3)
    assert "0..255" not in message(check_classifier(network, SHAPE), "untrained")


def test_mean_and_std_in_units_of_0_to_255(network: nn.Module) -> None:
    report = check_classifier(network, SHAPE, adapter=AdapterConfig(mean=(0, 0, 0), std=(0.001, 0.001, 0.001)))
    assert codes(report) == {"pixel_range"}
    assert "times as strong as in training" in message(report, "pixel_range")


def test_labelled_images_in_0_to_255(network: nn.Module, data: LabelledImages) -> None:
    report = check_classifier(network, SHAPE, adapter=NORMALISED, data=data._replace(images=data.images.float()))
    assert codes(report) == {"pixel_range"}
    assert "labelled images reach from 0 to 2" in message(report, "pixel_range")


def test_missing_normalisation(network: nn.Module, data: LabelledImages) -> None:
    report = check_classifier(network, SHAPE, data=data)
    assert codes(report) == {"normalisation"}
    assert message(report, "normalisation").startswith("Normalisation is missing")


class SelfNormalising(nn.Module):
    """Normalises inside, without any sign of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(normalise(images))


def test_double_normalisation_shown_by_labelled_images(network: nn.Module, data: LabelledImages) -> None:
    report = check_classifier(SelfNormalising(network), SHAPE, adapter=NORMALISED, data=data)
    assert codes(report) == {"normalisation"}
    assert message(report, "normalisation").startswith("Double normalisation")
    assert check_classifier(SelfNormalising(network), SHAPE, data=data).findings == ()


def test_double_normalisation_shown_by_the_network_itself(network: nn.Module) -> None:
    class Normalize(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return normalise(images)

    both = nn.Sequential(Normalize(), network)
    assert codes(check_classifier(both, SHAPE, adapter=NORMALISED)) == {"normalisation"}
    assert codes(check_classifier(both, SHAPE)) == set()
    network_with_buffer = SelfNormalising(network)
    network_with_buffer.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
    assert codes(check_classifier(network_with_buffer, SHAPE, adapter=NORMALISED)) == {"normalisation"}


def test_blue_before_red(data: LabelledImages) -> None:
    seed_torch(0)
    network = trained(ConvNet(num_classes=CLASSES), lambda images: normalise(images.flip(1)))
    report = check_classifier(network, SHAPE, adapter=NORMALISED, data=data)
    assert codes(report) == {"channel_order"}
    assert "in the order BGR: set channel_order to bgr" in message(report, "channel_order")
    cured = NORMALISED.model_copy(update={"channel_order": "bgr"})
    assert check_classifier(network, SHAPE, adapter=cured, data=data).findings == ()
