"""Shifts, mirror images, affine maps and contrasts, each sample its own.

What is random is drawn apart from its use, so that a caller can draw all of its random numbers first.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from netinv.core import InputError


def draw_offsets(num: int, most: int, rng: torch.Generator) -> Tensor:
    """Offsets down and across for :func:`translate`, uniform in 0..2 ``most``: (N, 2), int64."""
    columns = [torch.randint(0, 2 * most + 1, (num,), generator=rng, device=rng.device) for _ in range(2)]
    return torch.stack(columns, dim=1)


def check_shift(most: int, image_shape: Sequence[int], where: str = "shift") -> None:
    """Refuse a shift that can move an image away whole.

    Args:
        most: Pixels that an image moves at most.
        image_shape: (..., H, W).
        where: What the setting is called.

    Raises:
        InputError: It reaches the image's shorter side.
    """
    height, width = image_shape[-2:]
    if most and most >= min(height, width):
        raise InputError(f"{where} is {most}, but the images have {height} x {width} pixels: set it below both.")


def translate(images: Tensor, offsets: Tensor, most: int) -> Tensor:
    """Move images by whole pixels; their edges are repeated.

    Args:
        images: (N, C, H, W).
        offsets: Of the window that stays, down and across, in 0..2 ``most``, (N, 2), int64; ``most`` moves nothing.
        most: Pixels that an image moves at most.
    """
    num, _, height, width = images.shape
    check_shift(most, images.shape)
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    down, across = offsets.to(images.device).unbind(dim=1)
    rows = down[:, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = across[:, None] + torch.arange(width, device=images.device)  # (N, W)
    sample = torch.arange(num, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def draw_maps(num: int, rng: torch.Generator) -> Tensor:
    """Affine maps for :func:`affine`, uniform in [-1, 1]: (N, 2, 3)."""
    return 2 * torch.rand(num, 2, 3, generator=rng, device=rng.device) - 1


def affine(images: Tensor, maps: Tensor, strength: float) -> Tensor:
    """Turn, stretch, slant and move images; black where nothing is left.

    Every entry of the identity's affine map, in coordinates from -1 to 1, changes by up to ``strength``, and of its
    translation by up to half of that.

    Args:
        images: (N, C, H, W).
        maps: Changes as shares of ``strength``, in [-1, 1], (N, 2, 3).
        strength: The largest change.
    """
    change = strength * maps.to(images)
    change = torch.cat([change[:, :, :2], change[:, :, 2:] / 2], dim=2)
    maps = torch.eye(2, 3, device=images.device, dtype=images.dtype) + change
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def random_affine(images: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Images (N, C, H, W) under affine maps drawn at random; see :func:`affine`."""
    return affine(images, draw_maps(len(images), rng), strength)


def color_jitter(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images of another contrast and brightness, each sample its own; half of them negatives. (N, C, H, W) in [0, 1].

    The contrast is uniform from -1 to 1, and what range it leaves is filled at random: no pixel leaves [0, 1].
    """
    draws = torch.rand(len(images), 2, generator=rng, device=rng.device).to(images)[..., None, None, None]
    contrast = 2 * draws[:, 0] - 1
    brightness = 0.5 + (1 - contrast.abs()) * (draws[:, 1] - 0.5)
    return contrast * (images - 0.5) + brightness


def augment(images: Tensor, shift: int, flip: bool, rng: torch.Generator, distortion: float = 0.0) -> Tensor:
    """Mirror images, random shifts and affine maps, each sample its own. Images are (N, C, H, W)."""
    if flip:
        mirrored = torch.rand(len(images), generator=rng, device=rng.device).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if shift:
        images = translate(images, draw_offsets(len(images), shift, rng), shift)
    return random_affine(images, distortion, rng) if distortion else images
