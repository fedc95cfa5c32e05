"""Augmentations: each sample its own, against plain implementations."""

import math

import pytest
import torch
from draws import torch_rng

from netinv.core import InputError
from netinv.perturbations import (
    affine,
    augment,
    check_shift,
    color_jitter,
    draw_maps,
    draw_offsets,
    random_affine,
    translate,
)


def test_augment_shifts_and_mirrors_each_image_by_itself() -> None:
    images = torch.zeros(200, 2, 5, 6)
    images[:, :, 2, 2] = 1
    moved = augment(images, shift=1, flip=True, rng=torch_rng(0))
    assert moved.shape == images.shape
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.full((200,), 2.0))  # still one pixel in both channels
    assert torch.equal(moved[:, 0], moved[:, 1])
    places = {divmod(int(i), 6) for i in moved[:, 0].flatten(1).argmax(dim=1)}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3, 4)}  # 2 +- 1, or 3 +- 1 mirrored
    assert augment(images, shift=0, flip=False, rng=torch.Generator()) is images


def test_distort_moves_each_image_by_itself_and_leaves_black() -> None:
    images = torch.ones(100, 3, 12, 10)
    rng = torch_rng(0)
    moved = random_affine(images, 0.5, rng)
    assert moved.shape == images.shape
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1 + 1e-6
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert len({float(m) for m in moved.mean(dim=(1, 2, 3))}) > 50  # zoomed in nothing is black, and zoomed out much
    assert float(moved[:, :, 6, 5].min()) > 0.99  # the middle stays within
    torch.testing.assert_close(random_affine(images, 1e-6, rng)[:, :, 1:-1, 1:-1], images[:, :, 1:-1, 1:-1])
    again = augment(images, 0, False, torch_rng(0), distortion=0.5)
    assert torch.equal(again, moved)


def test_distort_is_the_affine_map_of_each_image() -> None:
    # An independent plain implementation: bilinear interpolation, pixel by pixel.
    images = torch.rand(4, 1, 5, 6, generator=torch_rng(1))
    moved = random_affine(images, 0.4, torch_rng(2))
    change = 0.4 * (2 * torch.rand(4, 2, 3, generator=torch_rng(2)) - 1)
    for n in range(4):
        for row in range(5):
            for column in range(6):
                x, y = (2 * column + 1) / 6 - 1, (2 * row + 1) / 5 - 1
                a, b, c = (float(v) for v in change[n, 0])
                d, e, f = (float(v) for v in change[n, 1])
                across = ((1 + a) * x + b * y + c / 2 + 1) * 3 - 0.5
                down = (d * x + (1 + e) * y + f / 2 + 1) * 2.5 - 0.5
                value = 0.0
                for i in (math.floor(down), math.floor(down) + 1):
                    for j in (math.floor(across), math.floor(across) + 1):
                        if 0 <= i < 5 and 0 <= j < 6:
                            value += (1 - abs(down - i)) * (1 - abs(across - j)) * float(images[n, 0, i, j])
                assert float(moved[n, 0, row, column]) == pytest.approx(value, abs=1e-5)


def test_color_jitter_keeps_what_is_drawn_and_its_range() -> None:
    images = torch.rand(400, 3, 4, 5, generator=torch_rng(0))
    other = color_jitter(images, torch_rng(1))
    assert other.shape == images.shape
    assert 0 <= float(other.min()) < 0.05
    assert 0.95 < float(other.max()) <= 1
    # Each image's pixels are a straight line of what they were, and the slopes spread over -1 to 1.
    before, after = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (images, other))
    slope = (before * after).sum(dim=1) / before.square().sum(dim=1)
    torch.testing.assert_close(after, slope[:, None] * before, atol=1e-5, rtol=0)
    assert float(slope.min()) < -0.95
    assert float(slope.max()) > 0.95
    assert 0.4 < float((slope < 0).float().mean()) < 0.6


def test_translate_takes_the_window_that_the_offsets_name() -> None:
    images = torch.rand(5, 2, 4, 6, generator=torch_rng(0))
    offsets = torch.tensor([[0, 0], [2, 2], [4, 4], [1, 4], [3, 0]])
    moved = translate(images, offsets, 2)
    for n, (down, across) in enumerate(offsets.tolist()):
        for row in range(4):
            for column in range(6):
                i, j = min(max(row + down - 2, 0), 3), min(max(column + across - 2, 0), 5)
                assert torch.equal(moved[n, :, row, column], images[n, :, i, j])


