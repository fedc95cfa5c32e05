"""The images that other people's classifiers are given: their shape, grey ones of coloured, some to try them out on."""

import math
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from netinv.core import InputError

GREY = (0.299, 0.587, 0.114)
"""Luminance weights of red, green and blue (ITU-R BT.601)."""
PROBES = 8
"""Images on which a network is tried out."""


def expect_default_device() -> None:
    """Refuse to draw where torch makes tensors elsewhere than on the processor: draws are the same anywhere.

    Raises:
        InputError: Says how to set that back.
    """
    if (device := torch.get_default_device()).type != "cpu":
        raise InputError(
            f"Torch makes new tensors on {device} by itself, and random numbers are drawn on the processor here: call "
            f"torch.set_default_device('cpu') before; the network may stay on {device}."
        )


def expect_shape(image_shape: Any) -> tuple[int, int, int]:
    """A shape of images, (C, H, W), as plain numbers.

    Raises:
        InputError: It is none.
    """
    sides = tuple(image_shape) if isinstance(image_shape, (tuple, list)) else ()
    if len(sides) != 3 or not all(isinstance(side, Integral) and int(side) > 0 for side in sides):
        raise InputError(
            "image_shape is (channels, height, width), such as (1, 28, 28) for grey images, in whole numbers, not "
            f"{image_shape}."
        )
    channels, height, width = map(int, sides)
    return channels, height, width


def converted_shape(image_shape: tuple[int, int, int], input_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """(C, H, W) that images are converted to for a network, before they become rows where it takes flat ones.

    Args:
        image_shape: Of the images.
        input_shape: What the network takes, (C, H, W) or (pixels,); ``None`` is the shape of the images.

    Raises:
        InputError: The images cannot be made that.
    """
    channels, pixels = image_shape[0], math.prod(image_shape)
    if input_shape is None or len(input_shape) == 1:
        if input_shape is not None and input_shape[0] != pixels:
            raise InputError(
                f"input_shape is {input_shape[0]} pixels, but images of shape {image_shape} have {pixels}: give the "
                "image_shape that has as many, or wrap the network so that it makes its rows itself."
            )
        return image_shape
    if channels != input_shape[0] and {channels, input_shape[0]} != {1, 3}:
        raise InputError(f"Images of {channels} channels cannot be converted to {input_shape[0]} channels.")
    return input_shape


def probe_images(image_shape: tuple[int, int, int], num: int = PROBES) -> Tensor:
    """The images on which a network is tried out, (N, C, H, W): noise of growing contrast about growing grey levels.

    They are what a generator gives: channels last in memory, and asking for gradients.
    """
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(num, *image_shape, generator=rng) - 0.5
    contrast = torch.linspace(0.2, 1, num)[:, None, None, None]
    level = torch.linspace(0.2, 0.8, num)[:, None, None, None]
    images = (level + contrast * noise).clamp(0, 1)
    return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).requires_grad_()


def to_grey(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) as grey ones, (N, 1, H, W)."""
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
