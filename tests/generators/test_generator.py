"""The conditioned generator: any number of classes, any image shape, each kind of conditioning."""

import itertools
from typing import Literal

import pytest
import torch
from draws import seed_torch, torch_rng
from torch import nn

from netinv.generators import ConditionedGenerator, GeneratorConfig, up_sizes
from netinv.generators.conditioning import matrix_size

SHAPES = [
    (2, (1, 16, 16)),
    (10, (1, 28, 28)),
    (10, (3, 32, 32)),
    (10, (3, 20, 33)),
    (10, (1, 10, 10)),
    (100, (3, 32, 32)),
    (1000, (1, 16, 16)),
    (1000, (3, 224, 224)),
    (4, (1, 1, 128)),
    (4, (3, 96, 3)),
    (2, (1, 9, 50)),
]
STORED = {
    (10, 28, 28): [(10, 10), (14, 14), (28, 28)],
    (10, 32, 32): [(10, 10), (16, 16), (32, 32)],
    (4, 8, 8): [(4, 4), (8, 8)],
    (10, 16, 16): [(10, 10), (16, 16)],
    (3, 16, 16): [(3, 3), (4, 4), (8, 8), (16, 16)],
    (10, 64, 64): [(10, 10), (16, 16), (32, 32), (64, 64)],
    (32, 224, 224): [(32, 32), (56, 56), (112, 112), (224, 224)],
    (10, 17, 23): [(10, 10), (17, 23)],
    (4, 17, 23): [(4, 4), (5, 6), (9, 12), (17, 23)],
    (4, 64, 128): [(4, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128)],
    (5, 5, 5): [(5, 5), (5, 5)],
    (1, 1, 2): [(1, 1), (1, 2)],
}
"""Sizes from M x M up to images that are at most twice as long as wide."""


def draw(generator: ConditionedGenerator, num: int = 3, seed: int = 0) -> torch.Tensor:
    rng = torch_rng(seed)
    vector = torch.randn(num, generator.num_classes, generator=rng).softmax(dim=1)
    return generator(torch.randn(num, generator.config.latent_dim, generator=rng), vector)


@pytest.mark.parametrize("conditioning", ["vector_matrix", "vector", "embedding"])
@pytest.mark.parametrize(("num_classes", "shape"), SHAPES)
def test_images_have_the_shape_and_gradients_reach_every_weight(
    num_classes: int, shape: tuple[int, int, int], conditioning: Literal["vector_matrix", "vector", "embedding"]
) -> None:
    seed_torch(0)
    generator = ConditionedGenerator(GeneratorConfig(conditioning=conditioning, width=4), num_classes, shape)
    images = draw(generator)
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 1
    (images * torch.rand_like(images)).sum().backward()
    for name, weight in generator.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("conditioning", ["vector_matrix", "vector", "embedding"])
def test_what_the_conditioning_sees(conditioning: Literal["vector_matrix", "vector", "embedding"]) -> None:
    seed_torch(0)
    generator = ConditionedGenerator(GeneratorConfig(conditioning=conditioning), 4, (1, 8, 8)).eval()
    latent = torch.randn(1, 64)
    soft, hard, other = torch.tensor([[[0.1, 0.5, 0.2, 0.2]], [[0.0, 1.0, 0.0, 0.0]], [[0.5, 0.1, 0.2, 0.2]]])
    with torch.no_grad():
        images = [generator(latent, vector) for vector in (soft, hard, other)]
    same_label_same_image = torch.equal(images[0], images[1])
    assert same_label_same_image == (conditioning == "embedding")  # an embedding is blind to all but the label
    assert not torch.equal(images[0], images[2])


