"""Image folders and archives of them: ``train/<class>/<image>`` and ``test/<class>/<image>``."""

import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from netinv.core import IGNORED_NAMES, Config, InputError, Side, expanded, expect_regular, listed
from netinv.data.archives import ARCHIVES, DAMAGES, archive_members, is_archive
from netinv.data.dataset import Dataset, LabelledImages, Split

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's decoders that a file may reach; some of the others run programs."""
MAX_FILE_BYTES = 64 * 2**20
"""Largest file of an image folder or archive."""
MAX_ARCHIVE_BYTES = 64 * 2**30
"""Largest archive."""
MAX_PIXELS = 50_000_000
"""Largest image, before it is resized."""
MAX_DATASET_BYTES = 8 * 2**30
"""Largest data set, as tensors: stages hold them in memory."""
SPLITS: dict[str, Split] = {"train": "train", "test": "test"}


class FolderConfig(Config):
    """An image folder: ``train/<class>/<image>`` and ``test/<class>/<image>``."""

    path: str = Field(min_length=1)
    """The folder, an archive of it (.tar.gz, .tgz, .zip), or a folder of archives that hold it together."""
    image_shape: tuple[Literal[1, 3], Side, Side]
    """(C, H, W) that every image is converted to: 1 channel is grey, 3 are RGB."""
    source: str = ""
    """What the images are, in words, for reports."""
    licence: str = "Not stated."
    """What their owner says about their use."""
    sha256: dict[str, str] = Field(default={})
    """Expected SHA-256 of the archives, by file name; an archive that differs is refused."""


class File(NamedTuple):
    """A file in a class folder."""

    split: Split
    label: str
    """Name of its class."""
    name: str
    where: str
    """How messages call it."""
    content: bytes


def read_image_folder(config: FolderConfig) -> Dataset:
    """Read an image folder, packed or not, in one pass, and convert every image to the declared shape.

    Classes are in alphabetic order, and so are the images of a class. Hidden files, and files outside
    ``train/<class>/`` and ``test/<class>/``, are passed over; every other file must be an image.

    Raises:
        InputError: Names what is missing, damaged, unsafe or not an image.
    """
    path = expanded(config.path)
    origin, files = _open(path, config.sha256)
    size = math.prod(config.image_shape)
    parts: dict[Split, dict[tuple[str, str], NDArray[np.uint8]]] = {"train": {}, "test": {}}
    for file in tqdm(files, f"read {path.name}", unit=" images", disable=None):
        images = parts[file.split]
        if (file.label, file.name) in images:
            raise InputError(f"{file.where} is there twice, with the same class and name: remove one.")
        if sum(map(len, parts.values())) * size > MAX_DATASET_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_DATASET_BYTES >> 30} GiB as images of shape {config.image_shape}: "
                "declare a smaller image_shape or take fewer images."
            )
        images[file.label, file.name] = _decode(file.content, file.where, config.image_shape)
    train_classes, test_classes = (sorted({label for label, _ in parts[split]}) for split in ("train", "test"))
    for split, classes in (("train", train_classes), ("test", test_classes)):
        if not classes:
            raise InputError(
                f"{path} has no classes in {split}/: expected images as {split}/<class>/<image>, with the same classes "
                "in train/ and test/."
            )
    if train_classes != test_classes:
        only = {"train": set(train_classes) - set(test_classes), "test": set(test_classes) - set(train_classes)}
        told = " and ".join(f"{', '.join(sorted(names))} only in {split}/" for split, names in only.items() if names)
        raise InputError(f"The classes of {path} differ: {told}; every class needs images in both.")
    if len(train_classes) < 2:
        raise InputError(f"{path} has one class, {train_classes[0]}: a classifier needs two at least.")
    return Dataset(
        classes=tuple(train_classes),
        train=_stack(parts["train"], train_classes),
        test=_stack(parts["test"], train_classes),
        source=f"{config.source}: {origin}" if config.source else origin,
        licence=config.licence,
    )


