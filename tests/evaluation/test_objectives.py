"""What a search makes large."""

import copy
from typing import Any

import pytest
import torch

from netinv.evaluation import OBJECTIVES, objectives


def measured(generator: Any, classifier: Any) -> dict[str, float]:
    return objectives(generator, classifier, (3.0, 3.0), samples_per_class=20, epsilon=0.02, attack_steps=2)


def test_a_generator_is_measured_and_left_as_it_was(exported: Any) -> None:
    generator = copy.deepcopy(exported.generators[0]).train()
    before = torch.get_rng_state()
    found = measured(generator, exported.classifier)
    assert generator.training
    assert torch.equal(before, torch.get_rng_state())
    assert tuple(found) == OBJECTIVES
    assert all(0 <= value <= 1 for value in found.values())
    assert found["accuracy"] >= found["robustness"]
    assert found == measured(generator, exported.classifier)


def test_images_that_are_all_alike_have_no_diversity(exported: Any) -> None:
    generator = copy.deepcopy(exported.generators[0])
    with torch.no_grad():
        generator.to_image.weight.zero_()
        generator.to_image.bias.zero_()  # every pixel is 0.5
    assert measured(generator, exported.classifier)["diversity"] == pytest.approx(0, abs=1e-6)
