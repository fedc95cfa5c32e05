"""The conditioned generator: any number of classes, any image shape, each kind of conditioning."""

import itertools
from typing import Literal

import pytest
import torch
from draws import seed_torch, torch_rng

from netinv.generators import ConditionedGenerator, GeneratorConfig, sample_condition, up_sizes
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
]


def draw(generator: ConditionedGenerator, num: int = 3, seed: int = 0) -> torch.Tensor:
    rng = torch_rng(seed)
    condition = sample_condition(num, generator.num_classes, rng)
    return generator(torch.randn(num, generator.config.latent_dim, generator=rng), condition.vector)


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
    latent, vector = torch.randn(5, 64), sample_condition(5, 3).vector
    with torch.no_grad():
        together = generator(latent, vector)
        alone = generator(latent[2:3], vector[2:3])
        moved = generator(latent[2:3] + 1, vector[2:3])
    torch.testing.assert_close(together[2:3], alone)
    assert (moved - alone).abs().max() > 1e-3
