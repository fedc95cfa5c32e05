"""Classifiers of different families and habits, each as its owner would have written it, with fresh weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


class Checkpointed(Residual):
    """Saves memory: what happens inside a block is computed again for its gradients."""

    def __init__(self, use_reentrant: bool = False) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)
        self.use_reentrant = use_reentrant

    def embed(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = F.relu(x + checkpoint(block, x, use_reentrant=self.use_reentrant))
        return checkpoint(self.mix, x.mean(dim=(2, 3)), use_reentrant=self.use_reentrant)


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


class ByView(nn.Module):
    """Flattens by view, as most tutorials do: it needs images that lie row by row in memory."""

    def __init__(self, in_channels: int = 3, num_classes: int = K, flatten: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 6, 5)
        self.flatten = flatten
        self.hidden = nn.Linear(6 * 6 * 6, 24)
        self.out = nn.Linear(24, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(images)), 2)
        x = x.view(x.size(0), -1) if self.flatten is None else self.flatten(x)
        return F.relu(self.hidden(x))

    def forward(self, images: Tensor) -> Any:
        return self.out(self.embed(images))


class PixelsByView(nn.Module):
    """A perceptron that flattens its images itself, with batch norm in place of biases."""

    def __init__(self, pixels: int = 3 * 16 * 16) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(pixels, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU())
        self.out = nn.Linear(32, K, bias=False)

    def embed(self, images: Tensor) -> Tensor:
        return self.hidden(images.view(images.size(0), -1))

    def forward(self, images: Tensor) -> Any:
        return self.out(self.embed(images))


class Reshape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 216)


class VGG(nn.Module):
    """Two blocks of two convolutions each, and a head with dropout."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width in ((3, 8), (8, 16)):
            for before in (channels, width):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(16 * 16, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, K))

    def embed(self, images: Tensor) -> Tensor:
        x = self.features(images)
        return self.classifier[:-1](x.view(x.size(0), -1))

    def forward(self, images: Tensor) -> Any:
        return self.classifier[-1](self.embed(images))


class PaddedShortcut(nn.Module):
    """A residual network for small images whose shortcut has no parameters: every second pixel, channels padded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.down_norm = nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, K)

    def embed(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(images)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(self.down_norm(self.down(x)) + shortcut)
        return F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1)

    def forward(self, images: Tensor) -> Any:
        return self.linear(self.embed(images))


class OtherNorms(nn.Module):
    """Group and layer norm, GELU and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 12, 3, stride=2), nn.GELU()
        )
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, K)

    def embed(self, images: Tensor) -> Tensor:
        return self.norm(self.body(images).mean((-2, -1)))

    def forward(self, images: Tensor) -> Any:
        return self.head(self.embed(images))


class ForwardFeatures(Transformer):
    """A vision transformer with its parts as methods, as timm has them."""

    def forward_features(self, images: Tensor) -> Tensor:
        return self.embed(images)

    def forward_head(self, x: Tensor) -> Tensor:
        return self.head(x)

    def forward(self, images: Tensor) -> Any:
        return self.forward_head(self.forward_features(images))


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class ObjectOutput(ConvNet):
    """Logits in an object."""

    def forward(self, images: Tensor) -> Any:
        return Output(super().forward(images))


class Segmentation(nn.Module):
    """Scores for each pixel."""

    def __init__(self, container: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, K, 3, padding=1)
        self.container = container

    def forward(self, images: Tensor) -> Any:
        return self.container(self.body(images))


class OneScore(ByView):
    """A binary classifier with one output.

    Args:
        sigmoid: Give its probability in place of the score.
        squeeze: Give (N,) in place of (N, 1).
    """

    def __init__(self, sigmoid: bool = True, squeeze: bool = False) -> None:
        super().__init__(num_classes=1)
        self.sigmoid, self.squeeze = sigmoid, squeeze

    def forward(self, images: Tensor) -> Any:
        scores = super().forward(images)
        scores = scores.sigmoid() if self.sigmoid else scores
        return scores.squeeze(1) if self.squeeze else scores


def resnet18() -> nn.Module:
    """Torchvision's, for ten classes."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=K)
    network.embed = lambda images: nn.Sequential(*list(network.children())[:-1], nn.Flatten())(images)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv": ConvNet,
    "residual": Residual,
    "checkpointed": Checkpointed,
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
    "by view": ByView,
    "nn.Flatten": lambda: ByView(flatten=nn.Flatten()),
    "reshape": lambda: ByView(flatten=Reshape()),
    "pixels by view": PixelsByView,
    "vgg": VGG,
    "padded shortcut": PaddedShortcut,
    "other norms": OtherNorms,
    "forward features": ForwardFeatures,
    "object": ObjectOutput,
}


class Bomb:
    """Tells whether it was unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.modules['exploded'] = sys",)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
