"""Samples as pictures and as files: each pixel and each array is what was drawn."""

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draws import library_numpy_rng
from PIL import Image
from tiny_models import drawn, generator

from netinv.core import InputError
from netinv.sampling import Samples, grid, save, to_pixels


def test_pixels_are_the_nearest_of_256_levels() -> None:
    images = np.float32([-1, 0, 0.4 / 255, 0.6 / 255, 1.5 / 255, 100.4 / 255, 1, 2]).reshape(1, 1, 2, 4)
    assert to_pixels(images).ravel().tolist() == [0, 0, 0, 1, 2, 100, 255, 255]
    assert to_pixels(images).dtype == np.uint8


@pytest.mark.parametrize(
    ("num", "columns", "shape"),
    [
        (0, None, (2, 4)),
        (1, None, (2, 4)),
        (2, None, (2, 9)),
        (4, None, (5, 9)),
        (5, None, (5, 14)),
        (9, None, (8, 14)),
        (10, None, (8, 19)),
        (5, 2, (8, 9)),
        (5, 5, (2, 24)),
    ],
)
def test_a_grid_is_about_square_or_as_wide_as_told(num: int, columns: int | None, shape: tuple[int, int]) -> None:
    images = np.linspace(0, 0.9, max(num, 1), dtype=np.float32)[:num, None, None, None] * np.ones(
        (1, 3, 2, 4), np.float32
    )
    canvas = grid([images[:3], images[3:]], num, (3, 2, 4), columns)
    assert canvas.shape == (*shape, 3)
    expected = np.full((*shape, 3), 255, np.uint8)
    across = columns or {2: 2, 4: 2, 5: 3, 9: 3, 10: 4}.get(num, 1)
    for i, image in enumerate(to_pixels(images)):
        top, left = i // across * 3, i % across * 5
        expected[top : top + 2, left : left + 4] = image.transpose(1, 2, 0)
    assert np.array_equal(canvas, expected)


def test_a_grid_takes_channels_last_and_places_rows_and_columns() -> None:
    image = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4) / 255
    assert np.array_equal(grid([image], 1, (3, 2, 4))[1, 2], [6, 14, 22])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_saved_is_what_was_drawn(tmp_path: Path, channels: int) -> None:
    network = generator(tmp_path)
    network.metadata = replace(network.metadata, image_shape=(channels, 2, 4))
    rng = library_numpy_rng(0)
    images = rng.random((5, channels, 2, 4), dtype=np.float32)
    latent, condition = drawn(5, 0)
    samples = Samples(images, condition.argmax(axis=1), latent, condition)
    batches = [Samples(*(array[:2] for array in samples)), Samples(*(array[2:] for array in samples))]
    pixels = to_pixels(images).transpose(0, 2, 3, 1)
    pixels = pixels[..., 0] if channels == 1 else pixels

    save(str(tmp_path / "grid.png"), batches, 5, network, columns=4)
    picture = grid([images], 5, (channels, 2, 4), 4)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), picture)
    save(tmp_path / "square.png", batches, 5, network)
    with Image.open(tmp_path / "square.png") as image:
        assert image.size == (14, 5)

    save(tmp_path / "folder", batches, 5, network)
    names = [f"00000{i}-{label}.png" for i, label in enumerate(samples.labels)]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == names
    for name, expected in zip(names, pixels, strict=True):
        with Image.open(tmp_path / "folder" / name) as image:
            assert np.array_equal(np.asarray(image), expected)

    save(tmp_path / "arrays.npz", batches, 5, network)
    with zipfile.ZipFile(tmp_path / "arrays.npz") as archive:
        assert {part.compress_type for part in archive.infolist()} == {zipfile.ZIP_STORED}
        for part in archive.infolist():  # with room for the length of a part beyond 4 GiB, known only when it is there
            header = (tmp_path / "arrays.npz").read_bytes()[part.header_offset :]
            assert header[30 + len(part.filename) :][:2] == b"\x01\x00"
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert list(arrays) == ["images", "labels", "latent", "condition"]
        for name, expected in samples._asdict().items():
            assert np.array_equal(arrays[name], expected)
            assert arrays[name].dtype == expected.dtype
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["x.png", "x.npz", "x"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num": 3}, "3 images were to be saved, but more came: give their number."),
        ({"num": 9}, "9 images were to be saved, but fewer came: give their number."),
        ({"num": -1}, "The number of images is -1: give 0 or more."),
        ({"num": 4.5}, "The number of images is 4.5: give a whole number."),
        ({"scale": 0}, "The scale is 0: give 1 or more."),
        ({"scale": 1.5}, "The scale is 1.5: give a whole number."),
        ({"columns": 0}, "The number of columns is 0: give 1 or more."),
    ],
)
def test_what_does_not_add_up_is_not_saved(tmp_path: Path, name: str, change: dict[str, Any], told: str) -> None:
    network = generator(tmp_path)
    arguments: dict[str, Any] = {"num": 4, **change}
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        save(tmp_path / name, network.stream(4, batch_size=2), generator=network, **arguments)
    assert list(tmp_path.iterdir()) == [network.path]


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    network = generator(tmp_path)
    samples = network.sample(1)
    for name in ("grid.png", "arrays.npz"):
        (tmp_path / name).write_text("old")
        save(tmp_path / name, [samples], 1, network)
        assert (tmp_path / name).read_bytes() != b"old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder is there already: name a new folder.$"):
        save(tmp_path / "folder", [samples], 1, network)
    with pytest.raises(InputError, match=r"grid.jpg ends in .jpg: give a .png, a .npz, or a new folder's name"):
        save(tmp_path / "grid.jpg", [samples], 1, network)
    with pytest.raises(InputError, match=r"not to the standard output: name one"):
        save("-", [samples], 1, network)
    for name in (".png", ".npz"):
        with pytest.raises(
            InputError, match=rf"{tmp_path}/\{name} is a suffix without a name: give a name before it.$"
        ):
            save(tmp_path / name, [samples], 1, network)
    with pytest.raises(InputError, match=r"grid.png/below.png cannot be written \(\w"):
        save(tmp_path / "grid.png" / "below.png", [samples], 1, network)


@pytest.mark.parametrize("scale", [0, -1, 1.5, True])
def test_a_scale_is_a_whole_number_from_1_on(scale: Any) -> None:
    with pytest.raises(InputError, match=f"The scale is {scale}: give"):
        to_pixels(np.zeros((1, 1, 2, 2), np.float32), scale)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_picture_of_other_channels_shows_their_mean(channels: int, tmp_path: Path) -> None:
    images = library_numpy_rng(0).random((3, channels, 2, 4), dtype=np.float32)
    expected = np.rint(images.mean(axis=1) * 255).astype(np.uint8)
    assert np.array_equal(to_pixels(images)[:, 0], expected)
    picture = grid([images], 3, (channels, 2, 4), columns=3)
    assert picture.shape == (2, 14)
    assert np.array_equal(picture[:, 5:9], expected[1])
