"""Image data sets as tensors: the one on-disk format that every stage reads.

A data set is a folder with three files:

* ``train.safetensors`` and ``test.safetensors``: ``images``, uint8 (N, C, H, W), and ``labels``, int64 (N,)
* ``spec.json``: a :class:`DatasetSpec`
"""

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from netinv.core import ClassNames, Config, ImageShape, InputError, PixelRange, expect_regular, listed, read_json

Split = Literal["train", "test"]
PIXELS = {torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""Types of the images that are taken."""
ROUNDING = 1e-3
"""How far floats may lie beyond [0, 1], as after a resize: less than changes any of 256 levels."""


class DatasetSpec(Config):
    """What a data set is; stored beside its tensors as ``spec.json``."""

    name: str
    classes: ClassNames = Field(min_length=2, max_length=100_000)
    """Class names, in label order."""
    image_shape: ImageShape
    num_train: Annotated[int, Field(ge=1, le=2**31)]
    num_test: Annotated[int, Field(ge=1, le=2**31)]
    source: str
    """Where the images came from, in words."""
    licence: str
    """What the source says about use of the images."""
    checksums: dict[str, str]
    """SHA-256 of each tensor file, by file name."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)


class LabelledImages(NamedTuple):
    """N images and their labels, of K classes from 0 to K - 1: a split of a data set."""

    images: Tensor
    """(N, C, H, W), uint8; or floats in [0, 1], which mean the same. On disk they are uint8."""
    labels: Tensor
    """int64, (N,)."""


def labelled(data: Any, what: str) -> LabelledImages:
    """What is given as labelled images, if it is that; a pair of tensors is taken for them.

    Args:
        data: It.
        what: What it is called in the error, such as "The training images".

    Raises:
        InputError: It is something else, there is no label for each image, or the images are neither uint8 nor floats.
        PixelRange: They are floats outside of [0, 1].
    """
    if not isinstance(data, (tuple, list)) or [isinstance(part, Tensor) for part in data] != [True, True]:
        raise InputError(f"{what} are {_kind(data)}: give netinv.LabelledImages(images, labels), both of them tensors.")
    images, labels = data
    images = pixels(images, what)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.shape != images.shape[:1] or bool((labels.long() < 0).any()):  # uint64 knows no comparison
        raise InputError(f"{what} lack their labels: give whole numbers from 0 on, one for each image.")
    return LabelledImages(images, labels.long())


def expect_fit(data: LabelledImages, what: str, image_shape: ImageShape, num_classes: int) -> None:
    """Refuse labelled images that a classifier cannot be shown.

    Args:
        data: They.
        what: What they are called in the error.
        image_shape: (C, H, W) that it takes.
        num_classes: K that it knows.

    Raises:
        InputError: There are none, or their shape or a label is not the classifier's.
    """
    if not len(data.labels):
        raise InputError(f"{what} are none: give some, or leave them out.")
    shape, taken = tuple(data.images.shape[1:]), tuple(image_shape)
    if shape != taken:
        raise InputError(f"{what} have the shape {shape}, but the classifier takes {taken}: give that shape to both.")
    low, high = (int(label) for label in data.labels.aminmax())
    if not 0 <= low <= high < num_classes:
        raise InputError(
            f"{what} have labels from {low} to {high}, but the classifier knows {num_classes} classes: count from 0 on."
        )


def pixels(images: Tensor, what: str) -> Tensor:
    """What is given as images (N, C, H, W), if it is that; a little beyond [0, 1], as after a resize, is cut off.

    Args:
        images: It.
        what: What it is called in the error.

    Raises:
        InputError: It has another number of dimensions, or is neither uint8 nor floats.
        PixelRange: They are floats outside of [0, 1].
    """
    if images.ndim != 4 or images.dtype not in PIXELS or images.layout != torch.strided or images.is_meta:
        raise InputError(
            f"{what} are {images.dtype} of shape {tuple(images.shape)}: give (N, C, H, W), uint8 or floats in [0, 1]."
        )
    if images.is_floating_point() and images.numel():
        low, high = (float(value) for value in images.detach().aminmax())
        if not -ROUNDING <= low <= high <= 1 + ROUNDING:
            raise PixelRange(
                f"{what} reach from {low:.3g} to {high:.3g}: give uint8, or floats in [0, 1], such as pixels in 0..255 "
                "divided by 255."
            )
        images = images.clamp(0, 1) if low < 0 or high > 1 else images
    return images


def _kind(data: Any) -> str:
    """What is given in place of labelled images; of a pair, the types of both."""
    pair = isinstance(data, (tuple, list)) and len(data) == 2
    return " and ".join(f"a {type(part).__name__}" for part in (data if pair else [data]))


def to_float(images: Tensor) -> Tensor:
    """Images, uint8 or float in [0, 1], as float32 in [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def to_uint8(images: Tensor) -> Tensor:
    """Images, uint8 or float in [0, 1], as uint8; values that are not finite become 0, or those beyond the end."""
    if images.dtype == torch.uint8:
        return images
    return images.nan_to_num().mul(255).round().clamp(0, 255).byte()


def save_dataset(
    folder: Path,
    name: str,
    classes: tuple[str, ...],
    train: LabelledImages,
    test: LabelledImages,
    source: str,
    licence: str,
) -> DatasetSpec:
    """Write a data set's three files into an existing folder."""
    checksums = {}
    for split, data in (("train", train), ("test", test)):
        path = folder / f"{split}.safetensors"
        # Not save_file: it tells of a full disk with an exception of its own.
        content = save({"images": data.images.contiguous(), "labels": data.labels.contiguous()})
        path.write_bytes(content)
        checksums[path.name] = hashlib.sha256(content).hexdigest()
    channels, height, width = train.images.shape[1:]
    spec = DatasetSpec(
        name=name,
        classes=classes,
        image_shape=(channels, height, width),
        num_train=len(train.labels),
        num_test=len(test.labels),
        source=source,
        licence=licence,
        checksums=checksums,
    )
    (folder / "spec.json").write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return spec


def load_spec(folder: Path) -> DatasetSpec:
    """Read ``spec.json``.

    Raises:
        InputError: The file is missing or is not a spec.
    """
    path = Path(folder) / "spec.json"
    return DatasetSpec.parse(read_json(path, "fetch the data set again"), where=str(path))


HEADER = 2**20
"""Bytes that a file of a split may have beside its images and labels."""


def load_split(folder: Path, split: Split) -> LabelledImages:
    """Read one split, and make sure that it is what ``spec.json`` tells of.

    Raises:
        InputError: The file is missing, damaged or altered.
    """
    path = Path(folder) / f"{split}.safetensors"
    spec = load_spec(folder)
    try:
        num = spec.num_train if split == "train" else spec.num_test
        expect_regular(path, num * (math.prod(spec.image_shape) + 8) + HEADER)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        tensors = load_file(path)
        data = LabelledImages(tensors["images"], tensors["labels"])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path} is not a readable data-set split ({error}): fetch the data set again.") from None
    if digest != spec.checksums.get(path.name):
        raise InputError(f"{path} is damaged or altered (its SHA-256 is not spec.json's): fetch the data set again.")
    if reason := _misfit(data, spec, split):
        raise InputError(f"{path} does not fit its spec.json ({reason}): fetch the data set again.")
    return data


