"""The data sets that torchvision downloads and checks, from the network or from a local copy of its files."""

import io
import os
import queue
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from netinv.core import FULL, InputError
from netinv.data.dataset import Dataset, LabelledImages
from netinv.data.folders import FolderConfig, digest, read_image_folder

DIGITS = tuple("0123456789")
ANSWER_SECONDS = 10.0
"""How long a server may stay silent."""


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
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{official.title} cannot be downloaded ({reason}): try again with a network, "
            f"or name a folder that holds {next(iter(published.layouts[0]))} by fetch.mirror in params.yaml, "
            f"NETINV_MIRROR or --mirror, or an image folder by fetch.folders.{name}."
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
        raise InputError(f"The mirror {mirror} is no folder: correct fetch.mirror, NETINV_MIRROR or --mirror.")
    # The root of a disk may have folders that may not be read, such as lost+found.
    below = (path for path in mirror.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK))
    for root in (mirror, *sorted(below)):
        for layout in published.layouts:
            missing = [file for file in layout if not (root / file).is_file()]
            if len(missing) == len(layout):
                continue
            if missing:
                raise InputError(
                    f"The mirror's copy of {official.title} is incomplete: {root} lacks {', '.join(missing)}."
                )
            for file, md5 in layout.items():
                if (actual := digest(root / file, "md5")) != md5:
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
            answers.put(None)  # it answers; the download tells what is wrong
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