def test_the_matrix_tells_labels_apart_where_the_vector_hardly_does() -> None:
    seed_torch(0)
    left, right = torch.tensor([[[0.5001, 0.4999]], [[0.4999, 0.5001]]])
    distance = {}
    for conditioning in ("vector_matrix", "vector"):
        generator = ConditionedGenerator(GeneratorConfig(conditioning=conditioning), 2, (1, 16, 16)).eval()
        latent = torch.randn(1, 64)
        with torch.no_grad():
            distance[conditioning] = (generator(latent, left) - generator(latent, right)).abs().mean()
    assert distance["vector_matrix"] > 20 * distance["vector"]


@pytest.mark.parametrize(("num_classes", "shape"), SHAPES)
def test_up_sizes_lead_from_the_matrix_to_the_image(num_classes: int, shape: tuple[int, int, int]) -> None:
    size = matrix_size(num_classes, *shape[1:])
    sizes = up_sizes(size, *shape[1:])
    assert sizes[0] == (size, size)
    assert sizes[-1] == shape[1:]
    assert len(sizes) >= 2
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize(("size", "height", "width"), STORED)
def test_sizes_by_which_generators_are_stored_stay(size: int, height: int, width: int) -> None:
    expected = STORED[size, height, width]
    assert up_sizes(size, height, width) == expected
    assert up_sizes(size, width, height) == [(across, down) for down, across in expected]


@pytest.mark.parametrize("height", [1, 2, 3, 12, 17, 100])
@pytest.mark.parametrize("width", [1, 2, 5, 64, 200, 1000])
def test_no_step_stretches_a_side_far(height: int, width: int) -> None:
    """One that does draws that side as constant, since convolutions see three pixels."""
    for size in range(1, min(height, width) + 1):
        first, *others = [
            max(after / before for before, after in zip(*step, strict=True))
            for step in itertools.pairwise(up_sizes(size, height, width))
        ]
        assert first < 4
        assert max(others, default=0) <= 2


def test_a_stored_generators_transposed_convolutions_stay() -> None:
    """The first step, from 4 x 4 to 4 x 8, doubles one side alone, and is resized."""
    config = GeneratorConfig(upsampling="transposed", width=4, max_width=4)
    up = ConditionedGenerator(config, 4, (1, 64, 128)).up[::4]
    assert [type(layer) for layer in up] == [nn.Sequential, *[nn.ConvTranspose2d] * 4]


def test_transposed_convolutions_double_the_long_side_alone() -> None:
    config = GeneratorConfig(upsampling="transposed", width=4, max_width=4)
    first, *others = ConditionedGenerator(config, 3, (1, 3, 50)).up[::4]
    assert not isinstance(first, nn.ConvTranspose2d)
    found = [(layer.kernel_size, layer.stride) for layer in others if isinstance(layer, nn.ConvTranspose2d)]
    assert found == [(kernel, (1, 2)) for kernel in [(3, 3), (3, 3), (3, 3), (3, 4)]]  # to 3 x 7, 13, 25 and 50


def test_dropout_varies_images_in_training_mode_only() -> None:
    seed_torch(0)
    generator = ConditionedGenerator(GeneratorConfig(dropout=0.5), 3, (1, 12, 12))
    with torch.no_grad():
        assert not torch.equal(draw(generator), draw(generator))
        generator.eval()
        assert torch.equal(draw(generator), draw(generator))
        assert torch.equal(draw(generator, 6)[:2], draw(generator, 6)[:2])


def test_latent_and_batch_neighbours() -> None:
    """In evaluation mode an image depends on its own latent and condition, and on nothing else in the batch."""
    seed_torch(0)
    generator = ConditionedGenerator(GeneratorConfig(), 3, (1, 12, 12)).eval()
    latent, vector = torch.randn(5, 64), torch.randn(5, 3).softmax(dim=1)
    with torch.no_grad():
        together = generator(latent, vector)
        alone = generator(latent[2:3], vector[2:3])
        moved = generator(latent[2:3] + 1, vector[2:3])
    torch.testing.assert_close(together[2:3], alone)
    assert (moved - alone).abs().max() > 1e-3
