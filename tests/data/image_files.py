"""Small image folders and archives, made up."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from netinv.data import (
    Dataset,
    FolderConfig,
    read_image_folder,
)


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
