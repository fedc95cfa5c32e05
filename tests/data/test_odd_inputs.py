"""What people hand in: one class, empty folders, names of other systems, places that may not be looked at."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from image_files import equal, read, small, write_folder, write_tar, write_zip

from netinv.core import InputError, expanded, read_text
from netinv.data import DatasetSpec, FetchConfig, fetch_dataset, read_images


def test_a_data_set_of_one_class_is_refused(tmp_path: Path) -> None:
    files = {name: content for name, content in small().items() if "cat" in name}
    with pytest.raises(InputError, match=r"pets has one class, cat: a classifier needs two at least\.$"):
        read(write_folder(tmp_path / "pets", files))
    spec = {"name": "x", "image_shape": (1, 4, 4), "num_train": 1, "num_test": 1, "source": "", "licence": ""}
    assert DatasetSpec(classes=("a", "b"), checksums={}, **spec).num_classes == 2
    with pytest.raises(InputError, match="at least 2"):
        DatasetSpec(classes=("a",), checksums={}, **spec)
    with pytest.raises(InputError, match="at least 1 character"):
        DatasetSpec(classes=("a", ""), checksums={}, **spec)


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "zip", "both"])
def test_class_folders_without_images_are_refused(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "pets", small())
    for split in ("train", "test"):
        for name in ("bird", "ant"):
            (folder / split / name).mkdir()
        (folder / split / "ant/.keep").touch()
        (folder / split / ".hidden").mkdir()
    path = folder
    if kind != "folder":
        path = tmp_path / "packed" if kind == "both" else tmp_path / f"pets.{kind}"
        form = "zip" if kind == "zip" else "gztar"
        for split in ("train", "test") if kind == "both" else (".",):
            target = path / split if kind == "both" else tmp_path / "pets"
            shutil.make_archive(str(target), form, folder, split)
    told = f"{path}: the class folders ant, bird are empty: delete them or fill them"
    with pytest.raises(InputError, match=re.escape(told)):
        read(path)


@pytest.mark.parametrize("form", ["gztar", "zip"])
def test_an_archive_is_read_as_its_folder(tmp_path: Path, form: str) -> None:
    folder = write_folder(
        tmp_path / "pets", small(**{"train/cat/.hidden": b"", ".cache/train/fox/x": b"", "fox/x": b""})
    )
    assert equal(read(Path(shutil.make_archive(str(tmp_path / "pets"), form, folder))), read(folder))


def test_archives_are_known_by_their_names_in_any_case_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    pets = read(write_folder(tmp_path / "pets", small()))
    assert equal(read(write_zip(tmp_path / "upper/PETS.ZIP", small())), pets)
    assert equal(read(write_tar(tmp_path / "upper.TGZ", small())), pets)
    (tmp_path / "upper/._PETS.ZIP").write_bytes(b"of a Mac")
    assert equal(read(tmp_path / "upper"), pets)


def test_a_zip_with_the_separators_of_windows_is_read(tmp_path: Path) -> None:
    pets = read(write_folder(tmp_path / "pets", small()))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("train\\cat\\", b"")
        for name, content in small().items():
            archive.writestr(name.replace("/", "\\"), content)
    assert equal(read(tmp_path / "pets.zip"), pets)
    with zipfile.ZipFile(tmp_path / "pets.zip", "a") as archive:
        archive.writestr("..\\train\\cat\\9.png", b"")
    with pytest.raises(InputError, match="leads out of it"):
        read(tmp_path / "pets.zip")


def test_an_image_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "pets", small())

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    for reads in (lambda: read(folder), lambda: read_images(folder, (1, 4, 4))):
        with pytest.raises(InputError, match=r"png cannot be read \(Permission denied\)"):
            reads()


def test_folders_of_a_mirror_that_may_not_be_read_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost+found").mkdir()
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if "lost+found" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "lost+found")
    with pytest.raises(InputError, match="has no MNIST"):
        fetch_dataset("mnist", FetchConfig(mirror=str(tmp_path)))


def test_the_home_of_an_unknown_user_is_one_sentence() -> None:
    path = "~nobody-has-this-name/data"
    config = FetchConfig.parse({"mirror": path, "folders": {"pets": {"path": path, "image_shape": [1, 4, 4]}}})
    for name in ("mnist", "pets"):
        with pytest.raises(InputError, match="nobody-has-this-name/data names the home of a user"):
            fetch_dataset(name, config)
    assert expanded("a/b") == Path("a/b")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "of-windows.json").write_text("{}", encoding="utf-8-sig")
    assert read_text(tmp_path / "of-windows.json", "") == "{}"
