"""Sources of data sets: real files where they are at hand, small made ones for everything that can go wrong."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from draws import numpy_rng
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits
from torchvision import datasets

from netinv.core import InputError
from netinv.data import (
    BUILT_IN,
    Dataset,
    FetchConfig,
    FolderConfig,
    fetch_dataset,
    folders,
    official,
    read_image_folder,
    save_dataset,
)

Make = Callable[[dict[str, bytes]], Path]


@pytest.fixture(scope="session")
def real_data(root: Path) -> Path:
    """A folder with mnist/, fashion-mnist/, svhn/ and cifar10/ as people have them on disk."""
    folder = Path(os.environ.get("NETINV_TEST_DATA") or root.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: NETINV_TEST_DATA names no folder, and ../shared/data does not exist")
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect is an error of its own kind."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all that a folder holds."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def picture(
    colour: Any = 128, mode: str = "L", size: tuple[int, int] = (4, 4), kind: str = "png", **options: Any
) -> bytes:
    """An image file of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind, **options)
    return file.getvalue()


def small(**others: bytes) -> dict[str, bytes]:
    """The files of a small image folder: two classes, three images each, every one of its own grey."""
    files = {}
    for i, split in enumerate(("train", "test")):
        for j, label in enumerate(("cat", "dog")):
            for k in range(3):
                files[f"{split}/{label}/{k}.png"] = picture(100 * i + 10 * j + k)
    return files | others


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_tar(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read(path: Path, image_shape: tuple[int, int, int] = (1, 4, 4), **options: Any) -> Dataset:
    return read_image_folder(FolderConfig(path=str(path), image_shape=image_shape, **options))  # type: ignore[arg-type]


def equal(a: Dataset, b: Dataset) -> bool:
    """The same classes, images and labels."""
    return a.classes == b.classes and all(
        torch.equal(x, y) for i in ("train", "test") for x, y in zip(getattr(a, i), getattr(b, i), strict=True)
    )


# ---- digits


def test_digits_are_scikit_learns(no_network: None) -> None:
    data = fetch_dataset("digits", FetchConfig())
    assert (len(data.train.labels), len(data.test.labels)) == (1442, 355)
    assert data.classes == tuple("0123456789")
    counts = np.bincount(sklearn_digits().target)
    assert data.test.labels.bincount().tolist() == (counts // 5).tolist()
    # The fifth zero of scikit-learn is the first zero among the test images.
    original = sklearn_digits().images[sklearn_digits().target == 0][4]
    enlarged = data.test.images[data.test.labels == 0][0, 0]
    assert enlarged.shape == (16, 16)
    independent = Image.fromarray(original.astype(np.float32)).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(enlarged.numpy(), np.asarray(independent) * 255 / 16, atol=0.51)
    assert data.train.images.max() == 255


# ---- torchvision's data sets


@pytest.mark.parametrize(
    ("name", "folder", "per_class"),
    [
        ("mnist", "mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("fashion_mnist", "fashion-mnist", [6000] * 10),
    ],
)
@pytest.mark.parametrize("below", [True, False])
def test_mirror(real_data: Path, no_network: None, name: str, folder: str, per_class: list[int], below: bool) -> None:
    before = listing(real_data)
    mirror = real_data if below else real_data / folder
    data = fetch_dataset(name, FetchConfig(mirror=str(mirror)))
    assert listing(real_data) == before
    assert data.train.images.shape == (60000, 1, 28, 28)
    assert data.test.images.shape == (10000, 1, 28, 28)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.bincount().tolist() == per_class
    assert len(data.classes) == 10
    # Image 7 as the IDX format has it: pixels after a header of 16 bytes.
    (raw,) = (real_data / folder).glob("*/raw/train-images-idx3-ubyte.gz")
    with gzip.open(raw) as file:
        pixels = np.frombuffer(file.read(16 + 8 * 784)[16 + 7 * 784 :], np.uint8)
    assert np.array_equal(data.train.images[7].numpy().ravel(), pixels)


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_damaged_mirror_is_refused_without_download(
    real_data: Path, no_network: None, tmp_path: Path, damage: str
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(real_data / "mnist", mirror)
    file = mirror / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    (mirror / "MNIST/raw").chmod(0o755)
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    if damage == "altered":
        file.write_bytes(content)
    elif damage == "truncated":
        file.write_bytes(content[:1000])
    else:
        file.unlink()
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz") as caught:
        fetch_dataset("mnist", FetchConfig(mirror=str(mirror)))
    assert ("incomplete" if damage == "missing" else "damaged") in str(caught.value)


def test_mirror_without_the_data_set_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no MNIST: expected MNIST/raw/train-images-idx3-ubyte\.gz.*image folder mnist"
    ):
        fetch_dataset("mnist", FetchConfig(mirror=str(tmp_path)))
    with pytest.raises(InputError, match=r"no folder: correct fetch.mirror"):
        fetch_dataset("mnist", FetchConfig(mirror=str(tmp_path / "absent")))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_svhn_of_torchvision(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    images = numpy_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)  # (H, W, C, N)
    listed = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": images, "y": np.array([[10], [1], [2], [9]], np.uint8)})
        listed[split] = ["http://localhost/", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    data = fetch_dataset("svhn", FetchConfig(mirror=str(tmp_path)))
    assert data.train.labels.tolist() == [0, 1, 2, 9]
    assert np.array_equal(data.train.images.numpy(), images.transpose(3, 2, 0, 1))
    assert "official" in data.source
    assert "non-commercial" in data.licence


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_of_torchvision(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    cifar10 = datasets.CIFAR10
    images = numpy_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    batch = pickle.dumps({"data": images.reshape(2, 3072), "labels": [3, 5]})
    meta = pickle.dumps({"label_names": list("abcdefghij")})
    batches = [file for file, _ in (*cifar10.train_list, *cifar10.test_list)]
    monkeypatch.setattr(cifar10, "train_list", [[file, md5(batch)] for file in batches[:-1]])
    monkeypatch.setattr(cifar10, "test_list", [[batches[-1], md5(batch)]])
    monkeypatch.setattr(cifar10, "meta", {**cifar10.meta, "md5": md5(meta)})
    files = {f"{cifar10.base_folder}/{file}": batch for file in batches}
    files[f"{cifar10.base_folder}/batches.meta"] = meta
    if packed:
        archive = write_tar(tmp_path / cifar10.filename, files)
        monkeypatch.setattr(cifar10, "tgz_md5", md5(archive.read_bytes()))
    else:
        write_folder(tmp_path, files)
    before = listing(tmp_path)
    data = fetch_dataset("cifar10", FetchConfig(mirror=str(tmp_path)))
    assert listing(tmp_path) == before
    assert data.classes == tuple("abcdefghij")
    assert data.train.labels.tolist() == [3, 5] * 5
    assert np.array_equal(data.test.images.numpy(), images)


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, and remembers what was asked of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Logs to the server object."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Remember a request."""
        self.server.asked.append(str(arguments[0]))  # type: ignore[attr-defined]


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    running = []

    def start(folder: Path) -> Server:
        server = Server(folder)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def test_download_gives_what_the_mirror_gives(
    real_data: Path,
    serve: Callable[[Path], Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = serve(real_data / "mnist/MNIST/raw")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [server.url])
    downloaded = fetch_dataset("mnist", FetchConfig())
    assert any(line.startswith("GET /train-images-idx3-ubyte.gz") for line in server.asked)
    assert capfd.readouterr().err == ""
    specs = []
    for name, data in (("a", downloaded), ("b", fetch_dataset("mnist", FetchConfig(mirror=str(real_data))))):
        (tmp_path / name).mkdir()
        specs.append(save_dataset(tmp_path / name, "mnist", *data))
    assert specs[0] == specs[1]


def test_damaged_download_is_refused(
    serve: Callable[[Path], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, _ in datasets.MNIST.resources:
        (tmp_path / file).write_bytes(gzip.compress(b"not MNIST"))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(tmp_path).url])
    with pytest.raises(InputError, match=r"MNIST cannot be downloaded.*corrupted"):
        fetch_dataset("mnist", FetchConfig())


@pytest.mark.parametrize("kind", ["no route", "no names", "silent", "stalling"])
def test_no_network_fails_within_seconds_and_tells_of_the_mirror(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(official, "ANSWER_SECONDS", 0.5)
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        """Accept every connection; stalling, begin an answer and never end it."""
        connections = []
        while not over.is_set():
            connection, _ = listener.accept()
            connections.append(connection)
            if kind == "stalling":
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        for connection in connections:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        address = ("127.0.0.1", 9) if kind == "no route" else listener.getsockname()
        url = f"http://{address[0]}:{address[1]}/"
        listed = {split: [url, f"{split}.mat", "0"] for split in ("train", "test")}
        monkeypatch.setattr(datasets.SVHN, "split_list", listed)
        if kind == "no names":
            monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: over.wait(30) and [])
        start = time.monotonic()
        try:
            with pytest.raises(InputError, match=r"SVHN cannot be .*NETINV_MIRROR.*fetch\.folders\.svhn") as caught:
                fetch_dataset("svhn", FetchConfig())
            assert time.monotonic() - start < 10
        finally:
            monkeypatch.undo()
            over.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()
    assert "\n" not in str(caught.value)
    assert socket.getdefaulttimeout() is None


def test_full_disk_is_not_taken_for_a_missing_network(
    serve: Callable[[Path], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(tmp_path).url])
    monkeypatch.setattr(datasets.MNIST, "download", no_space)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch_dataset("mnist", FetchConfig())
    assert not isinstance(caught.value, InputError)


def test_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError, match="Unknown data set 'imagenet': known are cifar10, digits, fashion_mnist, mnist"
    ):
        fetch_dataset("imagenet", FetchConfig())
    assert BUILT_IN == ("digits", "mnist", "fashion_mnist", "svhn", "cifar10")


# ---- image folders


def test_folder_and_archives_give_the_same_files(tmp_path: Path) -> None:
    files = small()
    data = read(write_folder(tmp_path / "pets", files))
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert data.test.images[:, 0, 0, 0].tolist() == [100, 101, 102, 110, 111, 112]
    assert data.source == "image folder pets"
    backwards = dict(reversed(files.items()))
    parts = {split: {name: files[name] for name in files if name.startswith(split)} for split in ("train", "test")}
    for split, part in parts.items():
        write_tar(tmp_path / f"parts/pets-{split}.tgz", part)
    (tmp_path / "parts/README.md").write_text("Pets.")
    for packed in (
        write_tar(tmp_path / "a.tar.gz", backwards),
        write_tar(tmp_path / "b.tgz", {f"./some/where/{name}": content for name, content in files.items()}),
        write_zip(tmp_path / "c.zip", backwards),
        tmp_path / "parts",
    ):
        assert equal(read(packed), data), packed
    digest = hashlib.sha256((tmp_path / "c.zip").read_bytes()).hexdigest()
    assert read(tmp_path / "c.zip", source="My pets").source == f"My pets: image folder in c.zip (SHA-256 {digest})"


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    data = read(write_folder(tmp_path / "plain", small()))
    others = {
        "README.md": b"Pets.",
        "train/labels.csv": b"0,1",
        "train/.DS_Store": b"",
        "train/cat/.hidden.png": b"",
        "__MACOSX/train/cat/._0.png": b"",
        "validation/cat/1.png": picture(),
    }
    assert equal(read(write_folder(tmp_path / "pets", small(**others))), data)
    assert equal(read(write_zip(tmp_path / "pets.zip", small(**others))), data)


def test_a_folder_replaces_a_built_in_data_set_and_adds_another(tmp_path: Path, no_network: None) -> None:
    folder = {"path": str(write_folder(tmp_path / "pets", small())), "image_shape": [1, 4, 4], "licence": "Ours."}
    config = FetchConfig.parse({"mirror": None, "folders": {"svhn": folder, "pets": folder}})
    for name in ("svhn", "pets"):
        data = fetch_dataset(name, config)
        assert data.classes == ("cat", "dog")
        assert data.licence == "Ours."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_shape": [2, 8, 8]}, r"image_shape.0: expected 1 or 3, got 2"),
        ({"image_shape": [1, 0, 8]}, r"image_shape.1: expected greater than 0, got 0"),
        ({"image_shape": [1, 8]}, "image_shape"),
        ({"image_shape": [1, 8, 8], "sahpe": 1}, "fetch.folders.pets.sahpe is not a known key"),
    ],
)
def test_impossible_configurations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FetchConfig.parse({"folders": {"pets": {"path": "p", **values}}}, where="fetch")


def test_name_of_a_data_set_cannot_be_a_path() -> None:
    folder = {"path": "p", "image_shape": [1, 8, 8]}
    with pytest.raises(InputError, match="pattern"):
        FetchConfig.parse({"folders": {"../pets": folder}})


def test_images_become_the_declared_shape(tmp_path: Path) -> None:
    sideways = Image.Exif()
    sideways[0x0112] = 6  # to be turned by 90 degrees
    half = Image.new("L", (8, 4), 0)
    half.paste(255, (0, 0, 4, 4))  # left half white; upright, the upper half
    turned = io.BytesIO()
    half.save(turned, "png", exif=sideways)
    red = (255, 0, 0)
    labelled = {
        "rgb.png": picture(red, "RGB"),
        "rgba.png": picture((*red, 128), "RGBA"),
        "palette.gif": picture(red, "RGB", kind="gif"),
        "cmyk.jpg": picture((0, 255, 255, 0), "CMYK", kind="jpeg", quality=100),
        "large.bmp": picture(red, "RGB", size=(64, 32), kind="bmp"),
        "grey.png": picture(200, "L"),
        "turned.png": turned.getvalue(),
    }
    files = {f"{split}/all/{name}": content for split in ("train", "test") for name, content in labelled.items()}
    path = write_zip(tmp_path / "all.zip", files)
    names = sorted(labelled)
    rgb = dict(zip(names, read(path, (3, 8, 4)).train.images, strict=True))
    assert rgb["grey.png"].unique().tolist() == [200]
    assert rgb["turned.png"][:, :3].unique().tolist() == [255]
    assert rgb["turned.png"][:, 5:].unique().tolist() == [0]
    for name in names[:3] + names[4:6]:
        if name != "grey.png":
            # A JPEG of pure red may be one or two off.
            assert (rgb[name].int() - torch.tensor([255, 0, 0])[:, None, None]).abs().max() <= 2, name
    grey = dict(zip(names, read(path, (1, 8, 4)).train.images, strict=True))
    assert grey["rgb.png"].unique().tolist() == [76]  # 0.299 * 255, the luma of ITU-R 601
    assert grey["grey.png"].unique().tolist() == [200]


def sixteen_bits() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), 5000, np.uint16)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "not a readable image .no known image format"),
        (b"", "not a readable image .no known image format"),
        (picture(kind="png", size=(64, 64), mode="RGB", colour=(1, 2, 3))[:-30], "not a readable image"),
        (picture(kind="jpeg", size=(64, 64))[:300], "not a readable image"),
        (sixteen_bits(), "more than 8 bits .mode I;16.: convert it to 8 bits"),
        (picture(size=(10000, 6000), mode="1", colour=0), "10000x6000 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "no known image format"),
    ],
    ids=["text", "empty", "cut png", "cut jpeg", "16 bits", "bomb", "program"],
)
def test_unreadable_image_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    files = small(**{"train/dog/bad.png": content})
    for path in (write_folder(tmp_path / "pets", files), write_tar(tmp_path / "pets.tgz", files)):
        with pytest.raises(InputError, match=reason) as caught:
            read(path)
        assert "train/dog/bad.png" in str(caught.value)
        assert "pets" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no image folder: expected train/ and test/"),
        (
            {"train/1.png": picture(), "test/1.png": picture()},
            r"no classes in train/: expected images as train/<class>",
        ),
        ({"train/cat/1.png": picture()}, "no classes in test/"),
        ({"test/cat/1.png": picture()}, "no classes in train/"),
        (small(**{"train/fox/1.png": picture()}), "classes of .* differ: fox only in train/; every class"),
        (
            small(**{"test/ant/1.png": picture(), "train/fox/1.png": picture()}),
            "fox only in train/ and ant only in test/",
        ),
        (small(**{"train/cat/old/1.png": picture()}), "old is a folder"),
    ],
)
def test_folder_of_another_layout(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    path = write_folder(tmp_path / "pets", files)
    path.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        read(path)


def test_missing_and_foreign_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent does not exist"):
        read(tmp_path / "absent")
    (tmp_path / "pets.rar").touch()
    with pytest.raises(InputError, match=r"pets.rar is no archive that can be read: expected .tar.gz, .tgz, .zip"):
        read(tmp_path / "pets.rar")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small image folder."""
    return write_folder(tmp_path / "animals", small())


def test_links_lead_to_files_of_the_same_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "train/cat/3.png").symlink_to("1.png")
    (tmp_path / "link").symlink_to(folder)  # as people do with large data
    assert len(read(tmp_path / "link").train.labels) == 7
    (tmp_path / "private.png").write_bytes(picture())
    (folder / "train/cat/4.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(InputError, match=r"4\.png is a link that leads out of .*put the file itself there"):
        read(folder)


def test_a_class_that_lies_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "train/dog").rename(tmp_path / "dogs")
    (folder / "train/dog").symlink_to(tmp_path / "dogs")
    with pytest.raises(InputError, match="leads out of"):
        read(folder)


@pytest.mark.parametrize("kind", ["pipe", "device", "holes", "absent"])
def test_only_regular_files_of_bounded_size_are_opened(folder: Path, kind: str) -> None:
    path = folder / "train/cat/3.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "absent":
        path.symlink_to("nowhere.png")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    expected = {
        "pipe": "no regular file",
        "device": "leads out of",
        "holes": "bytes: at most",
        "absent": "cannot be read",
    }
    with pytest.raises(InputError, match=rf"3\.png .*{expected[kind]}"):
        read(folder)


def test_archives_are_regular_files_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with (tmp_path / "holes.zip").open("wb") as file:
        file.truncate(2**40)
    for path, message in (
        (tmp_path / "pipe.zip", "no regular file"),
        (tmp_path / "holes.zip", "bytes: at most"),
        (tmp_path, "holes.zip has"),
        (Path("/dev/null"), "no archive that can be read"),
    ):
        with pytest.raises(InputError, match=message):
            read(path)


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/train/cat/\xff.png")).write_bytes(picture())
    with pytest.raises(InputError, match=r"a name that is not UTF-8: rename it") as raised:
        read(folder)
    str(raised.value).encode()


def test_archive_with_deeper_folders_loses_nothing_silently(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar.gz", small(**{"train/cat/old/1.png": picture()}))
    with pytest.raises(InputError, match=r"train/cat/old/1.png in pets.tar.gz lies too deep"):
        read(path)


def test_image_in_two_archives_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "pets/a.tar.gz", small())
    write_zip(tmp_path / "pets/b.zip", {"train/cat/0.png": picture()})
    with pytest.raises(InputError, match=r"train/cat/0.png in .*b.zip is there twice"):
        read(tmp_path / "pets")


@pytest.mark.parametrize("name", ["../train/cat/9.png", "/train/cat/9.png", "train/../../cat/9.png", "../notes.txt"])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_path_out_of_an_archive_is_refused(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    path = write(
        tmp_path / "in/pets.zip" if write is write_zip else tmp_path / "in/pets.tar.gz", small(**{name: picture()})
    )
    before = listing(tmp_path)
    with pytest.raises(InputError, match=r"pets\.\S+ holds the path .* which leads out of it: refused"):
        read(path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_link_in_a_tar_archive_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("train/cat/link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match=r"link train/cat/link.png"):
        read(write_tar(tmp_path / "pets.tar.gz", small(), member))


def test_link_in_a_zip_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "pets.zip", small())
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo("train/cat/link.png")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match=r"link train/cat/link.png"):
        read(path)


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_bounds_on_sizes(tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / ("pets.zip" if write is write_zip else "pets.tgz"), small(**{"huge.bin": bytes(5000)}))
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 4999)
    with pytest.raises(InputError, match=r"holds huge.bin of 5,000 bytes: at most 4,999 are read"):
        read(path)
    monkeypatch.undo()
    monkeypatch.setattr(folders, "MAX_DATASET_BYTES", 10 * 16)
    with pytest.raises(InputError, match="declare a smaller image_shape"):
        read(path)


@pytest.mark.parametrize("at", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_truncated_archive_is_refused(tmp_path: Path, write: Callable[..., Path], at: float) -> None:
    path = write(tmp_path / ("pets.zip" if write is write_zip else "pets.tar.gz"), small())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at)])
    with pytest.raises(InputError, match=r"pets\.\S+ cannot be read, it is damaged or cut short"):
        read(path)


def test_altered_archive_is_refused_wherever_it_was_altered(tmp_path: Path) -> None:
    noise = numpy_rng(0).integers(0, 256, (2, 16, 16), np.uint8)
    files = small()
    for split in ("train", "test"):
        file = io.BytesIO()
        Image.fromarray(noise[0]).save(file, "bmp")  # no checksum of its own
        files[f"{split}/cat/noise.bmp"] = file.getvalue()
    for path in (write_tar(tmp_path / "pets.tar.gz", files), write_zip(tmp_path / "pets.zip", files)):
        content = path.read_bytes()
        position = content.find(noise[0].tobytes()[:16]) if path.suffix == ".zip" else len(content) - 6
        assert position > 0
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(InputError, match=f"{path.name} cannot be read, it is damaged"):
            read(path)


def test_declared_checksum(tmp_path: Path) -> None:
    write_tar(tmp_path / "pets/a.tar.gz", small())
    digest = hashlib.sha256((tmp_path / "pets/a.tar.gz").read_bytes()).hexdigest()
    assert read(tmp_path / "pets", sha256={"a.tar.gz": digest.upper()}).classes == ("cat", "dog")
    with pytest.raises(InputError, match=rf"a.tar.gz is damaged or altered \(SHA-256 {digest}, expected 00\)"):
        read(tmp_path / "pets", sha256={"a.tar.gz": "00"})
    with pytest.raises(InputError, match=r"no archive b.tar.gz, for which a sha256 is declared"):
        read(tmp_path / "pets", sha256={"b.tar.gz": digest})


def test_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "pets.zip", small())
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    content[start + 8] |= 1  # the flag of an encrypted member, in the directory
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"pets.zip cannot be read.*encrypted"):
        read(path)


# ---- the copies of SVHN and CIFAR-10 as images


def test_mirror_with_a_copy_as_images(real_data: Path, no_network: None) -> None:
    before = listing(real_data / "svhn")
    data = fetch_dataset("svhn", FetchConfig(mirror=str(real_data)))
    assert listing(real_data / "svhn") == before
    assert data.train.images.shape == (17869, 3, 32, 32)
    assert data.test.images.shape == (5992, 3, 32, 32)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])  # grey
    assert data.classes == tuple("0123456789")
    assert "not the official files" in data.source
    assert "svhn-grey32-train.tar.gz" in data.source
    with tarfile.open(real_data / "svhn/svhn-grey32-test.tar.gz") as tar:
        first = tar.extractfile("test/0/00003.png")
        assert first is not None
        assert np.array_equal(data.test.images[0, 1].numpy(), np.asarray(Image.open(first)))


@pytest.mark.slow
def test_cifar10_as_images(real_data: Path, no_network: None) -> None:
    data = fetch_dataset("cifar10", FetchConfig(mirror=str(real_data)))
    assert data.train.images.shape == (50000, 3, 32, 32)
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"
