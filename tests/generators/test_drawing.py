"""Images from a generator: the same for the same seed, and the generator left as it was, also when it fails."""

from contextlib import nullcontext

import pytest
import torch
from draws import seed_torch
from torch import Tensor

from netinv.generators import (
    ConditionedGenerator,
    GeneratorConfig,
    class_grid,
    draw_image_batches,
    draw_images,
    has_dropout,
)
from netinv.sampling import draw, grid

SHARPNESS = (1.0, 5.0)


def untrained(dropout: float = 0.2) -> ConditionedGenerator:
    seed_torch()
    return ConditionedGenerator(GeneratorConfig(width=4, latent_dim=8, dropout=dropout), 10, (1, 8, 8)).eval()


def images_of(generator: ConditionedGenerator, num: int, dropout: bool = False, batch_size: int = 100) -> Tensor:
    return draw_images(generator, num, seed=7, sharpness=SHARPNESS, dropout=dropout, batch_size=batch_size)[0]


def test_they_are_the_generators_images_of_the_seeds_draws() -> None:
    generator = untrained()
    labels = [3, 1] * 65
    images, vector = draw_images(generator, 130, seed=7, sharpness=SHARPNESS, labels=labels)
    latent, condition = draw(130, latent_dim=8, num_classes=10, seed=7, sharpness=SHARPNESS, labels=labels)
    with torch.no_grad():
        expected = generator(torch.from_numpy(latent), torch.from_numpy(condition))
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert torch.equal(vector, torch.from_numpy(condition))
    assert vector.argmax(dim=1).tolist() == labels
    assert images.is_contiguous()
    assert not images.requires_grad
    assert not torch.equal(draw_images(generator, 130, seed=8, sharpness=SHARPNESS)[1], vector)


def test_neither_the_batch_nor_the_number_nor_the_threads_change_an_image() -> None:
    generator = untrained()
    images = images_of(generator, 130)
    torch.testing.assert_close(images_of(generator, 130, batch_size=9), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(images_of(generator, 40), images[:40], rtol=0, atol=1e-5)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - threads if threads < 3 else 1)
    try:
        torch.testing.assert_close(images_of(generator, 130), images, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_a_batch_at_a_time_they_are_the_same() -> None:
    generator = untrained().train()
    state = torch.get_rng_state()
    for dropout in (False, True):
        batches = [*draw_image_batches(generator, 25, seed=7, sharpness=SHARPNESS, dropout=dropout, batch_size=10)]
        assert [len(images) for images, _ in batches] == [10, 10, 5]
        assert torch.equal(torch.cat([images for images, _ in batches]), images_of(generator, 25, dropout, 10))
        assert not any(images.requires_grad for images, _ in batches)
    first = draw_image_batches(generator, 25, seed=7, sharpness=SHARPNESS, batch_size=10)
    next(first)
    assert not any(module.training for module in generator.modules())
    first.close()
    assert all(module.training for module in generator.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_none_are_none_and_less_is_refused() -> None:
    images, vector = draw_images(untrained(), 0, seed=7, sharpness=SHARPNESS)
    assert (images.shape, vector.shape) == ((0, 1, 8, 8), (0, 10))
    with pytest.raises(ValueError, match="num >= 0"):
        draw_images(untrained(), -1, seed=7, sharpness=SHARPNESS)


def test_dropout_drops_the_same_channels_whatever_the_number() -> None:
    generator = untrained()
    plain, dropped = images_of(generator, 60), images_of(generator, 60, dropout=True)
    assert (plain - dropped).abs().max() > 1e-3
    for num in (60, 130, 300):
        torch.testing.assert_close(images_of(generator, num, dropout=True)[:60], dropped, rtol=0, atol=1e-5)
    assert has_dropout(generator)
    assert not has_dropout(untrained(dropout=0))


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_generator_is_left_as_it_was_also_when_it_fails(dropout: bool, fails: bool) -> None:
    generator = untrained().train()
    generator.up[1].eval()  # each module has a mode of its own
    if fails:
        generator.to_image = torch.nn.Conv2d(99, 1, 1)
    modes = [module.training for module in generator.modules()]
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError) if fails else nullcontext():
        images_of(generator, 3, dropout)
    assert [module.training for module in generator.modules()] == modes
    assert all(torch.equal(tensor, generator.state_dict()[name]) for name, tensor in before.items())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("rows", [2, 12])
def test_a_grid_has_a_row_for_each_class_of_so_many(rows: int) -> None:
    generator, labels = untrained(), [label for label in range(min(rows, 10)) for _ in range(3)]
    images, _ = draw_images(generator, len(labels), seed=7, sharpness=SHARPNESS, labels=labels)
    expected = grid([images.numpy()], len(labels), (1, 8, 8), 3, 2)
    assert (class_grid(generator, rows, 3, seed=7, sharpness=SHARPNESS, scale=2) == expected).all()
    assert expected.shape == (17 * min(rows, 10) - 1, 50)


def test_they_are_single_precision_whatever_torchs_default_is() -> None:
    single = untrained()
    expected = images_of(single, 20)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        generator = untrained()
        assert generator.to_image.weight.dtype == torch.float64
        generator.load_state_dict(single.state_dict())
        images, vector = draw_images(generator, 20, seed=7, sharpness=SHARPNESS)
    finally:
        torch.set_default_dtype(default)
    assert (images.dtype, vector.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
