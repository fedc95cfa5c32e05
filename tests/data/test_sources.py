"""Sources of data sets: real files where they are at hand, small made ones for everything that can go wrong."""

import gzip
import hashlib
import http.server
import pickle
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from draws import numpy_rng
from image_files import listing, write_folder, write_tar
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits
from torchvision import datasets

from netinv.core import InputError
from netinv.data import (
    BUILT_IN,
    FetchConfig,
    fetch_dataset,
    official,
    save_dataset,
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
