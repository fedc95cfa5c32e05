"""Image folders and archives of them: what they become, and what they are refused for."""

import errno
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import equal, picture, read, small, write_folder, write_tar, write_zip
from PIL import Image

from netinv.core import InputError
from netinv.data import (
    FetchConfig,
    fetch_dataset,
    folders,
    read_images,
)

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
        "train/cat/Thumbs.db": b"",
        "train/cat/thumbs.db": b"",
        "test/desktop.ini": b"",
        "test/dog/Desktop.ini": b"",
        "train/__MACOSX/._cat": b"",
        "__MACOSX/train/cat/._0.png": b"",
        "validation/cat/1.png": picture(),
    }
    assert equal(read(write_folder(tmp_path / "pets", small(**others))), data)
    assert equal(read(write_zip(tmp_path / "pets.zip", small(**others))), data)


def test_a_class_is_one_whatever_the_form_in_which_systems_write_its_name(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    files = {name.replace("cat", composed): content for name, content in small().items()}
    data = read(write_folder(tmp_path / "composed", files))
    assert data.classes == (composed, "dog")
    files = {name.replace("test/cat", f"test/{apart}").replace("cat", composed): f for name, f in small().items()}
    for path in (write_folder(tmp_path / "mixed", files), write_zip(tmp_path / "mixed.zip", files)):
        assert equal(read(path), data)
    files[f"train/{apart}/0.png"] = picture()
    with pytest.raises(InputError, match=r"0\.png .*is there twice"):
        read(write_zip(tmp_path / "twice.zip", files))


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
        ({"image_shape": [1, 0, 8]}, r"image_shape.1: expected greater than or equal to 1, got 0"),
        ({"image_shape": [1, 8]}, "image_shape"),
        ({"image_shape": [1, 8, 8], "sahpe": 1}, r"fetch\.folders\.pets\.sahpe is not a known key \(there are: path, "),
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
    files |= {f"{split}/other/{i}.png": picture() for i, split in enumerate(("train", "test"))}
    path = write_zip(tmp_path / "all.zip", files)
    names = sorted(labelled)
    rgb = dict(zip(names, read(path, (3, 8, 4)).train.images[: len(names)], strict=True))
    assert rgb["grey.png"].unique().tolist() == [200]
    assert rgb["turned.png"][:, :3].unique().tolist() == [255]
    assert rgb["turned.png"][:, 5:].unique().tolist() == [0]
    for name in names[:3] + names[4:6]:
        if name != "grey.png":
            # A JPEG of pure red may be one or two off.
            assert (rgb[name].int() - torch.tensor([255, 0, 0])[:, None, None]).abs().max() <= 2, name
    grey = dict(zip(names, read(path, (1, 8, 4)).train.images[: len(names)], strict=True))
    assert grey["rgb.png"].unique().tolist() == [76]  # 0.299 * 255, the luma of ITU-R 601
    assert grey["grey.png"].unique().tolist() == [200]


def test_warnings_of_decoders_are_not_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    read(write_folder(tmp_path / "pets", small(**{"train/cat/9.png": picture(1, "P", transparency=b"\x80")})))
    assert not recwarn.list


def declared(width: int, height: int) -> bytes:
    """A PNG that has so many pixels by its head alone."""
    content = bytearray(picture())
    struct.pack_into(">II", content, 16, width, height)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)


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
        (declared(10000, 6000), "10000x6000 pixels: at most 50,000,000 are read"),
        (declared(10000, 9500), "10000x9500 pixels: at most 50,000,000 are read"),
        (declared(20000, 20000), "far too many pixels: at most 50,000,000 are read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "no known image format"),
    ],
    ids=["text", "empty", "cut png", "cut jpeg", "16 bits", "large", "larger", "bomb", "program"],
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
        ({}, r"no image folder: expected train/ and test/ .*, but found nothing\.$"),
        ({"Train/cat/1.png": picture(), "val/cat/1.png": picture(), "1.png": b""}, r", but found Train/, val/\.$"),
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
    with pytest.raises(InputError, match=r"4\.png is a link that leads out of .*put what it leads to there"):
        read(folder)


def test_a_class_that_lies_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "train/dog").rename(tmp_path / "dogs")
    (folder / "train/dog").symlink_to(tmp_path / "dogs")
    with pytest.raises(InputError, match=r"train/dog is a link that leads out of"):
        read(folder)


@pytest.mark.parametrize("kind", ["pipe", "device", "holes", "absent", "circle"])
def test_only_regular_files_of_bounded_size_are_opened(folder: Path, kind: str) -> None:
    path = folder / "train/cat/3.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "absent":
        path.symlink_to("nowhere.png")
    elif kind == "circle":
        path.symlink_to("3.png")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    expected = {
        "pipe": "no regular file",
        "device": "leads out of",
        "holes": "bytes, and at most",
        "absent": "cannot be read",
        "circle": "cannot be read",
    }
    with pytest.raises(InputError, match=rf"3\.png .*{expected[kind]}"):
        read(folder)


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/train/cat/\xff.png")).write_bytes(picture())
    with pytest.raises(InputError, match=r"a name that is not UTF-8: rename it") as raised:
        read(folder)
    str(raised.value).encode()


@pytest.mark.parametrize("place", ["", "train", "dog"])
def test_no_class_is_lost_where_a_folder_cannot_be_read(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions, which the administrator's tests are not held to."""
    listed = os.scandir

    def refused(path: str) -> Any:
        if Path(path).name == (place or folder.name):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match=rf"{place or folder.name} cannot be read \(Permission denied\)"):
        read(folder)
    with pytest.raises(InputError, match=rf"{place or folder.name} cannot be read \(Permission denied\)"):
        read_images(folder, (1, 4, 4))


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
