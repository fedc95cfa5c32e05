"""The conditioned generator G(z, p) -> images (paper, section 2)."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from netinv.core import Bending, Config, Dropout, Share, Softening, Width
from netinv.generators.conditioning import hot_matrix, matrix_size
from netinv.generators.finishing import Bend, Soften, Tone

FIELD = 4
"""Side of the latent field at most: coarse enough for strokes, and too coarse for a code in the texture."""


class GeneratorConfig(Config):
    """Architecture of a generator."""

    conditioning: Literal["vector_matrix", "vector", "embedding"] = "vector_matrix"
    """The paper's vector and hot matrix, the vector alone, or a learned embedding of the label."""
    latent_dim: Width = 64
    """Z, length of the latent vector."""
    hidden_dim: Width = 64
    """Length of the linear map of the condition vector that joins the latent vector."""
    width: Width = 16
    """Channels at the image's resolution; twice as many at each halving."""
    max_width: Width = 64
    """Bound on that doubling."""
    upsampling: Literal["resize", "transposed"] = "resize"
    """How an image doubles: convolved, then resized bilinearly, or by transposed convolutions. Those print
    checkerboards, textures that the inverted classifier reads and others do not."""
    dropout: Dropout = 0.2
    """Probability that an up-convolution drops a whole channel, the paper's source of diversity. Inversion ends
    at 0."""
    softening: Softening = 0.0
    """How many times an image is blurred by 1, 2, 1 across and down, the last time by the share that is left, so that
    it holds no texture of the finest scales, which the inverted classifier reads and others do not; 0 is none."""
    toning: Share = 0.0
    """How far a part of the latent lowers the contrast of an image, and with it its brightness is moved: contrasts are
    uniform from 1 - toning to 1. Variety that is imposed."""
    negatives: bool = False
    """Whether a latent makes every other image a negative of itself."""
    bending: Bending = 0.0
    """How far a part of the latent bends an image: the standard deviation of a point's displacement across and down,
    as a share of the image's side. Variety that is imposed, and raises coverage and Vendi scores by itself."""

    @model_validator(mode="after")
    def _consistent(self) -> "GeneratorConfig":
        if self.width > self.max_width:
            raise ValueError(f"width is {self.width}, above max_width, its bound of {self.max_width}")
        if self.bending and self.latent_dim < 2:
            raise ValueError("bending needs a latent_dim of 2 at least: a displacement across and one down")
        if (self.toning or self.negatives) and self.latent_dim < 3:
            raise ValueError("toning and negatives need a latent_dim of 3 at least: contrast, brightness and sign")
        return self


