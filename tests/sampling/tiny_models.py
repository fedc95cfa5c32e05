"""Tiny models whose images are their own inputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from draws import library_numpy_rng
from onnx import TensorProto, helper

from netinv.sampling import Metadata, OnnxClassifier, OnnxGenerator, Samples, draw

Z, K, U = 2, 3, 2
LARGEST = 16.0
"""What a white pixel stands for. A power of two loses no digit of what is divided by it."""
SHARPNESS = (2.0, 5.0)
ABOUT = Metadata(
    kind="generator",
    dataset="made up",
    variant="standard",
    classes=("zero", "one", "two"),
    image_shape=(1, 2, 5),
    run_id="",
    licence="Nobody's",
    versions={},
    latent_dim=Z,
    sharpness=SHARPNESS,
)


def write(path: Path, about: Metadata, nodes: list[Any], inputs: dict[str, tuple[int, Any]], output: str) -> Path:
    infos = [helper.make_tensor_value_info(name, kind, ["N", *shape]) for name, (kind, shape) in inputs.items()]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 1, 2, 5])
    column = helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1])
    largest = helper.make_tensor("largest", TensorProto.FLOAT, [], [LARGEST])
    graph = helper.make_graph(nodes, "tiny", infos, outputs, [shape, column, largest])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, about.to_entries())
    onnx.save(model, path)
    return path


def generator(folder: Path, stochastic: bool = False, ensemble: int = 0, **changes: Any) -> OnnxGenerator:
    """Latent, condition, noise and the number of the generator are the pixels, in this order; what is absent is 0.

    The latent is there twice: as far as it is above 0, and as far as it is below.
    """
    about = replace(ABOUT, noise_dim=U if stochastic else 0, num_generators=ensemble, **changes)
    inputs: dict[str, tuple[int, Any]] = {"latent": (TensorProto.FLOAT, [Z]), "condition": (TensorProto.FLOAT, [K])}
    nodes = []
    parts = ["above", "below", "condition"]
    if stochastic:
        inputs["noise"] = (TensorProto.FLOAT, [U])
        parts.append("noise")
    else:
        nodes.append(helper.make_node("Sub", ["latent", "latent"], ["silence"]))
        parts.append("silence")
    if ensemble:
        inputs["generator"] = (TensorProto.INT64, [])
        nodes += [
            helper.make_node("Cast", ["generator"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["number", "column"], ["turn"]),
        ]
    else:
        nodes += [
            helper.make_node("ReduceSum", ["latent"], ["sum"]),
            helper.make_node("Slice", ["latent", "from", "to", "axis"], ["left"]),
            helper.make_node("Sub", ["left", "left"], ["turn"]),
        ]
        constants = {"from": 0, "to": 1, "axis": 1}
        nodes = [
            *(
                helper.make_node(
                    "Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [value])
                )
                for name, value in constants.items()
            ),
            *(node for node in nodes if node.op_type != "ReduceSum"),
        ]
    nodes += [
        helper.make_node("Relu", ["latent"], ["above"]),
        helper.make_node("Neg", ["latent"], ["opposite"]),
        helper.make_node("Relu", ["opposite"], ["below"]),
        helper.make_node("Concat", [*parts, "turn"], ["row"], axis=1),
        helper.make_node("Div", ["row", "largest"], ["pixels"]),
        helper.make_node("Reshape", ["pixels", "shape"], ["images"]),
    ]
    path = folder / f"{'stochastic' if stochastic else 'plain'}-{ensemble}.onnx"
    return OnnxGenerator(write(path, about, nodes, inputs, "images"), num_threads=1)


def classifier(folder: Path, **changes: Any) -> OnnxClassifier:
    """The fifth to seventh pixel are the logits: those that hold the condition of the generators above."""
    about = replace(ABOUT, kind="classifier", variant="classifier", latent_dim=0, **changes)
    nodes = [
        helper.make_node("Flatten", ["images"], ["row"]),
        *(
            helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [value]))
            for name, value in {"from": 2 * Z, "to": 2 * Z + K, "axis": 1}.items()
        ),
        helper.make_node("Slice", ["row", "from", "to", "axis"], ["part"]),
        helper.make_node("Mul", ["part", "largest"], ["logits"]),
    ]
    path = folder / "classifier.onnx"
    return OnnxClassifier(write(path, about, nodes, {"images": (TensorProto.FLOAT, [1, 2, 5])}, "logits"))


def rows(samples: Samples) -> dict[str, np.ndarray]:
    """What the images say that the file was given."""
    flat = samples.images.reshape(len(samples.images), 10) * LARGEST
    latent = flat[:, :2] - flat[:, 2:4]
    return {"latent": latent, "condition": flat[:, 4:7], "noise": flat[:, 7:9], "generator": flat[:, 9]}


def ending_in(path: Path, operator: str, kind: int = TensorProto.FLOAT, twice: bool = False, **how: Any) -> Path:
    """The model in a file, with one more operator behind its output, which it takes once or twice."""
    model = onnx.load(path)
    (last,) = model.graph.output
    inputs = [last.name] * (2 if twice else 1)
    model.graph.node.append(helper.make_node(operator, inputs, ["last"], **how))
    last.CopyFrom(helper.make_tensor_value_info("last", kind, None))
    onnx.save(model, path)
    return path


def drawn(num: int, seed: int, sharpness: tuple[float, float] = SHARPNESS, **labels: Any) -> tuple[Any, Any]:
    return draw(num, latent_dim=Z, num_classes=K, seed=seed, sharpness=sharpness, **labels)


def noise(num: int, seed: int) -> np.ndarray:
    return library_numpy_rng(seed).spawn(3)[2].random((num, U), dtype=np.float32)
