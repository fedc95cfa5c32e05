"""A classifier's architecture with fresh weights, or a stated stand-in."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from draws import seed_torch, torch_rng
from foreign_networks import ConvNet, PairOutput, Probabilities
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.ops import FrozenBatchNorm2d

from netinv.classifiers import (
    AdapterConfig,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    FreshClassifier,
    ResidualClassifierConfig,
    adapt,
    build_classifier,
    fresh_copy,
    train_classifier,
)
from netinv.data import LabelledImages

SHAPE = (3, 8, 8)


def pictures(num: int = 64) -> LabelledImages:
    """Two classes: red, and blue."""
    images = torch.randint(0, 80, (num, *SHAPE), dtype=torch.uint8, generator=torch_rng(0))
    labels = torch.arange(num) % 2
    images[labels == 0, 0] += 150
    images[labels == 1, 2] += 150
    return LabelledImages(images, labels)


class Token(ConvNet):
    """A weight of its own, which no layer can make anew."""

    def __init__(self) -> None:
        super().__init__(num_classes=2)
        self.token = nn.Parameter(torch.ones(24))


@pytest.mark.parametrize("kind", [ConvNet, PairOutput, Probabilities])
def test_other_networks_get_fresh_weights_and_learn(kind: type[ConvNet]) -> None:
    network = kind(num_classes=2).requires_grad_(False).eval()
    classifier = adapt(network, SHAPE, 2, AdapterConfig(mean=(0.4,) * 3, std=(0.3,) * 3))
    before = copy.deepcopy(network.state_dict())
    fresh = fresh_copy(classifier, (0.0,) * 3, (1.0,) * 3)
    assert fresh.architecture == f"{kind.__name__}, the audited architecture"
    assert not torch.equal(fresh.network.out.weight, network.out.weight)
    *_, last = train_classifier(fresh, pictures(), ClassifierTrainingConfig(epochs=40, batch_size=16, lr=1e-2), 0)
    assert last["accuracy"] > 0.8
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("architecture", [ConvClassifierConfig(channels=(4,)), ResidualClassifierConfig(channels=(4,))])
def test_own_networks_get_fresh_weights(architecture: ConvClassifierConfig | ResidualClassifierConfig) -> None:
    classifier = build_classifier(architecture, 2, SHAPE, (0.5,) * 3, (0.2,) * 3)
    fresh = fresh_copy(classifier, (0.0,) * 3, (1.0,) * 3)
    assert type(fresh.network) is type(classifier)
    assert torch.equal(fresh.network.mean, classifier.mean)
    assert not torch.equal(fresh.network.head.weight, classifier.head.weight)
    assert fresh(torch.rand(5, *SHAPE, generator=torch_rng(1))).shape == (5, 2)


def test_what_cannot_be_made_anew_has_a_stated_stand_in() -> None:
    for classifier, asked in ((adapt(Token(), SHAPE, 2), False), (adapt(ConvNet(num_classes=2), SHAPE, 2), True)):
        fresh = fresh_copy(classifier, (0.25,) * 3, (0.5,) * 3, stand_in=asked)
        name = "ConvNet" if asked else "Token"
        assert fresh.architecture == f"a convolutional stand-in (32-64 channels) for {name}"
        assert isinstance(fresh, FreshClassifier)
        assert fresh.network.mean.flatten().tolist() == [0.25] * 3
        assert fresh(torch.rand(5, *SHAPE, generator=torch_rng(1))).shape == (5, 2)


class Auxiliary(ConvNet):
    """Scores of a second head, too, in training mode."""

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return (logits, -logits) if self.training else logits


def test_a_network_with_other_heads_in_training_has_a_stated_stand_in() -> None:
    network = Auxiliary(num_classes=2)
    fresh = fresh_copy(adapt(network, SHAPE, 2), (0.25,) * 3, (0.5,) * 3)
    assert fresh.architecture == "a convolutional stand-in (32-64 channels) for Auxiliary"
    assert int(network.convolutions[1].num_batches_tracked) == 0


class InEvaluation(ConvNet):
    """Logits in training mode, and what a function makes of them in evaluation mode."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(num_classes=2)
        self.function = function

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return logits if self.training else self.function(logits)


