"""Where data sets come from: scikit-learn's digits, torchvision's downloads or a mirror of them, image folders.

Every source ends in the same :class:`Dataset`, ready for :func:`netinv.data.save_dataset`. The result depends on the
images alone and not on the machine or the way they came: a download and a mirror give the same files, and so do an
image folder and an archive of it.
"""

import errno
import gzip
import hashlib
import io
import math
import queue
import socket
import stat
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field, PositiveInt, StringConstraints
from tqdm import tqdm

from netinv.config import Config
from netinv.data import LabelledImages, Split
from netinv.errors import InputError

DIGITS = tuple("0123456789")
ARCHIVES = (".tar.gz", ".tgz", ".zip")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's decoders that a file may reach; some of the others run programs."""
MAX_FILE_BYTES = 64 * 2**20
"""Largest file of an archive."""
MAX_PIXELS = 50_000_000
"""Largest image, before it is resized."""
MAX_DATASET_BYTES = 8 * 2**30
"""Largest data set, as tensors: stages hold them in memory."""
SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
ANSWER_SECONDS = 10.0
"""How long a server may stay silent."""


class FolderConfig(Config):
    """An image folder: ``train/<class>/<image>`` and ``test/<class>/<image>``."""

    path: str
    """The folder, an archive of it (.tar.gz, .tgz, .zip), or a folder of archives that hold it together."""
    image_shape: tuple[Literal[1, 3], PositiveInt, PositiveInt]
    """(C, H, W) that every image is converted to: 1 channel is grey, 3 are RGB."""
    source: str = ""
    """What the images are, in words, for reports."""
    licence: str = "Not stated."
    """What their owner says about their use."""
    sha256: dict[str, str] = Field(default={})
    """Expected SHA-256 of the archives, by file name; an archive that differs is refused."""


class FetchConfig(Config):
    """Where the fetch stage looks for images."""

    mirror: str | None = None
    """Folder in torchvision's layout that is read in place of a download; ``None`` downloads."""
    folders: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")], FolderConfig] = Field(default={})
    """Image folders by name: of a built-in data set, in its place, or of a new one."""


class Dataset(NamedTuple):
    """A data set as its source gives it."""

    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages
    source: str
    licence: str


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
        raise InputError(f"Unknown data set {name!r}: known are {known}, and fetch.folders adds more.")
    return download(name) if config.mirror is None else read_mirror(name, Path(config.mirror).expanduser())


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


# ---- torchvision's data sets


class Published(NamedTuple):
    """The files of an official data set, as torchvision lists them, and how it reads them."""

    urls: list[str]
    """Where the first file is; any of them will do."""
    layouts: list[dict[str, str]]
    """MD5 by path below torchvision's root; one dictionary for each set of files that is enough."""
    read: Callable[[Path], tuple[Sequence[str], list[LabelledImages]]]
    """Classes and the two splits from torchvision's root; downloads what is not there."""


class Official(NamedTuple):
    """A data set that torchvision downloads and checks."""

    title: str
    image_shape: tuple[Literal[1, 3], int, int]
    licence: str
    published: Callable[[], Published]


def _mnist_like(name: Literal["MNIST", "FashionMNIST"]) -> Published:
    from torchvision import datasets

    mnist = getattr(datasets, name)

    def read(root: Path) -> tuple[Sequence[str], list[LabelledImages]]:
        parts = [mnist(root, train=train, download=True) for train in (True, False)]
        classes = DIGITS if name == "MNIST" else mnist.classes
        return classes, [LabelledImages(part.data[:, None], part.targets) for part in parts]

    first = mnist.resources[0][0]
    return Published(
        urls=[mirror + first for mirror in mnist.mirrors],
        layouts=[{f"{name}/raw/{file}": md5 for file, md5 in mnist.resources}],
        read=read,
    )


def _svhn() -> Published:
    from torchvision.datasets import SVHN

    def read(root: Path) -> tuple[Sequence[str], list[LabelledImages]]:
        parts = [SVHN(root, split=split, download=True) for split in ("train", "test")]
        return DIGITS, [LabelledImages(torch.tensor(part.data), torch.tensor(part.labels)) for part in parts]

    files = [SVHN.split_list[split] for split in ("train", "test")]
    return Published(urls=[files[0][0]], layouts=[{file: md5 for _, file, md5 in files}], read=read)


def _cifar10() -> Published:
    from torchvision.datasets import CIFAR10

    def read(root: Path) -> tuple[Sequence[str], list[LabelledImages]]:
        # The files are pickles. torchvision loads them only after their MD5, that of known files, has been checked.
        parts = [CIFAR10(root, train=train, download=True) for train in (True, False)]
        return parts[0].classes, [
            LabelledImages(torch.tensor(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets)) for part in parts
        ]

    unpacked = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    return Published(
        urls=[CIFAR10.url],
        layouts=[
            {CIFAR10.filename: CIFAR10.tgz_md5},
            {f"{CIFAR10.base_folder}/{file}": md5 for file, md5 in unpacked},
        ],
        read=read,
    )


