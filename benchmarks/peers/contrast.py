"""Batches by a generator that is made anew for each, held apart by contrast with a memory of all earlier ones.

Source: Fang and others, Contrastive Model Inversion for Data-Free Knowledge Distillation (2021), equations 5 to 8,
without a student; the classifier's batch norms give statistics and features, and where it has none the penultimate
features are contrasted and there are no statistics.
Settings: the paper's code: contrast 0.8 at temperature 0.1, cross-entropy 1, memory of 4,096, head of 128, Adam with
betas 0.5 and 0.999, local views that crop 0.25 to 1. Ours: batches of 100, 100 steps, a rate of 0.01 (theirs is 0.1 or
0.001 by network), statistics 0.1, no mirror images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.perturbations import augment
from peers.base import BatchNormStatistics, Maker, balanced

BATCH, STEPS, RATE, MEMORY = 100, 100, 0.01, 4096
CONTRAST, TEMPERATURE, STATISTICS = 0.8, 0.1, 0.1


def contrast_loss(local: Tensor, whole: Tensor, num: int) -> Tensor:
    """How badly each image's two views are told from those of all others, a scalar.

    Args:
        local: Unit vectors of the local views, those of the batch before those of the memory, (N + M, D).
        whole: Likewise of the whole images.
        num: N. Batch and memory count as much as each other.
    """
    logits = local @ whole.detach().T / TEMPERATURE
    losses = F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")
    return losses[:num].mean() + losses[num:].mean() if len(losses) > num else losses.mean()


class Contrast(Maker):
    """See the module."""

    def __init__(self, classifier: AdaptedClassifier, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.classifier = classifier
        self.rng = torch.Generator().manual_seed(seed)
        self.statistics = BatchNormStatistics(classifier)
        self.label = balanced(BATCH, classifier.num_classes)
        _, features = self._seen(torch.rand(2, *classifier.image_shape))
        dim = features.shape[1]
        self.memory = torch.zeros(2, 0, dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 128))
        self.of_head = torch.optim.Adam(self.head.parameters(), lr=RATE)
        self._begin()

    def _begin(self) -> None:
        config = GeneratorConfig(conditioning="embedding", dropout=0)
        self.generator = ConditionedGenerator(config, self.classifier.num_classes, self.classifier.image_shape)
        self.latent = torch.randn(BATCH, config.latent_dim, generator=self.rng).requires_grad_()
        parameters = [*self.generator.parameters(), self.latent]
        self.optimizer = torch.optim.Adam(parameters, lr=RATE, betas=(0.5, 0.999))
        self.step, self.best = 0, float("inf")

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K), and what is contrasted, (N, D)."""
        logits, features = self.classifier(images, return_features=True)
        means = self.statistics.means.values()
        return logits, torch.cat([part[: len(images)] for part in means], dim=1) if means else features

    def _cropped(self, images: Tensor) -> Tensor:
        """A window of a quarter to all of each image, stretched to its size."""
        share = 0.25 + 0.75 * torch.rand(len(images), 1, generator=self.rng)
        side = share.sqrt()[:, :, None]
        offset = (1 - side) * (2 * torch.rand(len(images), 2, 1, generator=self.rng) - 1)
        maps = torch.cat([torch.eye(2) * side, offset], dim=2)
        return F.grid_sample(images, F.affine_grid(maps, list(images.shape), align_corners=False), align_corners=False)

    def work(self) -> bool:
        """A step on the batch at hand."""
        images = self.generator(self.latent, F.one_hot(self.label, self.classifier.num_classes).float())
        logits, whole = self._seen(augment(images, 2, False, self.rng))
        loss = F.cross_entropy(logits, self.label) + STATISTICS * self.statistics.loss()
        _, local = self._seen(self._cropped(images))
        projected = [
            F.normalize(self.head(torch.cat([own, kept])), dim=1)
            for own, kept in zip((local, whole), self.memory, strict=True)
        ]
        loss = loss + CONTRAST * contrast_loss(projected[0], projected[1], BATCH)
        if float(loss.detach()) < self.best:
            self.best, self.images = float(loss.detach()), images.detach()
            self.kept = torch.stack([local, whole]).detach()
        self.optimizer.zero_grad(), self.of_head.zero_grad()
        loss.backward()
        self.optimizer.step(), self.of_head.step()
        self.step += 1
        if self.step == STEPS:
            self.finish()
            self.memory = torch.cat([self.memory, self.kept], dim=1)[:, -MEMORY:]
            self._begin()
        return True
