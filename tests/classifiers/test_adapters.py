"""Adapters: every family gives its own logits and features, and is left as it was found."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from draws import seed_torch, torch_rng
from foreign_networks import NETWORKS, ConvNet, InPlace, K, Probabilities
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, AdapterConfig, adapt
from netinv.classifiers.calls import frozen
from netinv.classifiers.inputs import probe_images
from netinv.classifiers.outputs import detect_output
from netinv.core import InputError

SHAPE = (3, 16, 16)
HEADS = {"conv": "out", "transformer": "head", "perceptron": "layers.4", "torchvision": "fc", "mapping": "out"}


def build(name: str) -> nn.Module:
    """One of these networks, with batch statistics worth the name."""
    seed_torch(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


def config_for(name: str) -> AdapterConfig:
    if name == "perceptron":
        return AdapterConfig(input_shape=(3 * 16 * 16,))
    if name == "mapping":
        return AdapterConfig(output_entry="logits")
    return AdapterConfig()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch_rng(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_gives_the_networks_own_logits_and_features(name: str, images: Tensor) -> None:
    network = build(name)
    adapted = AdaptedClassifier(network, SHAPE, K, config_for(name))
    logits, features = adapted(images, return_features=True)
    with frozen(network), torch.no_grad():
        torch.testing.assert_close(features, network.embed(images.clone()))
        output: Any = network(images.flatten(1) if name == "perceptron" else images.clone())
    expected = {
        "pair": lambda: output[0],
        "mapping": lambda: output["logits"],
        "object": lambda: output.logits,
        "probabilities": output_log(output),
    }
    torch.testing.assert_close(logits, expected.get(name, lambda: output)())
    assert adapted.feature_dim == features.shape[1]
    assert adapted.output == {"probabilities": "probabilities", "log probabilities": "log_probabilities"}.get(
        name, "logits"
    )
    if name in HEADS:
        assert adapted.feature_layer == HEADS[name]


def output_log(output: Any) -> Any:
    return lambda: output.log()


@pytest.mark.parametrize("name", NETWORKS)
def test_images_get_gradients_and_the_network_is_left_as_found(name: str, images: Tensor) -> None:
    network = build(name).train()
    next(iter(network.children())).eval()  # a mode of its own for one part
    next(network.parameters()).requires_grad_(False)
    modes = [module.training for module in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    given = images.clone().requires_grad_()

    adapted = AdaptedClassifier(network, SHAPE, K, config_for(name))
    logits, features = adapted(given, return_features=True)
    with frozen(network):  # which gradient checkpointing needs
        (logits.sum() + features.sum()).backward()

    assert given.grad is not None
    assert given.grad.abs().sum() > 0
    torch.testing.assert_close(given.detach(), images)  # in-place operations met a copy
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_one_image_gives_what_it_gives_among_others(name: str, images: Tensor) -> None:
    adapted = AdaptedClassifier(build(name), SHAPE, K, config_for(name))
    with torch.no_grad():
        logits, features = adapted(images, return_features=True)
        one_logits, one_features = adapted(images[2:3], return_features=True)
    torch.testing.assert_close(one_logits, logits[2:3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one_features, features[2:3], atol=1e-5, rtol=1e-4)


def test_a_failing_network_is_left_as_found_too(images: Tensor) -> None:
    network = build("conv").train()
    adapted = AdaptedClassifier(network, SHAPE)
    with pytest.raises(RuntimeError):
        adapted(images[:, :2], return_features=True)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not network.out._forward_pre_hooks


class Recorder(nn.Module):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(1, K)

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = inputs.detach()
        return self.out(inputs.flatten(1).mean(dim=1, keepdim=True))


def seen_by_network(images: Tensor, **config: Any) -> Tensor:
    network = Recorder()
    channels, height, width = images.shape[1:]
    AdaptedClassifier(network, (channels, height, width), config=AdapterConfig(**config))(images)
    return network.seen


@pytest.mark.parametrize("fails", [False, True])
def test_recurrent_layers_run_without_cudnn(fails: bool, images: Tensor) -> None:
    """On a GPU it has no gradients of them in evaluation mode; here only the switch is seen."""
    seen = []

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.out = nn.GRU(3 * 16, 8, batch_first=True), nn.Linear(8, K)

        def forward(self, images: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.enabled)
            if fails:
                raise ValueError("no")
            return self.out(self.rows(images.transpose(1, 2).flatten(2))[0][:, -1])

    before = torch.backends.cudnn.enabled
    with pytest.raises(InputError) if fails else nullcontext():
        adapt(Rows(), SHAPE)(images)
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.enabled == before


def test_normalises(images: Tensor) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    seen = seen_by_network(images, mean=mean, std=std)
    for c in range(3):
        torch.testing.assert_close(seen[:, c], (images[:, c] - mean[c]) / std[c])


def test_pixels_in_0_to_255(images: Tensor) -> None:
    torch.testing.assert_close(seen_by_network(images, mean=(0, 0, 0), std=(1 / 255,) * 3), images * 255)


def test_normalisation_counts_in_the_networks_channel_order(images: Tensor) -> None:
    seen = seen_by_network(images, channel_order="bgr", mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    torch.testing.assert_close(seen[:, 0], images[:, 2] - 0.1)
    torch.testing.assert_close(seen[:, 2], images[:, 0] - 0.3)


def test_statistics_are_those_of_the_images_channels() -> None:
    config = AdapterConfig(channel_order="bgr", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    adapted = AdaptedClassifier(ConvNet(), SHAPE, config=config)
    torch.testing.assert_close(adapted.mean.flatten(), torch.tensor([0.3, 0.2, 0.1]))
    torch.testing.assert_close(adapted.std.flatten(), torch.tensor([0.6, 0.5, 0.4]))


def test_grey_images_for_a_colour_network_and_the_other_way_round(images: Tensor) -> None:
    grey = images[:, :1]
    torch.testing.assert_close(seen_by_network(grey, input_shape=(3, 16, 16)), grey.expand(-1, 3, -1, -1))
    seen = seen_by_network(images, input_shape=(1, 16, 16))
    torch.testing.assert_close(seen[:, 0], 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2])


def test_resizes(images: Tensor) -> None:
    assert seen_by_network(images, input_shape=(3, 24, 32)).shape == (5, 3, 24, 32)
    expected = F.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen_by_network(images, input_shape=(3, 8, 8)), expected)


def test_double_and_half_precision(images: Tensor) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        network = build("conv").to(dtype)
        logits, features = AdaptedClassifier(network, SHAPE)(images, return_features=True)
        assert logits.dtype == features.dtype == torch.float32
        assert network.out.weight.dtype == dtype


def test_precision_is_that_of_most_weights(images: Tensor) -> None:
    """A temperature of numpy's, which makes it float64, stands before the modules."""

    class Tempered(ConvNet):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, images: Tensor) -> Tensor:
            return self.temperature * super().forward(images)

    network = Tempered().eval()
    classifier = AdaptedClassifier(network, SHAPE)
    assert classifier.dtype == torch.float32
    assert torch.equal(classifier(images), network(images))
    assert classifier.scores_through(network, images).shape == (len(images), K)


