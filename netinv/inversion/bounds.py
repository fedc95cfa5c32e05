"""An epsilon for each class, which finds its own size."""

from typing import Self

import torch
from torch import Tensor

from netinv.inversion.config import InversionConfig
from netinv.inversion.losses import Batch

MEMORY = 64
"""Samples of a class that the average of its survival is about."""


class ClassBounds:
    """Bounds of the perturbation by class: each grows while enough of its samples survive, and shrinks while fewer do.

    One bound for all gives classes up: where the classifier cannot hold a class within it, nothing of that class is
    learned. So a class begins with a bound of 0, and is asked for as much as it can give. What survives is the share
    of a class's samples that are read as asked, averaged over about its last ``MEMORY``.

    Args:
        config: Says how large they may become, how fast, and at which survival.
        num_classes: K.
        device: Where the training is.
    """

    def __init__(self, config: InversionConfig, num_classes: int, device: torch.device) -> None:
        self.config = config
        self.epsilon = torch.zeros(num_classes, device=device)
        """Bound of each class, (K,)."""
        self.surviving = torch.zeros(num_classes, device=device)
        """Share of each class's samples that survive, (K,)."""

    @classmethod
    def of(cls, config: InversionConfig, num_classes: int, device: torch.device) -> Self | None:
        """Those of a training; ``None`` where its classes share one bound."""
        return cls(config, num_classes, device) if config.survival else None

    def of_samples(self, num: int) -> Tensor:
        """The bound of each class, once for each sample: (N, K)."""
        return self.epsilon.expand(num, -1)

    @torch.no_grad()
    def follow(self, batch: Batch) -> None:
        """Heed what survived in a step."""
        count, right = torch.zeros_like(self.epsilon), torch.zeros_like(self.epsilon)
        survived = (batch.logits.argmax(dim=1) == batch.label).to(count)
        count.index_add_(0, batch.label, torch.ones_like(survived))
        right.index_add_(0, batch.label, survived)
        share = 1 - (1 - 1 / MEMORY) ** count  # of the new samples in the average
        self.surviving.lerp_(right / count.clamp(min=1), share)
        # As fast as one bound of all classes would grow, if each had its share of the batch.
        usual = len(batch.label) / len(count)
        rate = self.config.epsilon / max(1.0, self.config.epsilon_ramp * self.config.steps) * count / usual
        grown = self.epsilon + torch.where(self.surviving >= self.config.survival, rate, -rate)
        self.epsilon = grown.clamp(0, self.config.epsilon)

    def state_dict(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        return {"epsilon": self.epsilon, "surviving": self.surviving}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.epsilon, self.surviving = (state[name].to(self.epsilon.device) for name in ("epsilon", "surviving"))