OFFICIAL: dict[str, Official] = {
    "mnist": Official(
        "MNIST",
        (1, 28, 28),
        "Y. LeCun, C. Cortes and C. Burges; no licence is stated with the files.",
        partial(_mnist_like, "MNIST"),
    ),
    "fashion_mnist": Official(
        "Fashion-MNIST", (1, 28, 28), "Zalando SE, MIT licence.", partial(_mnist_like, "FashionMNIST")
    ),
    "svhn": Official("SVHN", (3, 32, 32), "Y. Netzer et al., non-commercial use only.", _svhn),
    "cifar10": Official("CIFAR-10", (3, 32, 32), "A. Krizhevsky; no licence is stated with the files.", _cifar10),
}
BUILT_IN: tuple[str, ...] = ("digits", *OFFICIAL)
"""Data sets that need no configuration."""


def download(name: str) -> Dataset:
    """Let torchvision download a data set and check it.

    Raises:
        InputError: No server answers within seconds, or what it sends is damaged.
    """
    official = OFFICIAL[name]
    published = official.published()
    try:
        _expect_answer(published.urls)
        with _patient_and_quiet():
            return _read_official(official, published, links={})
    except (RuntimeError, OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{official.title} cannot be downloaded ({reason}): try again with a network, "
            f"or name a folder that holds {next(iter(published.layouts[0]))} by fetch.mirror in params.yaml or by "
            f"NETINV_MIRROR, or an image folder by fetch.folders.{name}."
        ) from None


def read_mirror(name: str, mirror: Path) -> Dataset:
    """Read a data set from a local copy of torchvision's files, without network, and without writing to the copy.

    The files are looked for in the mirror and one folder below. Where there are none, the folder named like the data
    set may be an image folder instead, and the source of the result says so.

    Raises:
        InputError: The files are missing, or are not the official ones.
    """
    official = OFFICIAL[name]
    published = official.published()
    if not mirror.is_dir():
        raise InputError(f"The mirror {mirror} is no folder: correct fetch.mirror in params.yaml or NETINV_MIRROR.")
    for root in (mirror, *sorted(path for path in mirror.iterdir() if path.is_dir())):
        for layout in published.layouts:
            missing = [file for file in layout if not (root / file).is_file()]
            if len(missing) == len(layout):
                continue
            if missing:
                raise InputError(
                    f"The mirror's copy of {official.title} is incomplete: {root} lacks {', '.join(missing)}."
                )
            for file, md5 in layout.items():
                if (actual := _digest(root / file, "md5")) != md5:
                    raise InputError(
                        f"{root / file} is damaged, or not the official file of {official.title} "
                        f"(MD5 {actual}, expected {md5}): get it again."
                    )
            return _read_official(official, published, links={file: root / file for file in layout})
    if (mirror / name).is_dir():
        copy = FolderConfig(
            path=str(mirror / name),
            image_shape=official.image_shape,
            source=f"A copy of {official.title} as images, not the official files",
            licence=official.licence,
        )
        return read_image_folder(copy)
    raise InputError(
        f"The mirror {mirror} has no {official.title}: expected {', '.join(published.layouts[0])} there or one folder "
        f"below, or an image folder {name}."
    )


def _read_official(official: Official, published: Published, links: dict[str, Path]) -> Dataset:
    """Read from a temporary root, since torchvision unpacks files next to where they lie."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for file, target in links.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).symlink_to(target.resolve())
        classes, (train, test) = published.read(root)
    source = f"{official.title}, the official files, checked against torchvision's MD5 sums"
    return Dataset(tuple(classes), train, test, source, official.licence)


def _expect_answer(urls: Sequence[str]) -> None:
    """Fail within seconds where a download would try for minutes: a dead name server, one dead address after another.

    Raises:
        TimeoutError: No server answers in time.
        URLError: Every server is unreachable.
    """
    answers: queue.SimpleQueue[OSError | HTTPException | None] = queue.SimpleQueue()

    def probe(url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
        except urllib.error.HTTPError:
            answers.put(None)  # it speaks; what it says is for the download to judge
        except (OSError, HTTPException) as error:
            answers.put(error)
        else:
            answers.put(None)

    for url in urls:
        threading.Thread(target=probe, args=(url,), daemon=True).start()
    deadline = time.monotonic() + ANSWER_SECONDS
    error = None
    for _ in urls:
        try:
            error = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"no answer in {ANSWER_SECONDS:g} s") from None
        if error is None:
            return
    if error is not None:
        raise error


@contextmanager
def _patient_and_quiet() -> Iterator[None]:
    """A time limit on torchvision's sockets, which have none, and its progress bars on terminals only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_SECONDS)
    try:
        with redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


# ---- image folders


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
    path = Path(config.path).expanduser()
    origin, files = _open(path, config.sha256)
    size = math.prod(config.image_shape)
    parts: dict[Split, dict[tuple[str, str], NDArray[np.uint8]]] = {"train": {}, "test": {}}
    for file in tqdm(files, f"read {path.name}", unit=" images", disable=None):
        images = parts[file.split]
        if (file.label, file.name) in images:
            raise InputError(f"{file.where} is there twice: remove one.")
        if sum(map(len, parts.values())) * size > MAX_DATASET_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_DATASET_BYTES >> 30} GiB as images of shape {config.image_shape}: "
                "declare a smaller image_shape or take fewer images."
            )
        images[file.label, file.name] = _decode(file, config.image_shape)
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
    return Dataset(
        classes=tuple(train_classes),
        train=_stack(parts["train"], train_classes),
        test=_stack(parts["test"], train_classes),
        source=f"{config.source}: {origin}" if config.source else origin,
        licence=config.licence,
    )