def test_a_saturated_soft_max_still_has_gradients(images: Tensor) -> None:
    network = Probabilities()
    with torch.no_grad():
        network.out.weight.mul_(300)  # gaps of tens of nats: all but one of the probabilities are tiny
    given = images.requires_grad_()
    logits = AdaptedClassifier(network, SHAPE)(given)
    assert logits.isfinite().all()
    F.cross_entropy(logits, logits.argmin(dim=1)).backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert (given.grad.flatten(1).abs().sum(dim=1) > 0).all()
    with torch.no_grad():
        network.out.weight.mul_(300)  # now they are exactly 0
        assert (network.eval()(images) == 0).any()
        assert AdaptedClassifier(network, SHAPE)(images).isfinite().all()


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (torch.tensor([[0.1, 0.9], [0.5, 0.5]]), "probabilities"),
        (torch.tensor([[0.1, 0.9], [0.5, 0.6]]), "logits"),
        (torch.tensor([[0.1, 0.9], [0.5, 0.5]]).log(), "log_probabilities"),
        (torch.tensor([[-0.1, -0.9], [-1.0, -2.0]]), "logits"),
        (torch.tensor([[1.5, -0.5]]), "logits"),  # sums to 1, but no probabilities
    ],
)
def test_detects_the_kind_of_output(rows: Tensor, kind: str) -> None:
    assert detect_output(rows) == kind


