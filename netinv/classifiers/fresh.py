"""A classifier's architecture with fresh weights, to be trained again: what it would be on other images."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from netinv.classifiers.adapters import AdaptedClassifier
from netinv.classifiers.networks import ConvClassifierConfig, InvertibleClassifier, build_classifier

STAND_IN = ConvClassifierConfig()
"""What is trained in place of a network that cannot be given fresh weights."""


class FreshClassifier(nn.Module):
    """A network to be trained, which takes images in [0, 1] and gives logits as the classifier does that it came from.

    Args:
        network: With fresh weights.
        like: The classifier; its adapter, if it has one, says what the network takes and gives.
        architecture: What the network is, in words.
    """

    def __init__(self, network: nn.Module, like: InvertibleClassifier, architecture: str) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture
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
            return self._adapted[0].logits_through(self.network, images)
        logits: Tensor = self.network(images)
        return logits


def fresh_copy(
    classifier: InvertibleClassifier, mean: tuple[float, ...], std: tuple[float, ...], stand_in: bool = False
) -> FreshClassifier:
    """A classifier's own architecture with fresh weights, or a stated one in its place.

    Weights are made anew by the ``reset_parameters`` of each layer, from torch's random state. A network that holds a
    weight outside of such layers, or that is an exported program, cannot be made anew: a ``STAND_IN`` takes its place.

    Args:
        classifier: Is left as it is.
        mean: Per-channel mean of the training images, for a stand-in.
        std: Per-channel standard deviation, likewise.
        stand_in: Take the stand-in in any case.
    """
    network: Any = classifier.network if isinstance(classifier, AdaptedClassifier) else classifier
    name = type(network).__name__
    if not stand_in and isinstance(network, nn.Module) and _renewable(network):
        copied = copy.deepcopy(network).float().requires_grad_(True)
        for module in copied.modules():
            reset = _reset_of(module)
            if reset is not None:
                reset()
        return FreshClassifier(copied, classifier, f"{name}, the audited architecture")
    built = build_classifier(STAND_IN, classifier.num_classes, classifier.image_shape, mean, std)
    channels = "-".join(map(str, STAND_IN.channels))
    words = f"a convolutional stand-in ({channels} channels) for {name}"
    # Its own normalisation and logits: no adapter stands before it.
    built = built.to(classifier.device)
    return FreshClassifier(built, built, words)


def _renewable(network: nn.Module) -> bool:
    """Whether every weight belongs to a layer that can make it anew."""
    return all(
        _reset_of(module) is not None or not list(module.parameters(recurse=False)) for module in network.modules()
    )


def _reset_of(module: nn.Module) -> Any:
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
