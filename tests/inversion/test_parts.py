"""A classifier that works on a batch in parts against one that is given all of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from draws import library_seed_torch
from torch import Tensor, nn

from netinv.classifiers import adapt
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, InversionTraining, JointTraining
from netinv.inversion.step import classify

SHAPE = (1, 9, 8)
SMALL = GeneratorConfig(latent_dim=4, hidden_dim=8, width=4, max_width=8)
EVERYTHING: dict[str, Any] = {
    "steps": 4,
    "batch_size": 12,
    "gamma": 1.0,
    "delta": 1.0,
    "total_variation": 0.3,
    "pixel_statistics": 1.0,
    "layer_statistics": 1.0,
    "latent_field": 1.0,
    "shift": 1,
    "distortion": 0.2,
    "epsilon_ramp": 0.0,
    "precision": "float32",
    "log_every": 1,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "noise": {"perturbation": "noise", "epsilon": 0.1},
    "pgd": {"perturbation": "pgd", "epsilon": 0.1, "attack_steps": 2},
    "l2": {"perturbation": "pgd", "epsilon": 0.5, "norm": "l2"},
    "own bounds": {"perturbation": "pgd", "epsilon": 0.1, "survival": 0.02},
}


class Counting(nn.Module):
    """A network of somebody else's, with batch norm, that notes how many images it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(168, 3))
        self.layers[1].running_mean.normal_(), self.layers[1].running_var.uniform_(0.5, 2)
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return self.layers(images)


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    """In float64, where rounding neither turns the sign of an attack nor grows through Adam's division."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(config: InversionConfig, size: int) -> tuple[list[Any], Tensor, list[int]]:
    """Records, final weights, and how many images the network was given each time."""
    library_seed_torch(0)
    network = Counting()
    classifier = adapt(network, SHAPE)
    network.sizes.clear()
    trainings = []
    for seed in range(size):
        library_seed_torch(seed)
        generator = ConditionedGenerator(SMALL, 3, SHAPE)
        trainings.append(InversionTraining(generator, classifier, config, seed))
    records = list(JointTraining(trainings) if size > 1 else trainings[0])
    weights = [parameter.detach().flatten() for t in trainings for parameter in t.generator.parameters()]
    return [r if isinstance(r, list) else [r] for r in records], torch.cat(weights), network.sizes


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 2])
def test_parts_give_the_training_of_the_whole_batch(name: str, size: int) -> None:
    whole = InversionConfig.model_validate(EVERYTHING | CASES[name])
    expected, weights, sizes = trained(whole, size)
    assert set(sizes) == {12 * size}
    for at_once in (*([1] if name == "plain" else []), 5, 12 * size - 1, 100):
        records, got, sizes = trained(whole.model_copy(update={"images_at_once": at_once}), size)
        torch.testing.assert_close(got, weights, rtol=1e-6, atol=1e-9)
        for own, others in zip(records, expected, strict=True):
            for one, other in zip(own, others, strict=True):
                assert one == pytest.approx(other, rel=1e-6)
        assert max(sizes) == max(2, min(at_once, 12 * size))  # an image alone is given twice


def test_an_image_alone_is_seen_as_it_is_in_company() -> None:
    library_seed_torch(0)
    classifier = adapt(Counting(), SHAPE)
    images = torch.rand(3, *SHAPE)
    alone = [classify(image[None], classifier, moments=True) for image in images]
    torch.testing.assert_close(tuple(map(torch.cat, zip(*alone, strict=True))), classify(images, classifier, True))


def test_a_part_is_computed_again_for_its_gradient_and_nothing_of_it_is_kept_before() -> None:
    config = InversionConfig.model_validate(EVERYTHING | {"steps": 1, "images_at_once": 4})
    *_, sizes = trained(config, 1)
    assert sizes == [4] * 6  # three parts, twice
    kept = []
    for at_once in (None, 2):
        library_seed_torch(0)
        network = Counting()
        classifier = adapt(network, SHAPE)
        training = InversionTraining(
            ConditionedGenerator(SMALL, 3, SHAPE), classifier, config.model_copy(update={"images_at_once": at_once}), 0
        )
        training.step = 1
        draws = training.draw()
        bytes_kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.numel() * (tensor.shape[1:2] == (4,) and tensor.shape[-2:] == (7, 6))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            training.loss(draws)
        kept.append(bytes_kept)
    assert kept[0] > 0
    assert kept[1] == 0