def read_images(folder: Path, image_shape: tuple[int, int, int]) -> Tensor:
    """All images below a folder, whatever its sub-folders, in the order of their paths: uint8, (N, C, H, W).

    Hidden files are passed over; every other file must be an image, which is converted to the shape.

    Raises:
        InputError: Names what is missing, damaged, unsafe or not an image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of images: name one.")
    images: list[NDArray[np.uint8]] = []
    for path in sorted(_below(folder)):
        if (len(images) + 1) * math.prod(image_shape) > MAX_DATASET_BYTES:
            raise InputError(f"{folder} is larger than {MAX_DATASET_BYTES >> 30} GiB: take fewer images.")
        images.append(_decode(_content(path, folder), str(path), image_shape))
    if not images:
        raise InputError(f"{folder} holds no images: name another folder.")
    return torch.from_numpy(np.stack(images))


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden; links to folders are not followed."""
    for path, is_folder in _listed(folder):
        if not is_folder:
            yield path
        elif not path.is_symlink():
            yield from _below(path)


def _stack(images: dict[tuple[str, str], NDArray[np.uint8]], classes: list[str]) -> LabelledImages:
    """Sorted by class and name, whatever the order in which they were read."""
    keys, numbers = sorted(images), {label: number for number, label in enumerate(classes)}
    return LabelledImages(
        torch.from_numpy(np.stack([images[key] for key in keys])),
        torch.tensor([numbers[label] for label, _ in keys]),
    )


