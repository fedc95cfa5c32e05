"""Which networks and settings `netinv.invert` refuses before the work, and which it takes as they are."""

from typing import Any

import pytest
from foreign_networks import ConvNet, Probabilities, Residual
from torch import nn

import netinv
from netinv.classifiers import AdaptedClassifier
from netinv.core import InputError

# None is trained, and after two steps no class is drawn; and they say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Of the classes"),
    pytest.mark.filterwarnings("ignore:Was it trained"),
]


QUICK: dict[str, Any] = {
    "generator": netinv.GeneratorConfig(width=8, max_width=16),
    "progress": False,
    "attempts": 1,
}
WITHOUT_NORM = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (ConvNet(), {"num_classes": 7}, "gives 10 scores for each image, but num_classes is 7"),
        (ConvNet(), {"classes": ("a", "b")}, "2 class names were given, but the classifier knows 10"),
        (ConvNet(), {"config": netinv.InversionConfig(pixel_statistics=1)}, "pixel_statistics needs the mean and std"),
        (WITHOUT_NORM, {"config": netinv.InversionConfig(layer_statistics=1)}, "needs a classifier with batch norm"),
        (Probabilities(), {"adapter": netinv.AdapterConfig(output="logits")}, "Probabilities are taken for logits"),
        (nn.Sequential(ConvNet(), nn.Threshold(1e9, 0)), {}, "same scores|Gradients are blocked"),
    ],
)
def test_what_cannot_be_inverted_is_refused_before_the_work(
    network: nn.Module, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        netinv.invert(network, image_shape=(3, 16, 16), **arguments)


def test_an_adapted_classifier_is_taken_as_it_is() -> None:
    adapted = AdaptedClassifier(Residual(), (3, 16, 16))
    quick = QUICK | {"config": netinv.InversionConfig(steps=2, batch_size=50)}
    assert netinv.invert(adapted, image_shape=(3, 16, 16), **quick).sample(2).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (1, 8, 8)}, r"adapted already, with image_shape \(3, 16, 16\), not \(1, 8, 8\)"),
        ({"num_classes": 7}, "adapted already, with num_classes 10, not 7"),
        ({"adapter": netinv.AdapterConfig(output="logits")}, "adapted already, with adapter "),
    ],
)
def test_what_contradicts_an_adapted_classifier_is_refused(arguments: dict[str, Any], message: str) -> None:
    adapted = AdaptedClassifier(Residual(), (3, 16, 16), config=netinv.AdapterConfig(channel_order="bgr"))
    with pytest.raises(InputError, match=message):
        netinv.invert(adapted, **{"image_shape": (3, 16, 16)} | arguments)
    agreeing = {"num_classes": 10, "adapter": netinv.AdapterConfig(channel_order="bgr")}
    quick = QUICK | {"config": netinv.InversionConfig(steps=1, batch_size=50)}
    assert len(netinv.invert(adapted, image_shape=(3, 16, 16), **agreeing, **quick).history) == 1
