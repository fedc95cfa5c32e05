"""Sparse auto-encoders: activations as sums of few directions out of many (a dictionary)."""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class SparseAutoencoder(nn.Module):
    """A TopK auto-encoder: each activation is rebuilt from its ``active`` strongest units, and from no other.

    Of Gao and others, Scaling and evaluating sparse autoencoders (2024). It takes activations as the classifier gives
    them: their mean and deviation are part of it.

    Args:
        dim: D, length of an activation.
        units: U, directions in the dictionary.
        active: How many of them one activation may use, the bound on L0.
    """

    def __init__(self, dim: int, units: int, active: int) -> None:
        super().__init__()
        self.active = min(active, units)
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.encoder = nn.Parameter(torch.zeros(units, dim))
        self.bias = nn.Parameter(torch.zeros(units))
        self.decoder = nn.Parameter(torch.zeros(units, dim))

    @classmethod
    def begin(cls, rows: Tensor, units: int, active: int, rng: torch.Generator) -> Self:
        """An untrained one for activations like ``rows`` (N, D): its directions are those of rows drawn by chance.

        Directions from the data leave few units dead. What noise is in them tells the copies of one row apart.
        """
        model = cls(rows.shape[1], units, active)
        model.centre.copy_(rows.mean(dim=0))
        deviation = rows - model.centre
        model.scale.copy_(deviation.square().mean().sqrt())
        chosen = deviation[torch.randint(len(rows), (units,), generator=rng)] / model.scale
        chosen = chosen + 0.1 * torch.randn(chosen.shape, generator=rng)
        model.redirect(chosen)
        return model

    @torch.no_grad()
    def redirect(self, directions: Tensor) -> None:
        """Set decoder rows to the directions (U, D), and tie the encoder to them.

        Units that answer to one activation have much the same direction at first: each gives its share of the sum.
        """
        self.decoder.copy_(directions)
        self.normalise()
        self.encoder.copy_(self.decoder / self.active)

    @property
    def directions(self) -> Tensor:
        """What each unit adds to an activation when it is at 1, (U, D)."""
        return self.decoder.detach() * self.scale

    def pre(self, rows: Tensor) -> Tensor:
        """How strongly each unit answers to activations (N, D), before the choice of the strongest, (N, U)."""
        scaled = (rows - self.centre) / self.scale
        return torch.relu(scaled @ self.encoder.T + self.bias)

    def encode(self, rows: Tensor) -> Tensor:
        """Codes (N, U) of activations (N, D): not negative, at most ``active`` of them above 0 in a row."""
        return keep_top(self.pre(rows), self.active)

    def decode(self, codes: Tensor) -> Tensor:
        """Activations (N, D) of codes (N, U)."""
        return codes @ self.decoder * self.scale + self.centre

    def forward(self, rows: Tensor) -> Tensor:
        """Activations (N, D) rebuilt from their codes."""
        return self.decode(self.encode(rows))

    @torch.no_grad()
    def normalise(self) -> None:
        """Make every direction as long as 1: else a small code could hide behind a long one."""
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp(min=1e-8))


def keep_top(values: Tensor, num: int) -> Tensor:
    """The ``num`` largest values of each row, and 0 in place of all others."""
    if num >= values.shape[1]:
        return values
    top = values.topk(num, dim=1, sorted=False)
    return torch.zeros_like(values).scatter(1, top.indices, top.values)


class Loss(NamedTuple):
    """What one batch costs."""

    reconstruction: Tensor
    """As a share of the activations' variance."""
    auxiliary: Tensor
    """What the dead units fail to explain of the rest, as a share of the rest; 0 where none is dead."""
    fired: Tensor
    """Which units took part, (U,), bool."""


def loss(model: SparseAutoencoder, rows: Tensor, dead: Tensor) -> Loss:
    """The two terms for a batch of activations (N, D).

    Args:
        model: The auto-encoder.
        rows: Activations.
        dead: Units that have not taken part for long, (U,), bool. They alone rebuild what the others leave over, so
            that they get gradients again (the auxiliary loss of Gao and others, section 2.4).
    """
    pre = model.pre(rows)
    codes = keep_top(pre, model.active)
    rest = (rows - model.decode(codes)) / model.scale
    auxiliary = rest.new_zeros(())
    if bool(dead.any()):
        theirs = keep_top(pre[:, dead], max(1, rows.shape[1] // 2)) @ model.decoder[dead]
        left = rest.detach()
        auxiliary = (left - theirs).square().mean() / left.square().mean().clamp(min=1e-12)
    return Loss(rest.square().mean(), auxiliary, (codes > 0).any(dim=0))