@pytest.mark.parametrize("output", ["auto", "sigmoid"])
def test_scores_of_another_kind_in_training_are_told(output: Literal["auto", "sigmoid"]) -> None:
    """Logits taken for probabilities would hardly train."""
    made: list[Tensor] = []
    for function in (lambda x: x, torch.sigmoid if output == "sigmoid" else lambda x: x.softmax(dim=1)):
        seed_torch(4)
        network = InEvaluation(function)
        nn.init.normal_(network.out.weight)
        seed_torch(5)
        fresh = fresh_copy(adapt(network, SHAPE, 2, AdapterConfig(output=output)), (0.0,) * 3, (1.0,) * 3)
        assert fresh.architecture == "InEvaluation, the audited architecture"
        images = torch.rand(6, *SHAPE, generator=torch_rng(1))
        seed_torch(6)
        made += [fresh.train()(images), fresh.eval()(images)]
    assert torch.equal(made[0], made[2])
    differences = made[1] - made[3]  # a soft-max loses what all scores have in common
    assert torch.allclose(differences, differences[:, :1], atol=1e-4)


class Forgetful(nn.Linear):
    """Its bias stays as training made it."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda network: nn.utils.weight_norm(network.out),
        lambda network: nn.utils.spectral_norm(network.out),
        lambda network: prune.l1_unstructured(network.out, "weight", 0.3),
        lambda network: nn.utils.parametrizations.weight_norm(network.out),
        lambda network: setattr(network, "out", Forgetful(24, 2)),
        lambda network: setattr(network.out, "reset_parameters", lambda gain: None),
        lambda network: network.convolutions.insert(1, FrozenBatchNorm2d(8)),
    ],
    ids=["weight norm", "spectral norm", "pruned", "parametrised", "forgetful", "demanding", "frozen norm"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_copy_that_keeps_a_trained_weight_is_no_fresh_one(change: Callable[[ConvNet], object]) -> None:
    network = ConvNet(num_classes=2)
    change(network)
    fresh = fresh_copy(adapt(network, SHAPE, 2), (0.25,) * 3, (0.5,) * 3)
    assert fresh.architecture == "a convolutional stand-in (32-64 channels) for ConvNet"
    seed_torch(3)
    first = fresh_copy(adapt(network, SHAPE, 2), (0.25,) * 3, (0.5,) * 3).state_dict()
    seed_torch(3)  # the stand-in is the same whether anything else was tried before it or not
    asked = fresh_copy(adapt(network, SHAPE, 2), (0.25,) * 3, (0.5,) * 3, stand_in=True).state_dict()
    assert all(torch.equal(first[name], asked[name]) for name in asked)
    assert all(bool(tensor.isfinite().all()) for tensor in fresh.state_dict().values())


class Rebuilt(nn.Linear):
    """It makes itself anew by new parameters."""

    def reset_parameters(self) -> None:
        self.weight = nn.Parameter(torch.randn(self.out_features, self.in_features) / 10)
        self.bias = nn.Parameter(torch.zeros(self.out_features))


def test_new_parameters_are_fresh_ones() -> None:
    network = ConvNet(num_classes=2)
    network.out = Rebuilt(24, 2)
    fresh = fresh_copy(adapt(network, SHAPE, 2), (0.25,) * 3, (0.5,) * 3)
    assert fresh.architecture == "ConvNet, the audited architecture"
    assert not torch.equal(fresh.network.out.weight, network.out.weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_of_other_precisions_learn_anew_in_float32(dtype: torch.dtype) -> None:
    network = ConvNet(num_classes=2).requires_grad_(False).eval().to(dtype)
    classifier = adapt(network, SHAPE, 2, AdapterConfig(mean=(0.4,) * 3, std=(0.3,) * 3))
    fresh = fresh_copy(classifier, (0.0,) * 3, (1.0,) * 3)
    assert fresh.network.out.weight.dtype == torch.float32
    assert network.out.weight.dtype == dtype
    *_, last = train_classifier(fresh, pictures(), ClassifierTrainingConfig(epochs=40, batch_size=16, lr=1e-2), 0)
    assert last["accuracy"] > 0.8
