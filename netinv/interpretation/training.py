"""Training a sparse auto-encoder on activations."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from netinv.core import BatchSize, Config, LearningRate, Seed, Steps, Weight, Width
from netinv.interpretation.autoencoder import SparseAutoencoder, loss

DEAD_AFTER = 20
"""Steps without a part in any reconstruction after which a unit counts as dead."""
RISE = 0.01
"""What is added to a dead unit's bias at every step, until it takes part again (as experts are balanced by Wang and
others, Auxiliary-loss-free load balancing, 2024). The auxiliary loss alone left a third of the units dead: it gives
them a direction, and no way past the units that are stronger."""


class DictionaryConfig(Config):
    """A dictionary and its training."""

    units: Width = 256
    """U, directions in it."""
    active: Annotated[int, Field(ge=1, le=4_096)] = 16
    """How many of them one activation may use, the bound on L0."""
    steps: Steps = 300
    batch_size: BatchSize = 256
    """Activations of a step."""
    lr: LearningRate = 0.003
    """Of Adam; it falls to 0 over the last fifth of the steps."""
    auxiliary: Weight = 0.03125
    """Weight of the loss that brings dead units back."""
    seed: Seed = 0
    """Of the first directions and of the order of the activations."""


def train_dictionary(rows: Tensor, config: DictionaryConfig, source: str = "") -> SparseAutoencoder:
    """A dictionary of activations. The seed fixes it; torch's global random state is not used.

    Args:
        rows: (N, D).
        config: Its size and training.
        source: Two controls go by names of their own. ``untrained`` is what training begins with, directions of
            activations drawn by chance; ``random`` has directions drawn from a normal distribution, which stay as they
            are while the encoder learns to use them.
    """
    rng = torch.Generator().manual_seed(config.seed)
    model = SparseAutoencoder.begin(rows.cpu(), config.units, config.active, rng).to(rows.device)
    if source == "random":
        model.redirect(torch.randn(model.decoder.shape, generator=rng).to(rows.device))
    model.decoder.requires_grad_(source != "random")
    steps = 0 if source == "untrained" else config.steps
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=True)
    fading = max(1, config.steps // 5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (config.steps - step) / fading))
    silent = torch.zeros(config.units, device=rows.device)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (config.batch_size,), generator=rng).to(rows.device)]
        found = loss(model, batch, silent > DEAD_AFTER)
        optimiser.zero_grad()
        torch.autograd.backward(found.reconstruction + config.auxiliary * found.auxiliary)
        optimiser.step()
        schedule.step()
        model.normalise()
        silent = (silent + 1).masked_fill(found.fired, 0)
        model.bias.data += RISE * (silent > DEAD_AFTER)
    return model.eval().requires_grad_(False)
