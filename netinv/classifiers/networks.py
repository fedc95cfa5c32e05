"""The classifiers that this project trains: the paper's kind, to be inverted, and an independent evaluator.

Both take images in [0, 1], normalise them inside (so that a generator's sigmoid covers exactly the valid pixels and a
perturbation bound means the same everywhere), and give logits and penultimate features.
"""

from typing import Annotated, Any, Literal, Protocol, overload

import torch
from pydantic import Field
from torch import Tensor, nn

from netinv.core import Config, Depth, Dropout, Width


class ConvClassifierConfig(Config):
    """The paper's classifier: convolutions, LeakyReLU, dropout, fully connected layers."""

    kind: Literal["conv"] = "conv"
    channels: tuple[Width, ...] = Field((32, 64), min_length=1, max_length=12)
    """Output channels of each stage; a stage halves the image."""
    convs_per_stage: Depth = 1
    """3x3 convolutions in each stage."""
    feature_dim: Width = 128
    """D, width of the penultimate layer."""
    batch_norm: bool = True
    dropout: Dropout = 0.25


class ResidualClassifierConfig(Config):
    """The evaluator: a small residual network with global average pooling and no fully connected hidden layer."""

    kind: Literal["residual"] = "residual"
    channels: tuple[Width, ...] = Field((16, 32, 64), min_length=1, max_length=12)
    """Channels of each stage; every stage but the first halves the image. D is the last."""


ClassifierConfig = Annotated[ConvClassifierConfig | ResidualClassifierConfig, Field(discriminator="kind")]


class InvertibleClassifier(Protocol):
    """All that inversion asks of a classifier. :class:`Classifier` is one, and so is any network behind an adapter."""

    num_classes: int
    """K."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    mean: Tensor
    """Per-channel mean that it normalises images by, (1, C, 1, 1)."""
    std: Tensor
    """Per-channel standard deviation, likewise."""

    @property
    def device(self) -> torch.device:
        """Where images are expected."""

    def __call__(self, images: Tensor, return_features: bool = False) -> Any:
        """Logits (N, K) of images (N, C, H, W) in [0, 1], or (logits, features) with features (N, D)."""


class Classifier(nn.Module):
    """Normalise, embed, classify. The base of the two architectures below.

    Args:
        num_classes: K.
        image_shape: (C, H, W).
        feature_dim: D.
        mean, std: Per-channel statistics of the training images, in [0, 1] units.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        feature_dim: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.body: nn.Module
        self.head = nn.Linear(feature_dim, num_classes)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mean.device

    @overload
    def forward(self, images: Tensor) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, return_features: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images.

        Args:
            images: (N, C, H, W) in [0, 1].
            return_features: Also return the penultimate features, the input of the last linear layer.

        Returns:
            Logits (N, K), or (logits, features) with features (N, D).
        """
        features = self.body((images - self.mean) / self.std)  # (N, D)
        logits = self.head(features)  # (N, K)
        return (logits, features) if return_features else logits


class ConvClassifier(Classifier):
    """See :class:`ConvClassifierConfig`."""

    def __init__(
        self,
        config: ConvClassifierConfig,
        num_classes: int,
        image_shape: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(num_classes, image_shape, config.feature_dim, mean, std)
        self.config = config
        in_channels, height, width = image_shape
        layers: list[nn.Module] = []
        for channels in config.channels:
            for _ in range(config.convs_per_stage):
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1, bias=not config.batch_norm))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.LeakyReLU(0.1))
                in_channels = channels
            layers += [nn.MaxPool2d(2, ceil_mode=True), nn.Dropout(config.dropout)]
            height, width = -(-height // 2), -(-width // 2)
        layers += [
            nn.Flatten(),
            nn.Linear(in_channels * height * width, config.feature_dim),
            nn.LeakyReLU(0.1),
            nn.Dropout(config.dropout),
        ]
        self.body = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class ResidualClassifier(Classifier):
    """See :class:`ResidualClassifierConfig`."""

    def __init__(
        self,
        config: ResidualClassifierConfig,
        num_classes: int,
        image_shape: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(num_classes, image_shape, config.channels[-1], mean, std)
        self.config = config
        stem = config.channels[0]
        layers: list[nn.Module] = [
            nn.Conv2d(image_shape[0], stem, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
        ]
        in_channels = stem
        for i, channels in enumerate(config.channels):
            layers.append(_ResidualBlock(in_channels, channels, stride=1 if i == 0 else 2))
            in_channels = channels
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)


def build_classifier(
    config: ConvClassifierConfig | ResidualClassifierConfig,
    num_classes: int,
    image_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ConvClassifier | ResidualClassifier:
    """The classifier that a configuration describes, with fresh weights."""
    if isinstance(config, ConvClassifierConfig):
        return ConvClassifier(config, num_classes, image_shape, mean, std)
    return ResidualClassifier(config, num_classes, image_shape, mean, std)


def freeze(classifier: nn.Module) -> nn.Module:
    """Evaluation mode and no gradients for its parameters; returns the same module."""
    return classifier.eval().requires_grad_(False)