def up_sizes(size: int, height: int, width: int) -> list[tuple[int, int]]:
    """Spatial sizes from the hot matrix's M x M to the image's H x W.

    Halve the image (rounding up) for as long as both sides stay at least M, and then the longer side alone for as long
    as it is more than twice the other. So the first step stretches M x M to less than four times its side, the others
    double one side or both.

    Example:
        >>> up_sizes(10, 28, 28), up_sizes(2, 16, 20), up_sizes(4, 6, 64)
        ([(10, 10), (14, 14), (28, 28)], [(2, 2), (2, 3), (4, 5), (8, 10), (16, 20)], [(4, 4), (6, 8), (6, 16), ...])
    """
    sizes = [(height, width)]
    while True:
        height, width = sizes[-1]
        both = -(-min(height, width) // 2) >= size
        smaller = (
            -(-height // 2) if both or height > 2 * width else height,
            -(-width // 2) if both or width > 2 * height else width,
        )
        if smaller == sizes[-1]:
            break
        sizes.append(smaller)
    if sizes[-1] != (size, size) or len(sizes) == 1:  # an M x M image still has one up-convolution, at one size
        sizes.append((size, size))
    return sizes[::-1]


def _up_convolution(
    in_channels: int, out_channels: int, source: tuple[int, int], target: tuple[int, int], transposed: bool
) -> nn.Module:
    """Source size to target size: a transposed convolution if each side doubles or stays, else convolve and resize."""
    down, across = (1 if s == t else 2 for s, t in zip(source, target, strict=True))
    doubles = -(-target[0] // down) == source[0] and -(-target[1] // across) == source[1]
    # The first step, from M x M, is transposed only where both sides double: stored generators are made so.
    if transposed and doubles and (down == across == 2 or source[0] != source[1]):
        # At a stride of 2 a kernel of 4 reaches an even side exactly, and 3 an odd one; at 1, 3 keeps a side.
        high, wide = (4 - t % 2 if by == 2 else 3 for t, by in zip(target, (down, across), strict=True))
        return nn.ConvTranspose2d(in_channels, out_channels, (high, wide), (down, across), padding=1, bias=False)
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    # Resizing last costs source over target of the arithmetic of resizing first, and draws smoother images.
    return convolution if source == target else nn.Sequential(convolution, nn.Upsample(size=target, mode="bilinear"))


def field_side(latent_dim: int, height: int, width: int) -> int:
    """F of images of H x W: the last F x F latents are the field, which an inversion may have images follow."""
    return min(FIELD, math.isqrt(latent_dim), height, width)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over the samples of this process, or of several that share a batch.

    It computes in the precision of its statistics, whatever that of its input.
    """

    total: Callable[[Tensor], Tensor] | None = None
    """Sums (C,) over the processes, with gradients; torch's SyncBatchNorm does so on GPUs only."""
    num_processes = 1

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        assert self.running_mean is not None
        x = input.to(self.running_mean.dtype)
        normalised = super().forward(x) if self.total is None or not self.training else self._shared(x)
        return normalised.to(input.dtype)

    def _shared(self, x: Tensor) -> Tensor:
        """Normalise by the statistics of all processes, and keep those."""
        assert self.total is not None
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        count = x.numel() // x.shape[1] * self.num_processes
        mean = self.total(x.sum((0, 2, 3))) / count  # (C,)
        centred = x - mean.view(1, -1, 1, 1)
        variance = self.total(centred.square().sum((0, 2, 3))) / count  # (C,)
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class ConditionedGenerator(nn.Module):
    """Vector-matrix conditioned generator for any number of classes and any image shape.

    The condition vector is mapped to ``hidden_dim``, joined with the latent vector and up-convolved to M x M, where
    the hot matrix joins as one more channel; further up-convolutions reach the image size. The label is the vector's
    arg-max and the matrix follows from it, so both are made inside and an exported generator needs only two inputs.

    Args:
        config: The architecture.
        num_classes: K.
        image_shape: (C, H, W).
    """

    def __init__(self, config: GeneratorConfig, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.config = config
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.matrix_size = matrix_size(num_classes, height, width)
        self.dropout_channels: list[int] = []
        """Channels that each dropout layer decides on; none without dropout."""

        sizes = up_sizes(self.matrix_size, height, width)
        widths = [min(config.width * 2**i, config.max_width) for i in range(len(sizes))][::-1]
        self.condition: nn.Module
        if config.conditioning == "embedding":
            self.condition = nn.Embedding(num_classes, config.hidden_dim)
        else:
            self.condition = nn.Linear(num_classes, config.hidden_dim)
        # On a 1 x 1 input an up-convolution to M x M is a linear layer, and much slower than one.
        self.project = nn.Sequential(
            nn.Linear(config.hidden_dim + config.latent_dim, self.matrix_size**2 * widths[0], bias=False),
            nn.Unflatten(1, (self.matrix_size, self.matrix_size, widths[0])),
        )
        self.project_norm = nn.Sequential(BatchNorm(widths[0]), nn.LeakyReLU(0.2, inplace=True))
        matrix_channels = int(config.conditioning == "vector_matrix")
        blocks: list[nn.Module] = []
        for i in range(len(sizes) - 1):
            in_channels = widths[i] + (matrix_channels if i == 0 else 0)
            blocks += [
                _up_convolution(in_channels, widths[i + 1], sizes[i], sizes[i + 1], config.upsampling == "transposed"),
                BatchNorm(widths[i + 1]),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Dropout2d(config.dropout),
            ]
            if config.dropout:
                self.dropout_channels.append(widths[i + 1])
        self.up = nn.Sequential(*blocks)
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.soften = Soften(config.softening) if config.softening else None
        self.tone = Tone(config.toning, config.negatives) if config.toning or config.negatives else None
        self.bend = Bend(config.bending, config.latent_dim, (height, width)) if config.bending else None
        self.to(memory_format=torch.channels_last)

    @property
    def noise_dim(self) -> int:
        """U, the number of channels that dropout decides on."""
        return sum(self.dropout_channels)

    def forward(
        self, latent: Tensor, vector: Tensor, noise: Tensor | None = None, dropout: float | None = None
    ) -> Tensor:
        """Draw images.

        Args:
            latent: z ~ N(0, I), (N, Z).
            vector: Wanted class probabilities p, (N, K).
            noise: What dropout decides by, uniform in [0, 1), (N, U): a channel stays where its noise is at least the
                probability of dropout. Without it dropout is torch's own: on in training mode, from the global random
                state.
            dropout: That probability, with ``noise``; ``None`` is the configuration's.

        Returns:
            Images in [0, 1], (N, C, H, W).
        """
        label = vector.argmax(dim=1)  # (N,)
        condition = self.condition(label if self.config.conditioning == "embedding" else vector)  # (N, hidden_dim)
        x = self.project(torch.cat([condition, latent], dim=1))  # (N, M, M, width)
        x = self.project_norm(x.permute(0, 3, 1, 2))  # (N, width, M, M), channels last in memory
        if self.config.conditioning == "vector_matrix":
            x = torch.cat([x, hot_matrix(label, self.num_classes, self.matrix_size)], dim=1)
        if noise is None or not self.dropout_channels:
            x = self.up(x)
        else:
            probability = self.config.dropout if dropout is None else dropout
            parts = iter(torch.split(noise, self.dropout_channels, dim=1))
            for layer in self.up:
                if isinstance(layer, nn.Dropout2d):
                    kept = (next(parts) >= probability).to(x.dtype) / (1 - probability)  # (N, width)
                    x = x * kept[:, :, None, None]
                else:
                    x = layer(x)
        return self.finish(torch.sigmoid(self.to_image(x)), latent)

    def finish(self, images: Tensor, latent: Tensor) -> Tensor:
        """Soften, tone and bend images (N, C, H, W) in [0, 1] by latents (N, Z), as those that the layers draw."""
        if self.soften is not None:
            images = self.soften(images)
        if self.tone is not None:
            images = self.tone(images, latent)
        return images if self.bend is None else self.bend(images.to(latent.dtype), latent)
