"""Every setting of an export reaches what it is for, and small weights are as near as their size allows."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from draws import library_numpy_rng
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, AdapterConfig
from netinv.export import ExportConfig, export_generators, models
from netinv.export.forms import compress
from netinv.generators import ConditionedGenerator, GeneratorConfig
from tests.conftest import Exported

JUDGES = {"classifier": lambda images: images, "evaluator": lambda images: images}


def exported_again(
    exported: Exported, folder: Path, monkeypatch: pytest.MonkeyPatch, losses: list[dict[str, float]], **config: Any
) -> tuple[dict[str, float], set[str], list[int]]:
    """Measures and files of an export whose smaller forms lose what they are told to, and the samples asked for."""
    asked: list[int] = []

    def lose(model: Any, small: Any, judges: Any, metadata: Any, num_samples: int) -> dict[str, float]:
        asked.append(num_samples)
        return losses[len(asked) - 1]

    monkeypatch.setattr(models, "accuracy_losses", lose)
    about = exported.metadata
    measures = export_generators(folder, exported.generators, JUDGES, about, ExportConfig(**config))
    return measures, {path.name for path in folder.iterdir()}, asked


def test_forms_are_those_that_are_written(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, names, _ = exported_again(exported, tmp_path, monkeypatch, [{"classifier": 0.0}] * 2, forms=("ensemble", "int8"))
    plain = {"generator-0.onnx", "generator-1.onnx"}
    assert names == plain | {"ensemble.onnx", "generator-0-int8.onnx", "generator-1-int8.onnx"}


@pytest.mark.parametrize("worst", [0, 1])
def test_max_accuracy_loss_and_num_samples_and_the_worst_of_all_generators(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worst: int
) -> None:
    losses = [{"classifier": 0.02, "evaluator": -0.03}, {"classifier": 0.02, "evaluator": -0.04}]
    losses[worst] = {"classifier": 0.01, "evaluator": 0.3}
    config = {"forms": ("int8",), "max_accuracy_loss": 0.02, "num_samples": 123}
    measures, names, asked = exported_again(exported, tmp_path, monkeypatch, losses, **config)
    assert asked == [123, 123]
    assert measures["int8/classifier_accuracy_loss"] == 0.02
    assert measures["int8/evaluator_accuracy_loss"] == 0.3
    assert measures["int8/refused"] == 1  # what loses just as much as is allowed is kept
    assert names == {"generator-0.onnx", "generator-1.onnx", f"generator-{1 - worst}-int8.onnx"}
    written = [(tmp_path / f"generator-{1 - worst}{form}.onnx").stat().st_size for form in ("-int8", "")]
    assert measures["int8/size"] == pytest.approx(written[0] / written[1], rel=0.1)


def test_of_large_images_no_more_are_looked_at_at_once_than_fit_into_memory(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def judge(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return exported.evaluator(images)

    forms = [onnx.load(exported.folder / f"generator-0{form}.onnx") for form in ("", "-int8")]
    whole = models.accuracy_losses(*forms, {"judge": judge}, exported.metadata, 200)
    large = replace(exported.metadata, image_shape=(1, 224, 224))
    parts = models.accuracy_losses(*forms, {"judge": judge}, large, 200)
    assert sizes == [200] * 2 + [81] * 4 + [38] * 2
    assert parts == pytest.approx(whole, abs=0.011)  # two of 200 may be on the other side of a rounding

    generator = ConditionedGenerator(GeneratorConfig(width=1, max_width=1), 3, (1, 224, 224))
    assert len(models._random_inputs(generator)["latent"]) == 81
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    enlarging = AdaptedClassifier(network, (1, 8, 8), config=AdapterConfig(input_shape=(1, 224, 224)))
    assert models._most_rows((1, 8, 8), enlarging) == 81

    def run(_: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(feeds["x"]))
        return [feeds["x"]]

    monkeypatch.setattr(models, "new_session", lambda content: SimpleNamespace(run=run))
    for rows, looked_at in ((1000, [1, 7, 64, 1000]), (81, [1, 7, 64, 81]), (16, [1, 7, 16])):
        sizes.clear()
        models.check_agreement("x", forms[0], {"x": np.zeros((rows, 1))}, np.zeros((rows, 1)))
        assert sizes == looked_at


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def toy() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A matrix product and two convolutions, each with channels of their own scale, a bias and a constant."""
    rng = library_numpy_rng(0)
    scale = 10.0 ** np.arange(4)
    values = {
        "matrix.weight": rng.standard_normal((4, 9)) * scale[:, None],
        "kernel": rng.standard_normal((4, 3, 3, 3)) * scale[:, None, None, None],
        "transposed.weight": rng.standard_normal((3, 4, 2, 2)) * scale[:, None, None],
        "bias": rng.standard_normal(4),
        "places": rng.standard_normal((2, 9)),
    }
    arrays = {name: value.astype(np.float32) for name, value in values.items()}
    arrays["kernel"][1] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "matrix.weight", "bias"], ["a"], transB=1),
        helper.make_node("Conv", ["y", "kernel"], ["b"]),
        helper.make_node("ConvTranspose", ["y", "transposed.weight"], ["c"]),
    ]
    floats = {"x": (1, 9), "y": (1, 3, 5, 5), "a": (1, 4), "b": (1, 4, 3, 3), "c": (1, 4, 6, 6)}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()}
    graph = helper.make_graph(
        nodes,
        "toy",
        [infos["x"], infos["y"]],
        [infos[name] for name in "abc"],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), arrays


def test_int8_uses_its_whole_range_for_each_output_channel() -> None:
    model, arrays = toy()
    small = weights(compress(model, "int8"))
    assert set(small) == {"bias", "places"} | {
        f"{n}_{kind}" for n in ("matrix.weight", "kernel", "transposed.weight") for kind in ("int8", "scale")
    }
    for name, axis in (("matrix.weight", 0), ("kernel", 0), ("transposed.weight", 1)):
        steps, scale = small[f"{name}_int8"], small[f"{name}_scale"]
        assert (steps.dtype, scale.dtype) == (np.int8, np.float32)
        others = tuple(i for i in range(steps.ndim) if i != axis)
        peaks = np.abs(steps.astype(int)).max(axis=others).tolist()
        assert peaks == ([127, 0, 127, 127] if name == "kernel" else [127] * 4)
        error = np.abs(steps * scale - arrays[name]).max(axis=others)
        largest = np.abs(arrays[name]).max(axis=others)
        assert (error <= largest / 127 / 2 * 1.001).all()
    assert all(np.array_equal(small[name], arrays[name]) for name in ("bias", "places"))


def test_float16_rounds_what_is_no_bias_and_no_constant() -> None:
    model, arrays = toy()
    small = weights(compress(model, "float16"))
    assert set(small) == {"bias", "places", "matrix.weight_float16", "kernel_float16", "transposed.weight_float16"}
    for name in ("matrix.weight", "kernel", "transposed.weight"):
        assert np.array_equal(small[f"{name}_float16"], arrays[name].astype(np.float16))
    assert all(np.array_equal(small[name], arrays[name]) for name in ("bias", "places"))
