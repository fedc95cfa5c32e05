"""The on-disk format: what is written is what is read, and what cannot be read is said in one sentence."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from draws import torch_rng
from safetensors.torch import save
from torch import Tensor

from netinv.core import InputError
from netinv.data import (
    Dataset,
    DatasetSpec,
    LabelledImages,
    channel_statistics,
    labelled,
    load_spec,
    load_split,
    oddities,
    save_dataset,
    to_float,
    to_uint8,
)


@pytest.fixture
def train() -> LabelledImages:
    rng = torch_rng(0)
    images = torch.randint(0, 256, (12, 3, 5, 4), generator=rng, dtype=torch.uint8)
    return LabelledImages(images, torch.arange(12) % 2)


@pytest.fixture
def saved(tmp_path: Path, train: LabelledImages) -> DatasetSpec:
    # A view that is not contiguous, as permuted images are.
    test = LabelledImages(
        train.images.flip(0).permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), train.labels.flip(0)
    )
    return save_dataset(tmp_path, "cats", ("cat", "dog"), train, test, "made up", "none")


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int32])
def test_labels_are_whole_numbers_of_any_type(kind: torch.dtype, train: LabelledImages) -> None:
    found = labelled(train._replace(labels=train.labels.to(kind)), "They")
    assert torch.equal(found.labels, train.labels)


def test_images_of_other_kinds_are_no_images(train: LabelledImages) -> None:
    images = to_float(train.images)
    for other in (images.to(torch.float8_e4m3fn), images.to_sparse(), images.to("meta"), train.images.int()):
        with pytest.raises(InputError, match="They are torch"):
            labelled(train._replace(images=other), "They")


def test_round_trip(tmp_path: Path, train: LabelledImages, saved: DatasetSpec) -> None:
    for split, expected in (("train", train.images), ("test", train.images.flip(0))):
        images, labels = load_split(tmp_path, split)  # type: ignore[arg-type]
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert torch.equal(images, expected)
    assert load_spec(tmp_path) == saved
    assert saved.num_classes == 2
    assert saved.image_shape == (3, 5, 4)
    assert (saved.num_train, saved.num_test) == (12, 12)


def test_checksums_are_those_of_the_files(tmp_path: Path, saved: DatasetSpec) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.json", "test.safetensors", "train.safetensors"]
    for name, checksum in saved.checksums.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == checksum


def test_same_images_give_the_same_files(tmp_path: Path, train: LabelledImages, saved: DatasetSpec) -> None:
    again = tmp_path / "again"
    again.mkdir()
    test = load_split(tmp_path, "test")
    assert save_dataset(again, "cats", ("cat", "dog"), train, test, "made up", "none") == saved


@pytest.mark.parametrize("damage", ["missing", "truncated", "no tensors", "a pipe", "holes"])
def test_unreadable_split_names_the_file_and_the_remedy(tmp_path: Path, saved: DatasetSpec, damage: str) -> None:
    path = tmp_path / "train.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif damage == "holes":
        os.truncate(path, 10**12)
    else:
        path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(
        InputError, match=r"train\.safetensors is not a readable data-set split.*fetch the data set again"
    ):
        load_split(tmp_path, "train")


def test_a_split_with_one_other_bit_is_refused(tmp_path: Path, saved: DatasetSpec) -> None:
    path = tmp_path / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train\.safetensors is damaged or altered .* fetch the data set again"):
        load_split(tmp_path, "train")
    load_split(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: (images, labels[:10]), r"10 labels for images \(12, 3, 5, 4\)"),
        (lambda images, labels: (images[:10], labels[:10]), "where 12 of shape"),
        (lambda images, labels: (images[:, :1], labels), r"images \(12, 1, 5, 4\), where 12 of shape \(3, 5, 4\)"),
        (lambda images, labels: (images, labels + 5), "labels from 5 to 6 for 2 classes"),
        (lambda images, labels: (images, labels - 1), "labels from -1 to 0 for 2 classes"),
        (lambda images, labels: (images.float(), labels), "images of torch.float32"),
        (lambda images, labels: (images, labels.int()), "labels of torch.int32"),
    ],
)
def test_a_split_that_is_not_its_specs_is_refused(
    tmp_path: Path, saved: DatasetSpec, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], message: str
) -> None:
    images, labels = change(*load_split(tmp_path, "train"))
    content = save({"images": images.contiguous(), "labels": labels.contiguous()})
    (tmp_path / "train.safetensors").write_bytes(content)
    checksums = {**saved.checksums, "train.safetensors": hashlib.sha256(content).hexdigest()}
    (tmp_path / "spec.json").write_text(saved.model_copy(update={"checksums": checksums}).model_dump_json())
    with pytest.raises(InputError, match=message):
        load_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "not readable.*fetch the data set again"),
        ({"num_train": "12"}, "num_train: expected a valid integer, got '12'"),
        ({"colour": True}, "colour is not a known key"),
    ],
)
def test_unreadable_spec_says_what_is_wrong(
    tmp_path: Path, saved: DatasetSpec, change: dict[str, object] | None, message: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_text("{" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        load_spec(tmp_path)


def test_to_float_covers_zero_to_one(train: LabelledImages) -> None:
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    before = train.images.clone()
    to_float(train.images)
    assert torch.equal(train.images, before)


def test_bytes_are_the_nearest_levels(train: LabelledImages) -> None:
    images = torch.tensor([-1.0, 0, 0.4 / 255, 0.6 / 255, 100.4 / 255, 1, 2, torch.nan])
    assert to_uint8(images).tolist() == [0, 0, 0, 1, 100, 255, 255, 0]
    for back in (to_uint8(train.images), to_uint8(to_float(train.images)), to_uint8(train.images.double() / 255)):
        assert torch.equal(back, train.images)


def test_channel_statistics_agree_with_numpy(train: LabelledImages) -> None:
    mean, std = channel_statistics(train.images)
    pixels = train.images.numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-9)


def test_constant_channel_is_harmless() -> None:
    mean, std = channel_statistics(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2,))
    assert std == (1.0,)


def test_what_makes_measures_mean_less_is_told(train: LabelledImages) -> None:
    clean = LabelledImages(255 - train.images[:4], train.labels[:4])
    assert oddities(Dataset(("a", "b"), train, clean, "", "")) == []
    mixed = LabelledImages(torch.cat([clean.images, train.images[:3]]), torch.zeros(7, dtype=torch.int64))
    same, empty, test = oddities(Dataset(("a", "b", "c"), train, mixed, "", ""))
    assert same.startswith("3 of 7 test images are training images too")
    assert empty == "There are no training images of c."
    assert test == "There are no test images of b, c."
