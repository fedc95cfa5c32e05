"""Images and a trained network for the check's tests."""

import pytest
from coloured import CLASSES, coloured, normalise, trained
from draws import seed_torch
from foreign_networks import ConvNet
from torch import nn

from netinv.data import LabelledImages


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    return coloured(300, seed=1)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Trained as most are: normalised outside, in the order red, green, blue."""
    seed_torch(0)
    return trained(ConvNet(num_classes=CLASSES), normalise)
