"""Whether the check and an inversion of two steps take a network, or refuse it alike."""

import re
from typing import Any

import pytest
from torch import nn

import netinv
from netinv.classifiers import AdapterConfig, check_classifier
from netinv.core import InputError
from netinv.generators import GeneratorConfig
from netinv.inversion import variant_config

SHAPE = (3, 16, 16)
SHORT = {"steps": 2, "batch_size": 50, "log_every": 1}
SMALL = GeneratorConfig(latent_dim=4, hidden_dim=120, width=4, max_width=8)


def invert(network: nn.Module, shape: Any = SHAPE, variant: str = "standard", **changes: Any) -> netinv.Inversion:
    config = variant_config(variant).model_copy(update=SHORT | {"pixel_statistics": 0.0})
    adapter = AdapterConfig(**changes)
    return netinv.invert(
        network, image_shape=shape, adapter=adapter, config=config, generator=SMALL, attempts=1, progress=False
    )


def usable(network: nn.Module, shape: Any = SHAPE, **changes: Any) -> None:
    """Check and inversion agree that it is."""
    report = check_classifier(network, shape, adapter=AdapterConfig(**changes))
    assert report.ok, report.findings
    inversion = invert(network, shape, **changes)
    assert len(inversion.history) == 2
    assert inversion.sample(2).shape == (2, *shape)


def refused(network: Any, message: str, shape: Any = SHAPE, **changes: Any) -> None:
    """Check and inversion say the same."""
    report = check_classifier(network, shape, adapter=AdapterConfig(**changes))
    told = " ".join(finding.message for finding in report.findings if finding.severity == "error")
    assert re.search(message, told), told
    with pytest.raises(InputError, match=message):
        invert(network, shape, **changes)