def _misfit(data: LabelledImages, spec: DatasetSpec, split: Split) -> str | None:
    """Why a split is not one of its data set, if it is not."""
    num = spec.num_train if split == "train" else spec.num_test
    images, labels = data
    if (images.dtype, labels.dtype) != (torch.uint8, torch.int64):
        return f"images of {images.dtype} and labels of {labels.dtype} where uint8 and int64 belong"
    if images.shape != (num, *spec.image_shape) or labels.shape != (num,):
        return f"{len(labels)} labels for images {tuple(images.shape)}, where {num} of shape {spec.image_shape} belong"
    if num and not 0 <= int(labels.min()) <= int(labels.max()) < spec.num_classes:
        return f"labels from {int(labels.min())} to {int(labels.max())} for {spec.num_classes} classes"
    return None


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation in [0, 1] units of images (N, C, H, W), uint8 or float in [0, 1].

    Floats count as the nearest of the 256 values of uint8, so that they give what their uint8 images give.
    A constant channel gets a standard deviation of 1, so that normalising by it is harmless.
    """
    channels = images.shape[1]
    # In float64 from a histogram: exact, and no float copy of the data set.
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for c in range(channels):
        share = torch.bincount(to_uint8(images[:, c]).flatten(), minlength=256).double()
        share /= share.sum()
        mean = float((share * values).sum())
        variance = float((share * (values - mean) ** 2).sum())
        means.append(mean)
        stds.append(variance**0.5 or 1.0)
    return tuple(means), tuple(stds)


class Dataset(NamedTuple):
    """A data set as its source gives it."""

    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages
    source: str
    licence: str


def shared(train: Tensor, test: Tensor) -> list[int]:
    """Indices of the test images that are training images too, pixel for pixel; (N, C, H, W), uint8 or float."""
    alike = train.dtype == test.dtype == torch.uint8

    def digest(image: Tensor) -> bytes:
        return hashlib.sha256((image if alike else to_float(image)).numpy().tobytes()).digest()

    seen = {digest(image) for image in train}
    return [index for index, image in enumerate(test) if digest(image) in seen]


def oddities(data: Dataset) -> list[str]:
    """What makes measures of a data set mean less than they seem to, each as a sentence."""
    told = []
    if same := len(shared(data.train.images, data.test.images)):
        told.append(
            f"{same:,} of {len(data.test.labels):,} test images are training images too: accuracies are too high, and "
            "the privacy audit cannot tell copies of the ones from the others."
        )
    for split, part in (("training", data.train), ("test", data.test)):
        counts = part.labels.bincount(minlength=len(data.classes)).tolist()
        if empty := [name for name, count in zip(data.classes, counts, strict=True) if not count]:
            told.append(f"There are no {split} images of {listed(empty, 10)}.")
    return told
