"""What is done to the images of a generator: softened, toned, bent. The classifier sees them so, in training too."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONTROLS = 4
"""Side of the grid of points that an image is bent by, at most."""


class Bend(nn.Module):
    """Bends images by their latents: a displacement at each point of a coarse grid, interpolated (bicubic) between.

    The first latents are these displacements, across and down. What an image is bent by is no longer left to its
    pixels, and has to keep its class all the same, since the classifier sees the image as it is bent.

    Args:
        amount: See :class:`GeneratorConfig`.
        latent_dim: Z.
        size: H and W.
    """

    places: Tensor
    spread: Tensor

    def __init__(self, amount: float, latent_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.side = min(CONTROLS, math.isqrt(latent_dim // 2), *size)
        plain = F.affine_grid(torch.eye(2, 3)[None], [1, 1, *size], align_corners=False)
        points = torch.eye(self.side**2).view(-1, 1, self.side, self.side)  # interpolating these gives the matrix
        spread = F.interpolate(points, size=size, mode="bicubic", align_corners=True).flatten(1)
        self.register_buffer("places", plain.flatten(0, 2).T.contiguous(), persistent=False)  # (2, H W)
        self.register_buffer("spread", 2 * amount * spread, persistent=False)  # (points, H W); an image is 2 wide

    def forward(self, images: Tensor, latent: Tensor) -> Tensor:
        """Bend images (N, C, H, W) by latents (N, Z). What comes from beyond the edge is the edge."""
        moves = latent[:, : 2 * self.side**2].reshape(-1, 2, self.side**2)  # (N, 2, points)
        grid = (self.places + moves @ self.spread).mT.reshape(-1, *images.shape[2:], 2)  # (N, H, W, 2)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class Soften(nn.Module):
    """Blurs images by 1, 2, 1 across and down, once and again; edges go on outwards.

    Args:
        amount: How many times, the last time blended with what it was by the share that is left.
    """

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, images: Tensor) -> Tensor:
        """Soften images (N, C, H, W)."""
        for done in range(math.ceil(self.amount)):
            wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
            blurred = F.avg_pool2d(F.avg_pool2d(wide, 2, stride=1), 2, stride=1)  # each is 1, 1 across and down
            images = images + min(1.0, self.amount - done) * (blurred - images)
        return images


class Tone(nn.Module):
    """Gives images the contrast, the brightness and the sign that their latents say.

    An image keeps its class all the same, since the classifier sees it as it is toned. What is toned stays in [0, 1].

    Args:
        toning, negatives: See :class:`GeneratorConfig`.
    """

    def __init__(self, toning: float, negatives: bool) -> None:
        super().__init__()
        self.toning = toning
        self.negatives = negatives

    def forward(self, images: Tensor, latent: Tensor) -> Tensor:
        """Tone images (N, C, H, W) by three latents of (N, Z), those before the last third of them."""
        first = latent.shape[1] * 2 // 3 - 2  # of 51 or more, bending has those before, the latent field the end
        uniform = torch.erf(latent[:, first : first + 2] / math.sqrt(2))  # (N, 2), in (-1, 1)
        contrast = 1 - self.toning * (1 + uniform[:, :1]) / 2  # (N, 1)
        shift = (1 - contrast) * uniform[:, 1:] / 2  # as far as it leaves [0, 1] in itself
        if self.negatives:
            contrast = torch.where(latent[:, first + 2 : first + 3] < 0, -contrast, contrast)
        contrast, shift = (x[:, :, None, None] for x in (contrast, shift))
        return 0.5 + contrast * (images - 0.5) + shift  # in the latents' precision, in which it keeps to [0, 1]