def test_draws_have_their_shape_and_cover_their_range() -> None:
    offsets = draw_offsets(3000, 2, torch_rng(0))
    assert offsets.shape == (3000, 2)
    assert offsets.dtype == torch.int64
    counts = torch.bincount(offsets[:, 0] * 5 + offsets[:, 1])
    assert counts.shape == (25,)
    assert counts.min() > 60  # 120 +- 11
    maps = draw_maps(2000, torch_rng(1))
    assert maps.shape == (2000, 2, 3)
    assert -1 <= float(maps.min()) < -0.99
    assert 0.99 < float(maps.max()) <= 1
    assert maps.mean(dim=0).abs().max() < 0.06


def test_what_is_drawn_is_what_is_used() -> None:
    images = torch.rand(6, 1, 7, 5, generator=torch_rng(0))
    by_hand = translate(images, draw_offsets(6, 2, torch_rng(3)), 2)
    assert torch.equal(augment(images, 2, False, torch_rng(3)), by_hand)
    by_hand = affine(images, draw_maps(6, torch_rng(4)), 0.3)
    assert torch.equal(random_affine(images, 0.3, torch_rng(4)), by_hand)
    rng, same = torch_rng(5), torch_rng(5)
    mirrored = torch.rand(6, generator=rng) < 0.5
    expected = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    expected = affine(translate(expected, draw_offsets(6, 1, rng), 1), draw_maps(6, rng), 0.2)
    assert torch.equal(augment(images, 1, True, same, 0.2), expected)
    assert torch.equal(affine(images, torch.zeros(6, 2, 3), 0.3), affine(images, torch.ones(6, 2, 3), 0.0))


def test_affine_is_in_the_images_own_type() -> None:
    images = torch.rand(2, 1, 4, 4, generator=torch_rng(0)).double()
    assert affine(images, torch.ones(2, 2, 3), 0.1).dtype == torch.float64


def test_color_jitter_is_its_formula() -> None:
    images = torch.rand(9, 2, 3, 3, generator=torch_rng(0))
    draws = torch.rand(9, 2, generator=torch_rng(1))
    contrast, place = 2 * draws[:, 0] - 1, draws[:, 1]
    for n, image in enumerate(color_jitter(images, torch_rng(1))):
        low = 0.5 - contrast[n].abs() / 2 + (1 - contrast[n].abs()) * (place[n] - 0.5)
        middle = low + contrast[n].abs() / 2
        torch.testing.assert_close(image, middle + contrast[n] * (images[n] - 0.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_keep_their_device_and_type_whatever_those_of_the_draws(dtype: torch.dtype) -> None:
    """``meta`` is a device that computes nothing and takes no operand from another one."""
    images = torch.rand(4, 1, 5, 6, dtype=dtype).to("meta")
    moved = [
        translate(images, draw_offsets(4, 1, torch_rng(0)), 1),
        affine(images, draw_maps(4, torch_rng(0)), 0.2),
        color_jitter(images, torch_rng(0)),
        augment(images, 1, True, torch_rng(0), 0.2),
    ]
    for result in moved:
        assert result.device.type == "meta"
        assert result.dtype == dtype
        assert result.shape == images.shape


@pytest.mark.parametrize("shape", [(1, 4, 9), (2, 3, 9, 4)])
def test_a_shift_stays_below_the_shorter_side(shape: tuple[int, ...]) -> None:
    check_shift(0, shape)
    check_shift(3, shape)
    with pytest.raises(InputError, match=r"^shift is 4, but the images have [49] x [49] pixels"):
        check_shift(4, shape)
    with pytest.raises(InputError, match=r"^invert\.shift is 5"):
        check_shift(5, shape, "invert.shift")


def test_what_is_moved_is_checked() -> None:
    with pytest.raises(InputError, match="shift is 4"):
        translate(torch.zeros(2, 1, 4, 9), draw_offsets(2, 4, torch_rng(0)), 4)
