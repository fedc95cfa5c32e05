"""What the methods have in common: how they are asked for work and for images, and where single images are kept."""

from typing import Protocol

import torch
from torch import Tensor, nn


class Inversion(Protocol):
    """One method on one network."""

    made: int | None
    """Finished images, each to be had once; ``None`` for what draws as many as one likes."""

    def work(self) -> bool:
        """Do a little, a second at most; whether there is more to do."""

    def sample(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] for labels (N,), as it stands, and their labels.

        What keeps single images gives those that it has, which may be fewer.
        """


class Maker:
    """What makes single images, a batch at a time."""

    images: Tensor
    """The batch at hand, (N, C, H, W)."""
    label: Tensor
    """(N,), int64."""

    def __init__(self) -> None:
        self.finished: list[tuple[Tensor, Tensor]] = []

    @property
    def made(self) -> int:
        """Finished images."""
        return sum(len(label) for _, label in self.finished)

    def finish(self) -> None:
        """Keep the batch at hand."""
        self.finished.append((self.images.detach(), self.label))

    def sample(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The first finished images of each class, as many as labels (N,) ask for and there are, and their labels.

        Before there are any, those of the batch at hand.
        """
        images, labels = map(torch.cat, zip(*(self.finished or [(self.images.detach(), self.label)]), strict=True))
        wanted = label.bincount(minlength=int(labels.max()) + 1)
        rows = torch.cat([(labels == k).nonzero()[:, 0][: int(num)] for k, num in enumerate(wanted)])
        return images[rows], labels[rows]


def balanced(num: int, num_classes: int) -> Tensor:
    """Labels (num,), the classes in turn."""
    return torch.arange(num) % num_classes


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of (N, C, H, W), down plus across."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


class BatchNormStatistics:
    """How far what a network's batch norms see is from their running statistics, noted in the last call.

    Source: equation 4 of Yin and others, Dreaming to Distill (2020): over the layers, the length of the difference of
    means plus that of variances.
    """

    def __init__(self, network: nn.Module) -> None:
        self.layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        self.noted: dict[nn.Module, Tensor] = {}
        self.means: dict[nn.Module, Tensor] = {}
        """Of each layer's inputs, over the pixels of each image, (N, C)."""
        for layer in self.layers:
            layer.register_forward_pre_hook(self._note)

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        values = inputs[0].flatten(2) if inputs[0].ndim > 2 else inputs[0][:, :, None]  # (N, C, pixels)
        variance, mean = torch.var_mean(values, dim=(0, 2), correction=0)
        self.noted[layer] = (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()
        self.means[layer] = values.mean(dim=2)

    def loss(self) -> Tensor:
        """The sum over the layers, a scalar; 0 where there are none."""
        return torch.stack(list(self.noted.values())).sum() if self.noted else torch.zeros(())