def _decode(content: bytes, where: str, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image file as uint8 (C, H, W): upright, grey or RGB without alpha, resized bilinearly (aspect not kept)."""
    channels, height, width = image_shape
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, which tell of its own source
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{where} has {image.width}x{image.height} pixels: at most {MAX_PIXELS:,} are read.")
            if image.mode.startswith(("I", "F")):
                # Pillow would clip 16 bits to 8, and make white of almost everything.
                raise InputError(f"{where} has pixels of more than 8 bits (mode {image.mode}): convert it to 8 bits.")
            image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
    except InputError:
        raise
    except Image.DecompressionBombError:  # Pillow's own bound, of several times as many
        raise InputError(f"{where} has far too many pixels: at most {MAX_PIXELS:,} are read.") from None
    except Exception as error:  # decoders of damaged files fail in every possible way
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{where} is not a readable image ({reason}): replace or remove it.") from None


def _open(path: Path, sha256: dict[str, str]) -> tuple[str, Iterator[File]]:
    """What an image folder is, in words without machine paths, and its files."""
    if not path.exists():
        raise InputError(f"The image folder {path} does not exist.")
    if not path.is_dir():
        if not is_archive(path):
            raise InputError(f"{path} is no archive that can be read: expected {', '.join(ARCHIVES)}, or a folder.")
        archives = [path]
    elif (path / "train").is_dir() or (path / "test").is_dir():
        archives = []
    else:
        inside = _listed(path)
        archives = [file for file, _ in inside if is_archive(file)]
        if not archives:
            found = listed([_shown(f"{entry.name}/") for entry, is_folder in inside if is_folder], 5)
            raise InputError(
                f"{path} is no image folder: expected train/ and test/ with class sub-folders, or archives of them "
                f"({', '.join(ARCHIVES)}), but found {found}."
            )
    digests = {archive.name: digest(archive, "sha256") for archive in archives}
    for name, expected in sha256.items():
        if name not in digests:
            raise InputError(f"{path} has no archive {name}, for which a sha256 is declared.")
        if digests[name] != expected.lower():
            raise InputError(
                f"{path if path.is_file() else path / name} is damaged or altered (SHA-256 {digests[name]}, expected "
                f"{expected}): get it again."
            )
    if not archives:
        return f"image folder {path.resolve().name}", _folder_files(path)
    origin = " and ".join(f"{name} (SHA-256 {digest})" for name, digest in digests.items())
    return f"image folder in {origin}", _packed_files(path, archives)


def _content(path: Path, root: Path) -> bytes:
    """What a file below a folder holds.

    Raises:
        InputError: It leads out of the folder, is no regular file, is too large, or cannot be read.
    """
    if not Path(os.path.realpath(path)).is_relative_to(
        os.path.realpath(root)
    ):  # which follows links in a circle without an error
        link = next((each for each in (path, *path.parents) if each.is_symlink()), path)
        raise InputError(f"{link} is a link that leads out of {root}: put what it leads to there.")
    try:
        expect_regular(path, MAX_FILE_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): mend or remove it.") from None


def digest(path: Path, algorithm: str) -> str:
    """The digest of a file's content.

    Raises:
        InputError: It cannot be read, or is no file of a size that can be meant.
    """
    try:
        expect_regular(path, MAX_ARCHIVE_BYTES)
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): mend or remove it.") from None


def _listed(folder: Path) -> list[tuple[Path, bool]]:
    """What lies in a folder and is not passed over, in order, and whether it is a folder.

    Path.glob would pass over a folder that may not be read, with all its images.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((Path(entry.path), entry.is_dir()) for entry in entries if not _passed_over(entry.name))
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be read ({error.strerror}): mend or remove it.") from None


def _folder_files(root: Path) -> Iterator[File]:
    splits = (path for path, is_folder in _listed(root) if is_folder and path.name in SPLITS)
    classes = [path for split in splits for path, is_folder in _listed(split) if is_folder]
    _expect_filled(root, {path.name for path in classes}, {path.name for path in classes if _listed(path)})
    for path, is_folder in (entry for label in classes for entry in _listed(label)):
        place = _place(path.relative_to(root).as_posix(), str(root))
        if place is None:
            continue
        if is_folder:
            raise InputError(f"{path} is a folder: images must lie directly in their class folder.")
        yield File(*place, where=str(path), content=_content(path, root))


def _packed_files(root: Path, archives: list[Path]) -> Iterator[File]:
    """The files of all archives."""
    classes, filled = set[str](), set[str]()
    for archive in archives:
        for file in _archive_files(archive, classes):
            filled.add(file.label)
            yield file
    _expect_filled(root, classes, filled)


def _expect_filled(root: Path, classes: set[str], filled: set[str]) -> None:
    """Refuse class folders without images: they would be no classes, and all later ones have other labels."""
    if empty := sorted(map(_shown, classes - filled)):
        raise InputError(f"{root}: the class folders {listed(empty)} are empty: delete them or fill them.")


def _archive_files(archive: Path, classes: set[str]) -> Iterator[File]:
    """The files of an archive in memory, one by one; nothing is unpacked to disk. Its class folders are added."""
    try:
        for name, size, is_link, read in archive_members(archive):
            classes.update(_class_folder(name))
            place = None if name.endswith("/") else _place(name, archive.name)
            if is_link:
                raise InputError(f"{archive} holds the link {_shown(name)}: pack the file itself.")
            if size > MAX_FILE_BYTES:
                raise InputError(
                    f"{archive} holds {_shown(name)} of {size:,} bytes: at most {MAX_FILE_BYTES:,} are read."
                )
            if place is not None:
                yield File(*place, where=f"{_shown(name)} in {archive}", content=read())
    except InputError:
        raise
    except DAMAGES as error:
        raise InputError(
            f"{archive} cannot be read, it is damaged or cut short ({error}): get it or make it again."
        ) from None


def _place(path: str, container: str) -> tuple[Split, str, str] | None:
    """Split, class and file name of a path such as ``any/folder/train/cat/1.png``; ``None`` if it has no such place.

    Classes are in Unicode's composed form: systems write one name in several, which look the same.

    Raises:
        InputError: The path leads out of its container, lies deeper than a class folder, or is not UTF-8.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise InputError(f"{container} holds the path {_shown(path)}, which leads out of it: refused.")
    if any(map(_passed_over, pure.parts)):
        return None
    for position, part in enumerate(pure.parts):
        if part in SPLITS:
            match pure.parts[position + 1 :]:
                case (label, file):
                    if (label, file) != (_shown(label), _shown(file)):  # no data set could be saved under such a name
                        raise InputError(f"{container} holds {path!a}, a name that is not UTF-8: rename it.")
                    return SPLITS[part], normalize("NFC", label), file
                case () | (_,):
                    return None
            raise InputError(f"{_shown(path)} in {container} lies too deep: expected {part}/<class>/<image>.")
    return None


def _class_folder(path: str) -> tuple[str, ...]:
    """The class folder that a path leads to or through, if there is one, such as ``cat`` of ``train/cat/``."""
    folders = PurePosixPath(path).parts[: None if path.endswith("/") else -1]
    position = next((i for i, part in enumerate(folders) if part in SPLITS), len(folders))
    within = folders[: position + 2]
    return (
        tuple(normalize("NFC", part) for part in within[position + 1 :]) if not any(map(_passed_over, within)) else ()
    )


def _passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems put beside others by themselves."""
    return name.startswith(".") or name.casefold() in IGNORED_NAMES


def _shown(name: str) -> str:
    """A name as it can be printed: its bytes that are no UTF-8, which are surrogates in Python, as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
