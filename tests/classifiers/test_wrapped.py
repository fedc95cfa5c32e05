"""Networks that are wrapped, compiled, of half precision or quantised, and what is no network: inverted or refused."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from draws import torch_rng
from foreign_networks import ByView, ConvNet, K, PixelsByView
from inverting import SHAPE, invert, refused, usable
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, AdapterConfig, check_classifier

# Most are trained for a step or two only, and say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Of the classes"),
    pytest.mark.filterwarnings("ignore:Was it trained"),
]


def test_compiled_and_parallel_modules_are_taken_off() -> None:
    network = ByView().eval()
    for wrapped in (torch.compile(network), nn.DataParallel(network), torch.compile(nn.DataParallel(network))):
        adapted = AdaptedClassifier(wrapped, SHAPE)
        assert adapted.network is network
        assert adapted.feature_layer == "out"
    usable(nn.DataParallel(network))


@pytest.mark.parametrize("how", ["in place", "part", "method"])
def test_networks_compiled_in_place_or_in_parts(how: str) -> None:
    network: Any = ByView()
    if how == "in place":
        network.compile()
    elif how == "part":
        network.hidden = torch.compile(network.hidden)
    else:
        network.forward = torch.compile(network.forward, backend="eager")
        network(torch.rand(2, *SHAPE))  # its hooks are not seen any more, once it has been compiled
    usable(network)
    assert AdaptedClassifier(network, SHAPE, config=AdapterConfig(feature_layer="out")).feature_dim == 24


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["standard", "robust"])
@pytest.mark.parametrize("kind", [ByView, PixelsByView, ConvNet])
def test_half_precision(kind: Callable[[], nn.Module], variant: str, dtype: torch.dtype) -> None:
    network = kind().to(dtype)
    assert check_classifier(network, SHAPE).ok
    invert(network, variant=variant)
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}


def test_a_wrapper_stays_around_what_is_compiled() -> None:
    """One that looks in it for what it has not itself."""

    class Halved(nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.network, name)

        def forward(self, images: Tensor) -> Any:
            return self.network(images / 2)

    network, images = ByView().eval(), torch.rand(2, *SHAPE, generator=torch_rng(0))
    classifier = AdaptedClassifier(Halved(torch.compile(network, backend="eager")), SHAPE)
    assert torch.equal(classifier(images), network(images / 2))


def test_a_network_in_a_file_of_that_name_is_not_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByView, "__module__", "models.quantized_networks")
    assert AdaptedClassifier(ByView(), SHAPE).num_classes == K


def test_quantised_modules_are_named() -> None:
    with warnings.catch_warnings(action="ignore"):
        network = torch.ao.quantization.quantize_dynamic(ConvNet().eval(), {nn.Linear})
    refused(network, "module 'hidden' is quantised .* give the network as it was before")


def test_weights_that_are_no_plain_tensors_are_named() -> None:
    network = ConvNet()
    with warnings.catch_warnings(action="ignore"):
        network.register_buffer(
            "scale", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
        )
    refused(network, r"'scale' is no plain tensor \(NestedTensor\), .* give the network as it was before")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ConvNet().state_dict(), "mapping of weights is no network: build the module"),
        (lambda images: images.mean((2, 3)), "is a function, not a torch.nn.Module"),
    ],
)
def test_what_is_no_module(network: Any, message: str) -> None:
    refused(network, message)
