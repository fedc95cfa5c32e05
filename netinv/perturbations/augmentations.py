"""Shifts, mirror images, affine maps and contrasts, each sample its own."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distort(images: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Images turned, stretched, slanted and moved, each sample its own, black where nothing is left. (N, C, H, W).

    Every entry of the identity's affine map, in coordinates from -1 to 1, changes by up to ``strength``, and of its
    translation by up to half of that.
    """
    change = strength * (2 * torch.rand(len(images), 2, 3, generator=rng, device=rng.device) - 1)
    change[:, :, 2] /= 2
    maps = (torch.eye(2, 3, device=rng.device) + change).to(images)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def recolour(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images of another contrast and brightness, each sample its own; half of them negatives. (N, C, H, W) in [0, 1].

    The contrast is uniform from -1 to 1, and what range it leaves is filled at random: no pixel leaves [0, 1].
    """
    draws = torch.rand(len(images), 2, generator=rng, device=rng.device).to(images)[..., None, None, None]
    contrast = 2 * draws[:, 0] - 1
    brightness = 0.5 + (1 - contrast.abs()) * (draws[:, 1] - 0.5)
    return contrast * (images - 0.5) + brightness


def augment(images: Tensor, shift: int, flip: bool, rng: torch.Generator, distortion: float = 0.0) -> Tensor:
    """Mirror images, random shifts (edges repeated) and distortions, each sample its own. Images are (N, C, H, W)."""
    num, _, height, width = images.shape
    if flip:
        mirrored = torch.rand(num, generator=rng, device=rng.device).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if shift:
        padded = F.pad(images, (shift, shift, shift, shift), mode="replicate")
        down, across = (
            torch.randint(0, 2 * shift + 1, (num,), generator=rng, device=rng.device).to(images.device)
            for _ in range(2)
        )
        rows = down[:, None] + torch.arange(height, device=images.device)  # (N, H)
        columns = across[:, None] + torch.arange(width, device=images.device)  # (N, W)
        sample = torch.arange(num, device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return distort(images, distortion, rng) if distortion else images
