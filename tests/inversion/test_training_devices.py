"""Where a training's tensors come to lie: beside its generator, whatever torch's default device is."""

from typing import Any, Literal

import pytest
import torch
from draws import seed_torch

from netinv.classifiers import ConvClassifierConfig, build_classifier, freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, InversionTraining, JointTraining, variant_config

TERMS: dict[str, Any] = {"latent_field": 1.0, "pixel_statistics": 1.0, "layer_statistics": 1.0}
"""Of the loss, beyond those that both variants have."""


@pytest.mark.parametrize("variant", ["standard", "robust"])
@pytest.mark.parametrize("generators", [1, 2])
def test_a_default_device_changes_nothing(variant: Literal["standard", "robust"], generators: int) -> None:
    """``meta`` is a device that computes nothing: what lies there by mistake is told at once."""
    shape = (3, 8, 8)
    seed_torch(0)
    classifier = build_classifier(
        ConvClassifierConfig(channels=(8,), feature_dim=16), 3, shape, (0.5,) * 3, (0.25,) * 3
    )
    freeze(classifier)
    small = {**TERMS, "steps": 4, "batch_size": 12, "log_every": 2}
    config = InversionConfig(**variant_config(variant).model_copy(update=small).model_dump())

    def trained() -> tuple[list[Any], list[torch.Tensor]]:
        with torch.device("cpu"):
            seed_torch(0)
            architecture = GeneratorConfig(
                latent_dim=32, hidden_dim=30, width=8, max_width=16, bending=0.05, softening=0.5, toning=0.5
            )
            fresh = [ConditionedGenerator(architecture, 3, shape) for _ in range(generators)]
        trainings = [InversionTraining(generator, classifier, config, seed) for seed, generator in enumerate(fresh)]
        records = list(JointTraining(trainings)) if generators > 1 else list(trainings[0])
        return records, [weights.detach() for generator in fresh for weights in generator.parameters()]

    expected = trained()
    with torch.device("meta"):
        found = trained()
    assert found[0] == expected[0]
    assert len(found[1]) == len(expected[1]) > 5
    assert all(map(torch.equal, found[1], expected[1]))
