"""Classifiers of different families and habits, each as its owner would have written it, with fresh weights."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

K = 10


class ConvNet(nn.Module):
    """Batch norm, no normalisation inside."""

    def __init__(self, in_channels: int = 3, num_classes: int = K) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.hidden = nn.Linear(64, 24)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(24, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        return F.relu(self.hidden(self.convolutions(images).flatten(1)))

    def forward(self, images: Tensor) -> Any:
        return self.out(self.dropout(self.embed(images)))


class Probabilities(ConvNet):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).softmax(dim=1)


class LogProbabilities(ConvNet):
    def forward(self, images: Tensor) -> Any:
        return F.log_softmax(super().forward(images), dim=1)


class PairOutput(ConvNet):
    """Logits and an embedding."""

    def forward(self, images: Tensor) -> Any:
        features = self.embed(images)
        return self.out(features), features


class NamedOutput(ConvNet):
    """Logits and a projection that is computed after them."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Any:
        features = self.embed(images)
        return {"logits": self.out(features), "projection": self.projection(features), "loss": None}


class InPlace(ConvNet):
    """Normalises its own input, and more, in place."""

    def forward(self, images: Tensor) -> Any:
        images.sub_(0.5).div_(0.25)
        x = self.convolutions(images).relu_().flatten(1)
        return self.out(self.hidden(x).relu_())

    def embed(self, images: Tensor) -> Tensor:
        return super().embed((images - 0.5) / 0.25)


class Branching(ConvNet):
    """Squeezes a batch of one, as code for a single image does."""

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return logits.squeeze(0) if len(images) == 1 else logits


class Residual(nn.Module):
    """Two blocks, batch norm, in-place activations, global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, padding=1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(inplace=True),
                nn.Conv2d(16, 16, 3, padding=1, bias=False),
                nn.BatchNorm2d(16),
            )
            for _ in range(2)
        )
        self.out = nn.Linear(16, K)

    def embed(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = F.relu_(x + block(x))
        return x.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Any:
        return self.out(self.embed(images))


class Transformer(nn.Module):
    """A tiny vision transformer with a class token."""

    def __init__(self, side: int = 16, dim: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (side // 4) ** 2 + 1, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, K)

    def embed(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position
        return self.norm(self.encoder(x))[:, 0]

    def forward(self, images: Tensor) -> Any:
        return self.head(self.embed(images))


class Perceptron(nn.Module):
    """Takes flat rows of pixels."""

    def __init__(self, pixels: int = 3 * 16 * 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(pixels, 64), nn.GELU(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, K))

    def embed(self, images: Tensor) -> Tensor:
        return self.layers[:-1](images.flatten(1))

    def forward(self, pixels: Tensor) -> Any:
        return self.layers(pixels)


class ConvHead(nn.Module):
    """Classifies with a 1x1 convolution and no linear layer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(12, K, 1)

    def embed(self, images: Tensor) -> Tensor:
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Any:
        return self.out(self.body(images)).mean(dim=(2, 3))


def resnet18() -> nn.Module:
    """Torchvision's, for ten classes."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=K)
    network.embed = lambda images: nn.Sequential(*list(network.children())[:-1], nn.Flatten())(images)
    return network


ZOO: dict[str, Callable[[], nn.Module]] = {
    "conv": ConvNet,
    "residual": Residual,
    "transformer": Transformer,
    "perceptron": Perceptron,
    "conv head": ConvHead,
    "torchvision": resnet18,
    "probabilities": Probabilities,
    "log probabilities": LogProbabilities,
    "pair": PairOutput,
    "mapping": NamedOutput,
    "in place": InPlace,
    "branching": Branching,
}
