"""Where a data set comes from: the embedded digits, torchvision's downloads or a mirror of them, an image folder.

Every source ends in the same :class:`~netinv.data.Dataset`. Its images do not depend on the machine or the way they
came: a download and a mirror give the same, and so do an image folder and an archive, whose names its ``source`` tells.
"""

from typing import Annotated

import torch
from pydantic import Field, StringConstraints

from netinv.core import Config, InputError, expanded
from netinv.data.dataset import Dataset, LabelledImages
from netinv.data.folders import FolderConfig, read_image_folder
from netinv.data.official import DIGITS, OFFICIAL, download, read_mirror


class FetchConfig(Config):
    """Where the fetch stage looks for images."""

    mirror: str | None = Field(None, min_length=1)
    """Folder in torchvision's layout that is read in place of a download; ``None`` downloads."""
    folders: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")], FolderConfig] = Field(
        default={}
    )
    """Image folders by name: of a built-in data set, in its place, or of a new one."""


def fetch_dataset(name: str, config: FetchConfig) -> Dataset:
    """Read a data set from where the configuration says.

    Args:
        name: A built-in data set or a key of ``config.folders``.
        config: Where to look. The network is used only for a torchvision data set without folder and mirror.

    Raises:
        InputError: Unknown name, missing or damaged files, or no network.
        OSError: The disk is full.
    """
    if name in config.folders:
        return read_image_folder(config.folders[name])
    if name == "digits":
        return load_digits()
    if name not in OFFICIAL:
        known = ", ".join(sorted({*BUILT_IN, *config.folders}))
        raise InputError(
            f"Unknown data set {name!r}: known are {known}; a folder of images needs no fetching for --data, and "
            "stands under fetch.folders in params.yaml."
        )
    return download(name) if config.mirror is None else read_mirror(name, expanded(config.mirror))


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits: 8x8 pixels in 0..16, enlarged to 16x16 in 0..255.

    Within each class, in scikit-learn's order, every fifth image is a test image: 1,442 train, 355 test.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    images = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # (N, 1, 8, 8)
    images = torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    images, labels = images.round().to(torch.uint8), torch.from_numpy(digits.target).long()
    one_hot = torch.nn.functional.one_hot(labels)
    rank = (one_hot.cumsum(dim=0) * one_hot).sum(dim=1)  # 1 for the first image of its class
    is_test = rank % 5 == 0
    return Dataset(
        classes=DIGITS,
        train=LabelledImages(images[~is_test], labels[~is_test]),
        test=LabelledImages(images[is_test], labels[is_test]),
        source="scikit-learn's load_digits (the test part of UCI's Optical Recognition of Handwritten Digits), "
        "8x8 enlarged to 16x16 bilinearly; every fifth image of a class is a test image",
        licence="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0.",
    )


BUILT_IN: tuple[str, ...] = ("digits", *OFFICIAL)
"""Data sets that need no configuration."""
