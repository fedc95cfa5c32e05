"""What an adapter refuses, and in which words: shapes, settings, outputs and devices that do not fit."""

import re
from typing import Any

import pytest
import torch
from foreign_networks import ConvHead, ConvNet, NamedOutput, PairOutput, Perceptron
from torch import nn

from netinv.classifiers import AdaptedClassifier, AdapterConfig, adapt, check_classifier
from netinv.core import InputError

SHAPE = (3, 16, 16)


@pytest.mark.parametrize(
    ("network", "shape", "num_classes", "config", "message"),
    [
        (ConvNet(), SHAPE, 7, {}, "gives 10 scores for each image, but num_classes is 7"),
        (ConvNet(1), SHAPE, None, {}, "fails on a batch of shape .* to have 1 channels, but got 3"),
        (ConvNet(), (2, 16, 16), None, {"input_shape": (3, 16, 16)}, "2 channels cannot be converted to 3"),
        (Perceptron(), SHAPE, None, {}, "fails on a batch of shape"),
        (
            *(Perceptron(), SHAPE, None, {"input_shape": (256,)}),
            r"^input_shape is 256 pixels, but images of shape \(3, 16, 16\) have 768: give the image_shape",
        ),
        (ConvNet(), SHAPE, None, {"mean": (0.5,), "std": (0.5,)}, "1 values, but the classifier takes 3 channels"),
        (ConvNet(1), (1, 16, 16), None, {"channel_order": "bgr"}, "bgr needs 3 channels"),
        (ConvNet(), SHAPE, None, {"feature_layer": "neck"}, "no module 'neck'; the last ones in use are: .*out"),
        (
            NamedOutput(),
            SHAPE,
            None,
            {},
            r"2 entries .* of logits \(8, 10\), projection \(8, 5\), loss None",
        ),
        (PairOutput(), SHAPE, None, {"output_entry": 5}, r"no entry 5; it has: 0 \(8, 10\), 1 \(8, 24\)"),
        (ConvNet(), SHAPE, None, {"output_entry": 0}, r"a tensor of shape \(8, 10\) and has no entries: leave .* out"),
        (nn.Conv2d(3, 4, 3), SHAPE, None, {}, r"one row of scores for each image, .* shape \(8, 4, 14, 14\)"),
        (ConvNet(num_classes=1), SHAPE, None, {}, "one score for each image: set output to sigmoid"),
        (ConvNet(num_classes=1), SHAPE, 1, {"output": "sigmoid"}, "is that of class 1 of two: num_classes is 2"),
    ],
)
def test_says_what_does_not_fit(
    network: nn.Module, shape: tuple[int, int, int], num_classes: int | None, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        AdaptedClassifier(network, shape, num_classes, AdapterConfig(**config))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("shape", [16, (16, 16), (3, 16.0, 16.0), (3, 0, 16), "3,16,16"])
def test_what_is_no_shape_is_refused(shape: Any) -> None:
    words = "image_shape is (channels, height, width), such as (1, 28, 28) for grey images, in whole numbers"
    with pytest.raises(InputError, match=re.escape(words)):
        AdaptedClassifier(ConvNet(), shape)
    assert check_classifier(ConvNet(), shape).findings[0].message.startswith(words)
    assert AdaptedClassifier(ConvNet(), [*SHAPE]).image_shape == SHAPE


def test_another_default_device_is_refused() -> None:
    network = ConvNet()
    adapted = adapt(network, SHAPE)
    told = r"^Torch makes new tensors on meta by itself, .* call torch\.set_default_device\('cpu'\) before"
    with torch.device("meta"):
        for given in (network, adapted):
            with pytest.raises(InputError, match=told):
                adapt(given, SHAPE)
        assert re.search(told, check_classifier(network, SHAPE).findings[0].message)


def test_settings_of_an_adapter_are_no_mapping() -> None:
    settings: Any = {"output": "logits"}
    with pytest.raises(InputError, match=r"adapter is a dict: give netinv\.classifiers\.AdapterConfig"):
        AdaptedClassifier(ConvNet(), SHAPE, None, settings)
    assert "adapter is a dict" in check_classifier(ConvNet(), SHAPE, None, settings).findings[0].message


def test_refuses_outputs_that_are_not_finite() -> None:
    network = ConvHead()
    with torch.no_grad():
        network.out.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        AdaptedClassifier(network, SHAPE)


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": [0.5]},
        {"mean": [0.5], "std": [0.5, 0.5]},
        {"std": [0.0], "mean": [0.0]},
        {"input_shape": [3, 16]},
        {"output": "softmax"},
        {"shape": 3},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        AdapterConfig.parse(settings)
