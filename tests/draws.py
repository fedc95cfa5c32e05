"""Random states of the tests' own draws: what a test shows must hold for any of them.

``NETINV_TEST_SEED=7 pytest`` runs the same tests on other data, other weights and other labels.
"""

import os

import numpy as np
import torch

SEED = int(os.environ.get("NETINV_TEST_SEED", "0"))
"""Moves every seed below; at 0 a seed is itself."""


def _moved(seed: int) -> int:
    return seed + 100_003 * SEED


def torch_rng(seed: int = 0) -> torch.Generator:
    """Random state for torch's functions, on the CPU."""
    return torch.Generator().manual_seed(_moved(seed))


def numpy_rng(seed: int = 0) -> np.random.Generator:
    """Random state for numpy."""
    return np.random.default_rng(_moved(seed))


def seed_torch(seed: int = 0) -> None:
    """Set torch's global random state, for weights and dropout."""
    torch.manual_seed(_moved(seed))


def library_torch_rng(seed: int) -> torch.Generator:
    """The random state that the library makes of a seed: for a test that draws what the library draws."""
    return torch.Generator().manual_seed(seed)


def library_numpy_rng(seed: int) -> np.random.Generator:
    """Likewise for numpy."""
    return np.random.default_rng(seed)


def library_seed_torch(seed: int) -> None:
    """Likewise of torch's global state."""
    torch.manual_seed(seed)
