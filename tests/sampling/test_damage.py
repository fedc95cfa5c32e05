"""Exported files from strangers, and requests beyond all measure: a sentence, and no wait without an end."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from netinv.core import InputError
from netinv.sampling import OnnxGenerator, save, sessions

if TYPE_CHECKING:
    from conftest import Exported


def altered(exported: "Exported", folder: Path, **values: Any) -> Path:
    """A generator whose metadata say something else."""
    model = onnx.load(exported.folder / "generator-0.onnx")
    for entry in model.metadata_props:
        name = entry.key.removeprefix("netinv.")
        if name in values:
            entry.value = values[name] if isinstance(values[name], str) else json.dumps(values[name])
    path = folder / "altered.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", []),
        ("classes", "[" * 100_000),
        ("classes", {"a": 1}),
        ("classes", [1, 2, 3]),
        ("classes", 3),
        ("classes", ["a", "a", "b"]),
        ("classes", ["a", "", "b"]),
        ("image_range", [-1.0, 1.0]),
        ("image_shape", [1, 12]),
        ("image_shape", [1, -12, 12]),
        ("image_shape", [1, 10**9, 12]),
        ("image_shape", "9" * 5000),
        ("latent_dim", -1),
        ("latent_dim", 0),
        ("latent_dim", 10**9),
        ("latent_dim", "8.5"),
        ("sharpness", [3.0, 1.0]),
        ("sharpness", [0.0, 1.0]),
        ("sharpness", [1.0, float("inf")]),
        ("sharpness", [1.0, float("nan")]),
        ("num_generators", -1),
        ("noise_dim", 10**12),
        ("field_side", -1),
        ("field_side", 1.5),
        ("versions", ["a"]),
        ("kind", "painter"),
        ("dataset", None),
    ],
)
def test_metadata_out_of_range_are_one_sentence(exported: "Exported", tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"altered\.onnx has damaged metadata \(.*export it again") as error:
        OnnxGenerator(altered(exported, tmp_path, **{name: value}))
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("num_threads", [-1, 0, 100_000, 1.5, True])
def test_threads_are_as_many_as_a_machine_bears(exported: "Exported", num_threads: int) -> None:
    with pytest.raises(InputError, match=f"The number of threads is {num_threads}: give (1 to |a whole number)"):
        OnnxGenerator(exported.folder / "generator-0.onnx", num_threads=num_threads)


@pytest.mark.parametrize("name", ["x.png", "x.npz", "x"])
def test_more_images_than_a_file_can_hold_are_refused_before_the_work(
    exported: "Exported", tmp_path: Path, name: str
) -> None:
    network = OnnxGenerator(exported.folder / "generator-0.onnx")
    with pytest.raises(InputError, match=r"x\S* would hold 100,000,000 images: at most [\d,]+ of 12 x 12 pixels"):
        save(tmp_path / name, iter(()), 100_000_000, network)
    assert not list(tmp_path.iterdir())


def test_a_row_of_more_columns_than_a_grid_can_hold_is_refused(exported: "Exported", tmp_path: Path) -> None:
    network = OnnxGenerator(exported.folder / "generator-0.onnx")
    with pytest.raises(InputError, match="would hold 100,000,000 images"):
        save(tmp_path / "x.png", iter(()), 4, network, columns=100_000_000)


def test_enlarged_pixels_count_in_pictures_alone(exported: "Exported", tmp_path: Path) -> None:
    network = OnnxGenerator(exported.folder / "generator-0.onnx")
    with pytest.raises(InputError, match=r"would hold 10,000 images: at most [\d,]+ of 768 x 768 pixels"):
        save(tmp_path / "x.png", iter(()), 10_000, network, scale=64)
    for name, scale in (("x.png", 1), ("x.npz", 64)):
        save(tmp_path / name, network.stream(10_000), 10_000, network, scale=scale)


def test_pixels_that_are_no_numbers_are_no_picture(exported: "Exported", tmp_path: Path) -> None:
    model = onnx.load(exported.folder / "generator-0.onnx")
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            array = np.full_like(onnx.numpy_helper.to_array(weight), np.nan)
            weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match="numbers that are not finite"):
        OnnxGenerator(path).sample(2)


def test_a_loop_without_an_end_is_ended(exported: "Exported", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of 2^62 turns, before the network's own nodes, that adds 0 to the latent."""
    model = onnx.load(exported.folder / "generator-0.onnx")
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "latent":
                node.input[i] = "turned"
    model.graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [2**62]))
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.insert(0, helper.make_node("Loop", ["turns", "yes", "latent"], ["turned"], body=body))
    path = tmp_path / "endless.onnx"
    onnx.save(model, path)
    monkeypatch.setattr(sessions, "MAX_SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(InputError, match="does not end within 1 s"):
        OnnxGenerator(path).sample(2)
    assert time.monotonic() - begin < 20
