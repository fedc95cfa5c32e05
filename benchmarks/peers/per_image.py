"""Images by gradient descent on their own pixels, from noise, with total variation.

Sources: Kindermann and Linden, Inversion of neural networks by gradient descent (1990); Jensen and others, Inversion
of feedforward neural networks (1999). With transforms: Ghiasi and others, Plug-In Inversion (2022), of which
centring and zoom are left out, for which images of 28 pixels have no room, and so is its ensemble, which costs as many
times the time as it has members. With statistics: Yin and others, Dreaming to Distill (2020), DeepInversion without a
student.

Settings: 100 images at a time, 10 of each class, 200 steps of Adam at 0.05, clamped to [0, 1] after each, total
variation 0.1 (plain Adam and a batch as DeepInversion has them; its rate and weights are for 224 pixels). Transforms:
shifts by up to 2 pixels, colours scaled by exp(U(-1, 1)) and shifted by U(-1, 1). Statistics: weight 0.01.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.classifiers import AdaptedClassifier
from netinv.core import InputError
from netinv.perturbations import augment
from peers.base import BatchNormStatistics, Maker, balanced, total_variation

BATCH, STEPS, RATE = 100, 200, 0.05
SHIFT = 2


def color_shift(images: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Scale and offset (N, C, 1, 1) applied to images (N, C, H, W) as the network's normalisation has them."""
    return ((images - mean) / std * scale - offset) * std + mean


def image_loss(logits: Tensor, label: Tensor, images: Tensor, variation: float) -> Tensor:
    """Cross-entropy plus weighted total variation, a scalar."""
    return F.cross_entropy(logits, label) + variation * total_variation(images)


class PerImage(Maker):
    """See the module."""

    def __init__(
        self,
        classifier: AdaptedClassifier,
        seed: int,
        transforms: bool = False,
        statistics: bool = False,
        variation: float = 0.1,
        weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.classifier, self.transforms, self.variation, self.weight = classifier, transforms, variation, weight
        self.rng = torch.Generator().manual_seed(seed)
        self.statistics = BatchNormStatistics(classifier) if statistics else None
        if self.statistics and not self.statistics.layers:
            raise InputError("The network has no batch norms, whose statistics could be asked for.")
        self._begin()

    def _begin(self) -> None:
        """Noise for the next batch."""
        self.label = balanced(BATCH, self.classifier.num_classes)
        self.images = torch.rand(BATCH, *self.classifier.image_shape, generator=self.rng).requires_grad_()
        self.optimizer = torch.optim.Adam([self.images], lr=RATE)
        self.step = 0

    def _seen(self) -> Tensor:
        """The images as the network is shown them."""
        if not self.transforms:
            return self.images
        shape = BATCH, self.classifier.image_shape[0], 1, 1
        scale, offset = ((2 * torch.rand(shape, generator=self.rng) - 1) for _ in range(2))
        moved = augment(self.images, SHIFT, False, self.rng)
        return color_shift(moved, scale.exp(), offset, self.classifier.mean, self.classifier.std)

    def work(self) -> bool:
        """A step on the batch at hand."""
        loss = image_loss(self.classifier(self._seen()), self.label, self.images, self.variation)
        if self.statistics:
            loss = loss + self.weight * self.statistics.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.images.clamp_(0, 1)
        self.step += 1
        if self.step == STEPS:
            self.finish()
            self._begin()
        return True
