"""What a checkpoint may say of its network, and what its weights may be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from netinv.classifiers import ConvClassifierConfig, build_classifier, load_classifier, save_classifier
from netinv.core import InputError
from netinv.generators import ConditionedGenerator, GeneratorConfig, load_generator, load_generators, save_generator

SHAPE = (1, 8, 8)


def written(kind: str, folder: Path) -> Callable[[Path], Any]:
    """A small network's folder, and what reads it."""
    if kind == "generator":
        save_generator(folder, ConditionedGenerator(GeneratorConfig(width=4, max_width=4), 3, SHAPE))
        return load_generator
    save_classifier(folder, build_classifier(ConvClassifierConfig(channels=(4,)), 3, SHAPE, (0.5,), (0.25,)))
    return load_classifier


def alter(folder: Path, key: str, value: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    part, _, name = key.rpartition(".")
    (config[part] if part else config)[name] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["generator", "classifier"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_classes", -1),
        ("num_classes", 10**12),
        ("num_classes", "three"),
        ("num_classes", None),
        ("image_shape", [1, 8]),
        ("image_shape", [1, 8, 10**9]),
        ("image_shape", [0, 8, 8]),
        ("image_shape", "big"),
        ("architecture", None),
        ("architecture", []),
        ("architecture.dropout", 1e9),
    ],
)
def test_a_network_out_of_range_is_one_sentence(tmp_path: Path, kind: str, key: str, value: Any) -> None:
    read = written(kind, tmp_path)
    read(tmp_path)
    alter(tmp_path, key, value)
    with pytest.raises(InputError, match=rf"config\.json\.{key.replace('.dropout', '')}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("std", [0.0]), ("std", [-1.0]), ("mean", [float("nan")]), ("mean", [0.1, 0.2]), ("mean", []), ("mean", [1e300])],
)
def test_what_a_classifier_normalises_by_is_possible(tmp_path: Path, key: str, value: Any) -> None:
    read = written("classifier", tmp_path)
    alter(tmp_path, key, value)
    with pytest.raises(InputError, match=r"config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["generator", "classifier"])
def test_vast_layers_that_a_file_only_speaks_of_take_no_memory(tmp_path: Path, kind: str) -> None:
    read = written(kind, tmp_path)
    if kind == "generator":
        alter(tmp_path, "architecture", {"width": 4096, "max_width": 4096, "latent_dim": 4096, "hidden_dim": 4096})
    else:
        alter(tmp_path, "architecture", {"kind": "conv", "channels": [4096] * 12, "convs_per_stage": 16})
    with pytest.raises(InputError, match=r"does not hold the weights .*differ in"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["generator", "classifier"])
@pytest.mark.parametrize("damage", ["not finite", "differ", "No such file", "garbage", "a folder"])
def test_damaged_weights_are_one_sentence(tmp_path: Path, kind: str, damage: str) -> None:
    read = written(kind, tmp_path)
    path = tmp_path / "weights.safetensors"
    weights = load_file(path)
    name = next(name for name, tensor in weights.items() if tensor.ndim)
    if damage == "not finite":
        save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, path)
    elif damage == "differ":
        save_file({**weights, name: weights[name][:1]}, path)
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    words = damage if damage in ("not finite", "differ", "No such file") else ""
    with pytest.raises(InputError, match=rf"weights\.safetensors does not hold the weights .*{words}") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_a_configuration_that_is_none_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    read = written("generator", tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read(tmp_path)


def test_the_generators_of_a_variant_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i in (10, 2, 0):
        written("generator", tmp_path / str(i))
        alter(tmp_path / str(i), "architecture.dropout", i / 100)
    written("generator", tmp_path / "0 copy")
    (tmp_path / "README").write_text("mine")
    assert [generator.config.dropout for generator in load_generators(tmp_path)] == [0, 0.02, 0.1]
    for nothing in (tmp_path / "absent", tmp_path / "0 copy"):
        with pytest.raises(InputError, match="holds no generators"):
            load_generators(nothing)
