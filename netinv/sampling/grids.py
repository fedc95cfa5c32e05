"""Many images as one picture."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from netinv.core import whole
from netinv.sampling.draws import Floats

Pixels = NDArray[np.uint8]


def to_pixels(images: Floats, scale: int = 1) -> Pixels:
    """Images (N, C, H, W) in [0, 1] to the nearest uint8, each pixel as a square of ``scale`` by ``scale``.

    A picture is grey or has three colours: of any other number of channels it shows the mean.

    Raises:
        InputError: The scale is no whole number from 1 on.
    """
    scale = whole(scale, "The scale", least=1)
    if images.shape[1] not in (1, 3):
        images = images.mean(axis=1, keepdims=True)
    pixels: Pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return pixels.repeat(scale, axis=2).repeat(scale, axis=3) if scale > 1 else pixels


def grid(
    batches: Iterable[Floats],
    num: int,
    image_shape: tuple[int, int, int],
    columns: int | None = None,
    scale: int = 1,
) -> Pixels:
    """One picture of many, row by row, a white pixel between neighbours.

    Args:
        batches: Images (N, C, H, W) in [0, 1], ``num`` in all.
        num: How many there are.
        image_shape: (C, H, W).
        columns: Images in a row; ``None`` makes the grid about square.
        scale: Side of each of their pixels, in pixels of the picture.

    Returns:
        (rows * (scale * H + 1) - 1, columns * (scale * W + 1) - 1, 3), or without the last axis where C is not 3:
        as ``PIL.Image.fromarray`` takes it.

    Raises:
        InputError: The scale, or the number of columns, is no whole number from 1 on.
    """
    scale = whole(scale, "The scale", least=1)
    channels = 3 if image_shape[0] == 3 else 1
    height, width = scale * image_shape[1], scale * image_shape[2]
    columns = whole(math.isqrt(max(num, 1) - 1) + 1 if columns is None else columns, "The number of columns", least=1)
    rows = -(-max(num, 1) // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    index = 0
    for batch in batches:
        for image in to_pixels(batch, scale):
            top, left = index // columns * (height + 1), index % columns * (width + 1)
            canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
            index += 1
    return canvas if channels == 3 else canvas[:, :, 0]
