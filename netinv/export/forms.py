"""Other forms of a plain ONNX generator: stochastic, an ensemble, with smaller weights."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from netinv.core import InputError
from netinv.generators import ConditionedGenerator

WeightFormat = Literal["float16", "int8"]
Array = NDArray[Any]

LEARNED = re.compile(r"\.weight$|kernel")
"""What a learned matrix or kernel is called: as in torch, or as the rewriting names what it makes of it."""


def stochastic_model(model: ModelProto, generator: ConditionedGenerator) -> ModelProto:
    """A plain model with the generator's dropout put back, fed by one more input ``noise`` (N, U).

    Raises:
        InputError: The generator has no dropout.
    """
    channels = generator.dropout_channels
    if not channels:
        raise InputError("The generator has no dropout and so no stochastic form: leave it out of export.forms.")
    p = generator.config.dropout
    batch = helper.make_tensor_value_info("noise", TensorProto.FLOAT, [_batch_axis(model), sum(channels)])
    constants: dict[str, Array] = {
        "channels": np.array(channels, np.int64),
        "dropout": np.array(p, np.float32),
        "dropped": np.array(0, np.float32),
        "kept": np.array(1 / (1 - p), np.float32),
        "spatial": np.array([2, 3], np.int64),
    }
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    activations = [node for node in graph.node if node.op_type == "LeakyRelu"][-len(channels) :]
    nodes = [helper.make_node("Split", ["noise", "channels"], [f"noise_{i}" for i in range(len(channels))], axis=1)]
    for node in graph.node:
        nodes.append(node)
        if node in activations:
            i, x = activations.index(node), node.output[0]
            node.output[0] = f"{x}_undropped"
            nodes += [
                helper.make_node("GreaterOrEqual", [f"noise_{i}", "dropout"], [f"stays_{i}"]),
                helper.make_node("Where", [f"stays_{i}", "kept", "dropped"], [f"scale_{i}"]),
                helper.make_node("Unsqueeze", [f"scale_{i}", "spatial"], [f"mask_{i}"]),  # (N, C, 1, 1)
                helper.make_node("Mul", [node.output[0], f"mask_{i}"], [x]),
            ]
    graph.input.append(batch)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def ensemble_model(models: Sequence[ModelProto]) -> ModelProto:
    """All plain generators of a variant in one model, with one more input ``generator`` (N,), int64.

    Each generator computes only the rows that name it; a row that names none becomes a black image.
    """
    first = models[0].graph
    image_shape = [dim.dim_value for dim in first.output[0].type.tensor_type.shape.dim[1:]]
    inputs = [*first.input, helper.make_tensor_value_info("generator", TensorProto.INT64, [_batch_axis(models[0])])]
    initializers = [numpy_helper.from_array(np.array(image_shape, np.int64), "image_shape")]
    nodes = [
        helper.make_node("Shape", ["generator"], ["N"]),
        helper.make_node("Concat", ["N", "image_shape"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["images_0"]),
    ]
    for i, model in enumerate(models):
        graph = onnx.compose.add_prefix(model, f"generator_{i}/").graph
        initializers += [*graph.initializer, numpy_helper.from_array(np.array(i, np.int64), f"index_{i}")]
        after = "images" if i == len(models) - 1 else f"images_{i + 1}"
        nodes += [
            helper.make_node("Equal", ["generator", f"index_{i}"], [f"chosen_{i}"]),
            helper.make_node("NonZero", [f"chosen_{i}"], [f"row_{i}"]),  # (1, n)
            helper.make_node("Transpose", [f"row_{i}"], [f"rows_{i}"]),  # (n, 1)
            helper.make_node("GatherND", ["latent", f"rows_{i}"], [f"generator_{i}/latent"]),
            helper.make_node("GatherND", ["condition", f"rows_{i}"], [f"generator_{i}/condition"]),
            *graph.node,
            helper.make_node("ScatterND", [f"images_{i}", f"rows_{i}", f"generator_{i}/images"], [after]),
        ]
    graph = helper.make_graph(nodes, "ensemble", inputs, [first.output[0]], initializers)
    return helper.make_model(graph, opset_imports=models[0].opset_import, ir_version=models[0].ir_version)


def _batch_axis(model: ModelProto) -> str:
    name: str = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    return name


def compress(model: ModelProto, form: WeightFormat) -> ModelProto:
    """The model with what its network learned rounded, and turned back into float32 when the file is opened.

    These are the matrices and kernels: biases are few, and constants, such as where an image is sampled, are exact.
    int8 has one scale for each output channel, max |w| / 127. onnxruntime folds the nodes that undo the rounding into
    constants when it loads the file, so that inference costs what it does in float32.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    channel_axis = {node.input[1]: 1 for node in graph.node if node.op_type == "ConvTranspose"}
    initializers, nodes = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or not LEARNED.search(tensor.name):
            initializers.append(tensor)
            continue
        weight, small = numpy_helper.to_array(tensor), f"{tensor.name}_{form}"
        if form == "float16":
            initializers.append(numpy_helper.from_array(weight.astype(np.float16), small))
            nodes.append(helper.make_node("Cast", [small], [tensor.name], to=TensorProto.FLOAT))
            continue
        axes = tuple(axis for axis in range(weight.ndim) if axis != channel_axis.get(tensor.name, 0))
        scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-12).astype(np.float32) / 127
        initializers += [
            numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), small),
            numpy_helper.from_array(scale, f"{tensor.name}_scale"),
        ]
        nodes += [
            helper.make_node("Cast", [small], [f"{tensor.name}_steps"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{tensor.name}_steps", f"{tensor.name}_scale"], [tensor.name]),
        ]
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend(nodes)
    return result
