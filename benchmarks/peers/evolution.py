"""A population that evolves towards a class and is kept apart on the way: many points at once, without gradients.

Sources: Reed and Marks, An evolutionary algorithm for function inversion and boundary marking (1995); Jensen and
others, Inversion of feedforward neural networks (1999), multi-element evolutionary inversion. The strategy is CMA-ES of
the package cma, with a diagonal covariance (Ros and Hansen 2008), since a full one of some hundred pixels takes longer.
Settings: 20 points, 60 generations for each class in turn, a first deviation of 0.3 around grey. Points are images of a
quarter of the side, enlarged; closeness counts 0.1.
"""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.classifiers import AdaptedClassifier
from peers.base import Maker

with warnings.catch_warnings(action="ignore"):  # it warns of what it would like to have, such as matplotlib
    import cma

POINTS, GENERATIONS, DEVIATION, CLOSENESS = 20, 60, 0.3, 0.1


def fitness(logits: Tensor, label: Tensor, points: Tensor) -> Tensor:
    """Cross-entropy of each point, and how close it is to its nearest neighbour: smaller is better, (N,).

    Args:
        logits: (N, K).
        label: The class that is wanted, (N,).
        points: (N, D), in [0, 1]. Closeness is exp(-root of the mean squared difference).
    """
    apart = torch.cdist(points, points) / points.shape[1] ** 0.5
    apart.fill_diagonal_(float("inf"))
    return F.cross_entropy(logits, label, reduction="none") + CLOSENESS * torch.exp(-apart.min(dim=1).values)


class Evolution(Maker):
    """See the module."""

    def __init__(self, classifier: AdaptedClassifier, seed: int) -> None:
        super().__init__()
        self.classifier, self.seed = classifier, seed
        channels, height, width = classifier.image_shape
        self.coarse = channels, height // 4, width // 4
        self.run = 0
        self._begin()

    def _begin(self) -> None:
        channels, height, width = self.coarse
        self.label = torch.full((POINTS,), self.run % self.classifier.num_classes)
        self.run += 1
        options = {
            "popsize": POINTS,
            "CMA_diagonal": True,
            "bounds": [0, 1],
            "seed": 1 + self.seed * 1_000_003 + self.run,  # 0 would be the time of day
            "verbose": -9,
        }
        self.strategy = cma.CMAEvolutionStrategy(channels * height * width * [0.5], DEVIATION, options)
        self.generation = 0

    @torch.no_grad()
    def work(self) -> bool:
        """A generation."""
        asked = self.strategy.ask()
        points = torch.from_numpy(np.stack(asked)).float()
        self.images = F.interpolate(points.view(-1, *self.coarse), self.classifier.image_shape[1:], mode="bilinear")
        self.strategy.tell(asked, fitness(self.classifier(self.images), self.label, points).tolist())
        self.generation += 1
        if self.generation == GENERATIONS:
            self.finish()
            self._begin()
        return True