def test_features_of_a_named_layer(images: Tensor) -> None:
    network = build("conv")
    adapted = AdaptedClassifier(network, SHAPE, config=AdapterConfig(feature_layer="hidden"))
    _, features = adapted(images, return_features=True)
    with frozen(network):
        torch.testing.assert_close(features, network.convolutions(images).flatten(1))


def test_logits_stand_in_where_no_layer_makes_features(images: Tensor) -> None:
    class Templates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.templates = nn.Parameter(torch.randn(K, 3 * 16 * 16))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.templates.T

    adapted = AdaptedClassifier(Templates(), SHAPE)
    logits, features = adapted(images, return_features=True)
    assert adapted.feature_layer is None
    assert torch.equal(logits, features)


def test_a_network_that_works_in_parts_keeps_its_features_in_order(images: Tensor) -> None:
    class InParts(ConvNet):
        def forward(self, x: Tensor) -> Any:
            return torch.cat([ConvNet.forward(self, part) for part in x.split(2)])

    network = InParts()
    _, features = AdaptedClassifier(network, SHAPE)(images, return_features=True)
    with frozen(network):
        torch.testing.assert_close(features, network.embed(images))


class Pieces(ConvNet):
    """Cuts each image into four, and averages what it says of them."""

    def forward(self, x: Tensor) -> Any:
        pieces = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)  # (4 N, 3, 8, 8)
        return self.out(self.embed(pieces)).unflatten(0, (-1, 4)).mean(dim=1)


def test_rows_of_pieces_are_no_features_of_images(images: Tensor) -> None:
    adapted = AdaptedClassifier(Pieces(), SHAPE)
    logits, features = adapted(images, return_features=True)
    assert adapted.feature_layer is None
    assert torch.equal(features, logits)
    with pytest.raises(InputError, match="'out' sees 8 rows of 2 images: name another one"):
        AdaptedClassifier(Pieces(), SHAPE, config=AdapterConfig(feature_layer="out"))


def test_a_layer_that_is_used_again_shows_each_image_once(images: Tensor) -> None:
    class Mirrored(ConvNet):
        def forward(self, x: Tensor) -> Any:
            return (ConvNet.forward(self, x) + ConvNet.forward(self, x.flip(3))) / 2

    network = Mirrored()
    _, features = AdaptedClassifier(network, SHAPE)(images, return_features=True)
    with frozen(network):
        torch.testing.assert_close(features, network.embed(images))


def test_scores_come_back_to_the_device_of_the_images() -> None:
    """Some networks end in ``.cpu()``; the device meta stands in for a GPU."""
    scores = adapt(ConvNet(), SHAPE)._scores(torch.rand(2, K), K, torch.empty(2, *SHAPE, device="meta"))
    assert scores.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["conv", "mapping", "transformer", "probabilities"])
def test_a_caller_in_another_precision_does_not_reach_the_network(
    images: Tensor, name: str, dtype: torch.dtype
) -> None:
    adapted = AdaptedClassifier(build(name).to(dtype), SHAPE, K, config_for(name))
    expected = adapted(images, return_features=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = adapted(images, return_features=True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_modes_of_the_adapter_do_not_reach_the_network() -> None:
    network = InPlace().train()
    adapted = AdaptedClassifier(network, SHAPE)
    adapted.eval()
    assert network.training


def test_probes_are_images() -> None:
    images = probe_images((3, 8, 8))
    assert images.shape == (8, 3, 8, 8)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, probe_images((3, 8, 8)))
