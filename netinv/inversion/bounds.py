"""How well each class is held in training, and an epsilon for each, which finds its own size."""

import torch
from torch import Tensor

from netinv.inversion.config import InversionConfig
from netinv.inversion.losses import Batch
from netinv.perturbations import reads_as

MEMORY = 64
"""Samples of a class that the average of its survival is about, once there have been so many."""

_STATE = ("epsilon", "surviving", "seen")


class ClassBounds:
    """Survival by class, and bounds of the perturbation: each grows while enough samples survive, and else shrinks.

    One bound for all gives classes up: where the classifier cannot hold a class within it, nothing of that class is
    learned. So a class begins with a bound of 0, and is asked for as much as it can give. What survives is the share
    of a class's samples that are read as asked, averaged over about its last ``MEMORY``. Where the settings name no
    survival, all classes share one bound, and only the survival is kept.

    Those of several generators are one object as well, which follows them all in one: each tensor is then (G, K).

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
        """Share of each class's samples that survive, (K,); 0 where there was none yet."""
        self.seen = torch.zeros(num_classes, device=device)
        """How much of that average is of samples, (K,): 0 before the first, then ever nearer to 1."""

    def of_samples(self, num: int) -> Tensor | None:
        """The bound of each class, once for each of a generator's samples: (N, K), of several generators (G N, K).

        ``None`` where the classes share one.
        """
        each = self.epsilon.reshape(-1, self.epsilon.shape[-1])  # (1, K) or (G, K)
        return each.repeat_interleave(num, dim=0) if self.config.survival else None

    @torch.no_grad()
    def follow(self, batch: Batch) -> Tensor:
        """Heed what survived in a step; returns the survival of the worst class so far, a scalar.

        The batch of several generators is (G, N, ...), and the result (G,).
        """
        survived = reads_as(batch.logits, batch.label).to(self.epsilon)
        count = torch.zeros_like(self.epsilon).scatter_add_(-1, batch.label, torch.ones_like(survived))
        right = torch.zeros_like(self.epsilon).scatter_add_(-1, batch.label, survived)
        share = 1 - (1 - 1 / MEMORY) ** count  # of the new samples in the average
        self.seen.lerp_(torch.ones_like(self.seen), share)
        # The first samples are all that there is, as in Adam's averages: or of many classes none would ever grow.
        self.surviving.lerp_(right / count.clamp(min=1), share / self.seen.clamp(min=1e-9))
        if self.config.survival:
            self._grow(count, batch.label.shape[-1])
        return self.surviving.where(self.seen > 0, torch.ones_like(self.seen)).amin(dim=-1)

    def _grow(self, count: Tensor, num: int) -> None:
        """Let the bounds grow or shrink after a step of so many samples, (K,) of the classes."""
        # As fast as one bound of all classes would grow, if each had its share of the batch.
        usual = num / count.shape[-1]
        rate = self.config.epsilon / max(1.0, self.config.epsilon_ramp * self.config.steps) * count / usual
        grown = self.epsilon + torch.where(self.surviving >= self.config.survival, rate, -rate)
        self.epsilon = grown.clamp(0, self.config.epsilon)

    def state_dict(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.epsilon, self.surviving, self.seen = (state[name].to(self.epsilon.device, copy=True) for name in _STATE)
