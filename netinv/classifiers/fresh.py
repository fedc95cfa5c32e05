"""A classifier's architecture with fresh weights, to be trained again: what it would be on other images."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from netinv.classifiers.adapters import AdaptedClassifier
from netinv.classifiers.inputs import probe_images
from netinv.classifiers.networks import ConvClassifierConfig, InvertibleClassifier, build_classifier
from netinv.classifiers.outputs import OutputKind, to_logits

STAND_IN = ConvClassifierConfig()
"""What is trained in place of a network that cannot be given fresh weights."""
TRAINED = {"weight", "bias", "running_mean", "running_var"}
"""Buffers that training has made, such as those of a frozen batch norm; others are taken for constants."""


class FreshClassifier(nn.Module):
    """A network to be trained, which takes images in [0, 1] and gives logits as the classifier does that it came from.

    Args:
        network: With fresh weights.
        like: The classifier; its adapter, if it has one, says what the network takes and gives.
        architecture: What the network is, in words.
        in_training: What it gives in training mode, which may be something else than in evaluation mode.
    """

    def __init__(
        self, network: nn.Module, like: InvertibleClassifier, architecture: str, in_training: OutputKind = "logits"
    ) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture
        self.in_training = in_training
        self.num_classes = like.num_classes
        self.image_shape = like.image_shape
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", like.mean)
        self.register_buffer("std", like.std)
        # In a tuple, so that the classifier is no part of this module, whose mode and gradients are set.
        self._adapted = (like,) if isinstance(like, AdaptedClassifier) else ()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mean.device

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        if self._adapted:
            scores = self._adapted[0].scores_through(self.network, images)
            return to_logits(scores, self.in_training if self.training else self._adapted[0].output)
        logits: Tensor = self.network(images)
        return logits


def fresh_copy(
    classifier: InvertibleClassifier, mean: tuple[float, ...], std: tuple[float, ...], stand_in: bool = False
) -> FreshClassifier:
    """A classifier's own architecture with fresh weights, or a stated one in its place.

    Weights are made anew by the ``reset_parameters`` of each layer, from torch's random state. Where a weight is left
    that no layer makes anew, as in an exported program or a layer that computes its weight from others
    (``weight_norm``, ``spectral_norm``, pruning), or the network's scores cannot be told in training mode, as beside
    those of auxiliary heads, a ``STAND_IN`` takes the place of the network.

    Args:
        classifier: Is left as it is.
        mean: Per-channel mean of the training images, for a stand-in.
        std: Per-channel standard deviation, likewise.
        stand_in: Take the stand-in in any case.
    """
    network: Any = classifier.network if isinstance(classifier, AdaptedClassifier) else classifier
    name = type(network).__name__
    in_training = None if stand_in else _kind_in_training(classifier)
    renewed = _renewed(network) if in_training else None
    if renewed is not None and in_training:
        return FreshClassifier(renewed, classifier, f"{name}, the audited architecture", in_training)
    built = build_classifier(STAND_IN, classifier.num_classes, classifier.image_shape, mean, std)
    channels = "-".join(map(str, STAND_IN.channels))
    words = f"a convolutional stand-in ({channels} channels) for {name}"
    # Its own normalisation and logits: no adapter stands before it.
    built = built.to(classifier.device)
    return FreshClassifier(built, built, words)


def _kind_in_training(classifier: InvertibleClassifier) -> OutputKind | None:
    """What its scores are in training mode, tried on a copy; ``None`` where that cannot be told."""
    if not isinstance(classifier, AdaptedClassifier):
        return "logits"
    device = classifier.device
    images = probe_images(classifier.image_shape).to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            scores = classifier.scores_through(copy.deepcopy(classifier.network).float().train(), images)
        except Exception:  # copying and training are code of the network's author, which may fail in any way
            return None
    return classifier.kind_of(scores)


@torch.no_grad()
def _renewed(network: nn.Module) -> nn.Module | None:
    """A copy in float32 of which nothing trained is left, or ``None``: what no layer makes anew stays NaN."""
    if any(_reset_of(module) is None and list(module.parameters(recurse=False)) for module in network.modules()):
        return None
    states = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    renewed = _made_anew(network)
    if renewed is None:  # the stand-in draws the same numbers as without this attempt
        torch.set_rng_state(states[0])
        torch.cuda.set_rng_state_all(states[1])
    return renewed


def _made_anew(network: nn.Module) -> nn.Module | None:
    try:
        renewed = copy.deepcopy(network).float().requires_grad_(True)
        for tensor in _trained(renewed):
            tensor.fill_(math.nan)
        for module in renewed.modules():
            if (reset := _reset_of(module)) is not None:
                reset()
    except Exception:  # copying and making anew are code of the network's author, which may fail in any way
        return None
    return None if any(bool(tensor.isnan().any()) for tensor in _trained(renewed)) else renewed


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def _trained(network: nn.Module) -> list[Tensor]:
    buffers = (buffer for name, buffer in network.named_buffers() if name.rpartition(".")[2] in TRAINED)
    return [*network.parameters(), *buffers]
