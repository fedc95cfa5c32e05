"""Every setting of the sources of data reaches what it is for."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netinv.core import InputError
from netinv.data import Dataset, FetchConfig, FolderConfig, fetch_dataset, fetching, read_image_folder


def folder(path: Path, grey: int = 100) -> Path:
    """One image of each of two classes in each split."""
    for i, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        (path / place).mkdir(parents=True)
        Image.fromarray(np.full((4, 6), grey + i, np.uint8)).save(path / place / "0.png")
    return path


def greys(data: Dataset) -> list[int]:
    return [int(image.max()) for part in (data.train, data.test) for image in part.images]


def test_path_is_where_the_images_are(tmp_path: Path) -> None:
    for grey in (40, 90):
        path = folder(tmp_path / str(grey), grey)
        data = read_image_folder(FolderConfig(path=str(path), image_shape=(1, 4, 6)))
        assert greys(data) == [grey, grey + 1, grey + 2, grey + 3]


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 5, 2)])
def test_image_shape_is_that_of_the_images(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    data = read_image_folder(FolderConfig.parse({"path": str(folder(tmp_path / "images")), "image_shape": shape}))
    assert data.train.images.shape == (2, *shape)
    assert data.test.images.shape == (2, *shape)


def test_source_and_licence_are_told(tmp_path: Path) -> None:
    path = folder(tmp_path / "images")
    told = FolderConfig(path=str(path), image_shape=(1, 4, 6), source="Pets", licence="Nobody's")
    assert read_image_folder(told).source == "Pets: image folder images"
    assert read_image_folder(told).licence == "Nobody's"
    plain = read_image_folder(FolderConfig(path=str(path), image_shape=(1, 4, 6)))
    assert (plain.source, plain.licence) == ("image folder images", "Not stated.")


def test_sha256_is_what_an_archive_must_have(tmp_path: Path) -> None:
    import shutil

    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", folder(tmp_path / "images")))
    sums = {"pets.zip": hashlib.sha256(archive.read_bytes()).hexdigest().upper()}
    data = read_image_folder(FolderConfig(path=str(archive), image_shape=(1, 4, 6), sha256=sums))
    assert greys(data) == [100, 101, 102, 103]
    for wrong, words in (
        ({"pets.zip": "0" * 64}, "damaged or altered"),
        ({"cats.zip": "0" * 64}, "no archive cats.zip"),
    ):
        with pytest.raises(InputError, match=words):
            read_image_folder(FolderConfig(path=str(archive), image_shape=(1, 4, 6), sha256=wrong))


def test_folders_add_data_sets_and_replace_others(tmp_path: Path) -> None:
    pets = FolderConfig(path=str(folder(tmp_path / "images")), image_shape=(1, 4, 6))
    for name in ("pets", "digits"):
        assert greys(fetch_dataset(name, FetchConfig(folders={name: pets}))) == [100, 101, 102, 103]
    assert len(fetch_dataset("digits", FetchConfig(folders={"pets": pets})).classes) == 10


def test_mirror_is_read_in_place_of_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(fetching, "download", lambda name: calls.append(("download", name)))
    monkeypatch.setattr(fetching, "read_mirror", lambda name, path: calls.append(("mirror", name, str(path))))
    fetch_dataset("mnist", FetchConfig())
    fetch_dataset("svhn", FetchConfig(mirror=str(tmp_path)))
    fetch_dataset("svhn", FetchConfig(mirror="~/data"))
    assert calls == [
        ("download", "mnist"),
        ("mirror", "svhn", str(tmp_path)),
        ("mirror", "svhn", str(Path("~/data").expanduser())),
    ]