def _stack(images: dict[tuple[str, str], NDArray[np.uint8]], classes: list[str]) -> LabelledImages:
    """Sorted by class and name, whatever the order in which they were read."""
    keys = sorted(images)
    return LabelledImages(
        torch.from_numpy(np.stack([images[key] for key in keys])),
        torch.tensor([classes.index(label) for label, _ in keys]),
    )


def _decode(file: File, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image file as uint8 (C, H, W): upright, grey or RGB without alpha, resized bilinearly (aspect not kept)."""
    channels, height, width = image_shape
    try:
        image: Image.Image = Image.open(io.BytesIO(file.content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"{file.where} has {image.width}x{image.height} pixels: at most {MAX_PIXELS:,} are read.")
        if image.mode.startswith(("I", "F")):
            # Pillow would clip 16 bits to 8, and make white of almost everything.
            raise InputError(f"{file.where} has pixels of more than 8 bits (mode {image.mode}): convert it to 8 bits.")
        image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files fail in every possible way
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{file.where} is not a readable image ({reason}): replace or remove it.") from None


def _open(path: Path, sha256: dict[str, str]) -> tuple[str, Iterator[File]]:
    """What an image folder is, in words without machine paths, and its files."""
    if not path.exists():
        raise InputError(f"The image folder {path} does not exist.")
    if path.is_file():
        if not path.name.endswith(ARCHIVES):
            raise InputError(f"{path} is no archive that can be read: expected {', '.join(ARCHIVES)}.")
        archives = [path]
    elif (path / "train").is_dir() or (path / "test").is_dir():
        archives = []
    else:
        archives = sorted(file for file in path.iterdir() if file.name.endswith(ARCHIVES))
        if not archives:
            raise InputError(
                f"{path} is no image folder: expected train/ and test/ with class sub-folders, or archives of them "
                f"({', '.join(ARCHIVES)})."
            )
    digests = {archive.name: _digest(archive, "sha256") for archive in archives}
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
    return f"image folder in {origin}", (file for archive in archives for file in _archive_files(archive))


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def _folder_files(root: Path) -> Iterator[File]:
    for path in sorted(path for split in ("train", "test") for path in root.glob(f"{split}/*/*")):
        place = _place(path.relative_to(root).as_posix(), str(root))
        if place is None:
            continue
        if path.is_dir():
            raise InputError(f"{path} is a folder: images must lie directly in their class folder.")
        try:
            yield File(*place, where=str(path), content=path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def _archive_files(archive: Path) -> Iterator[File]:
    """The files of an archive in memory, one by one; nothing is unpacked to disk."""
    members = _zip_members if archive.name.endswith(".zip") else _tar_members
    try:
        for name, size, is_link, read in members(archive):
            place = _place(name, archive.name)
            if is_link:
                raise InputError(f"{archive} holds the link {name}: pack the file itself.")
            if size > MAX_FILE_BYTES:
                raise InputError(f"{archive} holds {name} of {size:,} bytes: at most {MAX_FILE_BYTES:,} are read.")
            if place is not None:
                yield File(*place, where=f"{name} in {archive}", content=read())
    except (OSError, EOFError, RuntimeError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        # RuntimeError: a zip file with a password, or with a compression that Python lacks.
        raise InputError(
            f"{archive} cannot be read, it is damaged or cut short ({error}): get it or make it again."
        ) from None


Member = tuple[str, int, bool, Callable[[], bytes]]
"""Path, size in bytes, whether it is a link or a device, and a function that reads it."""


def _tar_members(archive: Path) -> Iterator[Member]:
    with gzip.open(archive) as stream:
        # tarfile's own decompression of a stream does not check the sum at its end; gzip's does, when it is read.
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, member.size, not member.isfile(), partial(_read_member, tar, member)
        while stream.read(2**20):
            pass


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if not member.is_dir():
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                yield member.filename, member.file_size, is_link, partial(file.read, member)


def _place(path: str, container: str) -> tuple[Split, str, str] | None:
    """Split, class and file name of a path such as ``any/folder/train/cat/1.png``; ``None`` if it has no such place.

    Raises:
        InputError: The path leads out of its container, or lies deeper than a class folder.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise InputError(f"{container} holds the path {path}, which leads out of it: refused.")
    if any(part.startswith(".") for part in pure.parts):
        return None
    for position, part in enumerate(pure.parts):
        if part in SPLITS:
            match pure.parts[position + 1 :]:
                case (label, file):
                    return SPLITS[part], label, file
                case () | (_,):
                    return None
            raise InputError(f"{path} in {container} lies too deep: expected {part}/<class>/<image>.")
    return None
