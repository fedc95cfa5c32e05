"""Samples as files: a grid, arrays, or a folder of pictures."""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from netinv.core import InputError, check_file, check_folder, new_file, new_folder, whole
from netinv.sampling.grids import Pixels, grid
from netinv.sampling.onnx_models import OnnxGenerator, Samples

MAX_PIXELS, MAX_BYTES, MAX_FILES = 2**28, 2**34, 1_000_000
"""Of a grid, of the images in a file of arrays, and in a folder."""


def save(
    path: str | Path,
    batches: Iterable[Samples],
    num: int,
    generator: OnnxGenerator,
    columns: int | None = None,
    scale: int = 1,
) -> None:
    """Write samples as they come, whole or not at all.

    Args:
        path: ``.png`` is one grid; ``.npz`` holds the arrays of :class:`Samples`, by name; a path without a suffix is
            a new folder of PNGs, named by place and label.
        batches: ``num`` samples in all.
        num: How many there are.
        generator: Where they come from.
        columns: Images in a row of the grid.
        scale: Side of each pixel of the images, in pixels of a picture; arrays are as they were drawn.

    Raises:
        InputError: As :func:`check_place` and :func:`check_size`, or other than ``num`` samples come.
    """
    path = Path(path)
    check_place(path)
    check_size(path, num, generator, columns, scale)
    batches = _in_all(batches, num)
    with new_file(path) if path.suffix else new_folder(path) as partial:
        if path.suffix == ".png":
            images = (batch.images for batch in batches)
            _save_png(partial, grid(images, num, generator.metadata.image_shape, columns, scale))
        elif path.suffix == ".npz":
            _save_npz(partial, batches, num, generator)
        else:
            _save_folder(partial, batches, scale)


def check_size(path: Path, num: int, generator: OnnxGenerator, columns: int | None = None, scale: int = 1) -> None:
    """Refuse, before the work, more images than a file of this kind can hold; arguments as :func:`save`.

    Raises:
        InputError: Tells how many that are; or a number is out of its range.
    """
    num, scale = whole(num, "The number of images", least=0), whole(scale, "The scale", least=1)
    channels, height, width = generator.metadata.image_shape
    bytes_each = 4 * channels * height * width
    height, width = scale * height, scale * width
    most = {".png": MAX_PIXELS // ((height + 1) * (width + 1)), ".npz": MAX_BYTES // bytes_each}
    columns = whole(1 if columns is None else columns, "The number of columns", least=1)
    wanted = max(num, columns)  # a row is as long as there are columns
    if wanted > (room := most.get(path.suffix, MAX_FILES)):
        raise InputError(f"{path} would hold {wanted:,} images: at most {room:,} of {height} x {width} pixels.")


def check_place(path: Path) -> None:
    """Make sure, before the work, that :func:`save` can write there.

    Raises:
        InputError: The path has another suffix or is nothing but one, is taken by a folder, or cannot be written.
    """
    if path.name in {".png", ".npz"}:  # which Python takes for a hidden name without a suffix
        raise InputError(f"{path} is a suffix without a name: give a name before it.")
    if path.name == "-":
        raise InputError("Images are written to a file or a folder, not to the standard output: name one.")
    if path.suffix not in {".png", ".npz", ""}:
        raise InputError(f"{path} ends in {path.suffix}: give a .png, a .npz, or a new folder's name without a suffix.")
    if path.suffix:
        check_file(path)
    else:
        check_folder(path)


def _in_all(batches: Iterable[Samples], num: int) -> Iterator[Samples]:
    """The batches, as long as no more samples come than were announced.

    Raises:
        InputError: More come, or fewer.
    """
    left = num
    for batch in batches:
        left -= len(batch.labels)
        if left < 0:
            break
        yield batch
    if left:
        raise InputError(
            f"{num} images were to be saved, but {'more' if left < 0 else 'fewer'} came: give their number."
        )


def _save_png(path: Path, pixels: Pixels) -> None:
    """Pixels (H, W) or (H, W, 3)."""
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")


def _save_folder(path: Path, batches: Iterable[Samples], scale: int) -> None:
    index = 0
    for batch in batches:
        for image, label in zip(batch.images, batch.labels, strict=True):
            _save_png(path / f"{index:06}-{label}.png", grid([image[None]], 1, image.shape, scale=scale))
            index += 1


def _save_npz(path: Path, batches: Iterable[Samples], num: int, generator: OnnxGenerator) -> None:
    """What ``numpy.savez`` writes, without holding all images: only they are large, so they go first."""
    small = []
    header = {"descr": "<f4", "fortran_order": False, "shape": (num, *generator.metadata.image_shape)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for batch in batches:
                file.write(batch.images.astype("<f4", copy=False).tobytes())
                small.append(batch._replace(images=batch.images[:0]))
        whole = Samples(*(np.concatenate(parts) for parts in zip(*small, strict=True)))
        for name in ("labels", "latent", "condition"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, getattr(whole, name), allow_pickle=False)
