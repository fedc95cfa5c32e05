"""Trained networks as ONNX graphs: traced, stripped, and rewritten into what onnxruntime computes faster."""

import copy
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights, fuse_linear_bn_weights

from netinv.adapters import AdaptedClassifier
from netinv.classifiers import Classifier
from netinv.errors import InputError
from netinv.generator import ConditionedGenerator, up_sizes

OPSET = 25
"""ONNX operator set of the files, the newest that torch's exporter writes by itself; onnxruntime 1.24 reads it."""

Precision = Literal["float16", "int8"]
Array = NDArray[Any]


def generator_models(generators: Sequence[ConditionedGenerator]) -> list[ModelProto]:
    """Generators of one architecture as plain ONNX models, in evaluation mode, without metadata."""
    first = generators[0]
    inputs = {"latent": torch.zeros(2, first.config.latent_dim), "condition": torch.zeros(2, first.num_classes)}
    networks = [_folded(generator) for generator in generators]
    # Tracing takes seconds and the architecture is the same, so the others only lend their weights.
    template = _trace(networks[0], inputs, "images", optimize=False)
    from onnxscript.optimizer import optimize  # seconds, which a look at the configuration must not cost

    models = [optimize(_with_weights(template, network)) for network in networks]
    return [_split_convolution(_stripped(model)) for model in models]


class _ChannelsLast(nn.Module):
    """(N, C, H, W) to (N, H, W, C). As torchvision's Permute, whose import every stage would pay for."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class _MatrixUpsample(nn.Module):
    """Bilinear interpolation as a product with a matrix on either side: few pixels, so it is cheap."""

    rows: Tensor
    columns: Tensor

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        # Interpolating the unit vectors gives the matrix.
        rows, columns = (
            F.interpolate(torch.eye(s)[None], size=t, mode="linear")[0] for s, t in zip(source, target, strict=True)
        )
        self.register_buffer("rows", rows.T.contiguous())  # (target, source)
        self.register_buffer("columns", columns)  # (source, target)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ (x @ self.columns)


@torch.no_grad()
def _folded(generator: ConditionedGenerator) -> ConditionedGenerator:
    """The same function in evaluation mode, in what onnxruntime computes faster (benchmarks/onnx_sampling.py).

    Each batch norm is folded into the layer before it, past the resizing between the two, whose weights sum to 1.
    Resizing is by matrices. Channels come first.
    """
    generator = copy.deepcopy(generator).eval()
    linear, norm = generator.project[0], generator.project_norm[0]
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.BatchNorm2d)
    side = generator.matrix_size
    places = side**2
    mean, var, scale, shift = (values.repeat(places) for values in _statistics(norm))
    weight, bias = fuse_linear_bn_weights(linear.weight, None, mean, var, norm.eps, scale, shift)
    order = torch.arange(places * norm.num_features).view(places, -1).T.flatten()  # features (M, M, C) to (C, M, M)
    linear.weight, linear.bias = nn.Parameter(weight[order]), nn.Parameter(bias[order])
    # The generator turns channels to the front itself, so that onnxruntime meets two turns that cancel.
    generator.project[1] = nn.Sequential(nn.Unflatten(1, (norm.num_features, side, side)), _ChannelsLast())
    generator.project_norm[0] = nn.Identity()
    sizes = up_sizes(side, *generator.image_shape[1:])
    for i, norm in enumerate(generator.up):
        if isinstance(norm, nn.BatchNorm2d):
            layer = generator.up[i - 1]
            if isinstance(layer, nn.Sequential):  # it resizes
                block = i // 4
                layer[1] = _MatrixUpsample(sizes[block], sizes[block + 1])
                layer = layer[0]
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            mean, var, scale, shift = _statistics(norm)
            transpose = isinstance(layer, nn.ConvTranspose2d)
            layer.weight, layer.bias = fuse_conv_bn_weights(
                layer.weight, None, mean, var, norm.eps, scale, shift, transpose=transpose
            )
            generator.up[i] = nn.Identity()
    return generator


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Running mean and variance, scale and shift, each (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def classifier_model(classifier: Classifier | AdaptedClassifier) -> ModelProto:
    """A classifier as an ONNX model from ``images`` (N, C, H, W) to ``logits`` (N, K), without metadata."""
    return _stripped(_trace(classifier, {"images": torch.zeros(2, *classifier.image_shape)}, "logits", optimize=True))


def _trace(network: nn.Module, inputs: Mapping[str, Tensor], output: str, optimize: bool) -> ModelProto:
    """The network as the exporter writes it; unoptimised, every parameter is there under its name in torch."""
    batch = torch.export.Dim("N")
    # The exporter prints its progress and warns of things that concern its own developers.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"), torch.no_grad():
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            external_data=False,
            optimize=optimize,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _with_weights(template: ModelProto, network: nn.Module) -> ModelProto:
    """The template with the weights of another network of the same architecture."""
    model = ModelProto()
    model.CopyFrom(template)
    weights = network.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].contiguous().numpy(), tensor.name))
    return model


def _stripped(model: ModelProto) -> ModelProto:
    """Drop the exporter's notes: stack traces, with paths of this machine, larger than the graph."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del graph.value_info[:]
    return model


def _split_convolution(model: ModelProto) -> ModelProto:
    """Turn the convolution of [x, hot matrix] into the sum of a convolution of each.

    The matrix makes the number of channels odd, which keeps onnxruntime from its blocked kernels.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        join = producer.get(node.input[0])
        if node.op_type == "Conv" and join is not None and join.op_type == "Concat":
            kernel = numpy_helper.to_array(weights[node.input[1]])  # (out, in + 1, 3, 3)
            parts = {"x": kernel[:, :-1], "matrix": kernel[:, -1:]}
            graph.initializer.extend(numpy_helper.from_array(k.copy(), f"{name}_kernel") for name, k in parts.items())
            nodes = [
                helper.make_node("Conv", [join.input[0], "x_kernel", *node.input[2:]], ["of_x"], pads=[1, 1, 1, 1]),
                helper.make_node("Conv", [join.input[1], "matrix_kernel"], ["of_matrix"], pads=[1, 1, 1, 1]),
                helper.make_node("Add", ["of_x", "of_matrix"], list(node.output)),
            ]
            _replace(graph, (join, node), nodes)
            break
    return model


def rewritten(model: ModelProto) -> ModelProto:
    """The same function in kernels that onnxruntime computes faster (benchmarks/onnx_sampling.py).

    The last doubling, and the image from it, are computed at half the size: four sets of channels for 2 x 2 pixels.
    Each of the four pixels that the transposed convolution (kernel 4, stride 2, padding 1) makes of one is a 2 x 2
    convolution of its own (Shi and others, 2016), and so is what each adds to the four pixels of the image around it.
    Where the generator ends without a doubling, see :func:`_image_of_columns`.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producer = {output: node for node in graph.node for output in node.output}
    to_image = producer[producer[graph.output[0].name].input[0]]  # before the sigmoid
    activation = producer[to_image.input[0]]
    doubling = producer[activation.input[0]]
    if doubling.op_type != "ConvTranspose" or weights[doubling.input[1]].dims[2:] != [4, 4]:
        return _image_of_columns(result, to_image)
    x, bias, alpha = doubling.input[0], doubling.input[2:], activation.attribute[0].f
    kernel = numpy_helper.to_array(weights[doubling.input[1]])  # (in, out, 4, 4)
    image_kernel = numpy_helper.to_array(weights[to_image.input[1]])  # (C, out, 3, 3)
    image_bias = numpy_helper.to_array(weights[to_image.input[2]])  # (C,)
    constants = {"image_bias": np.tile(image_bias, 4)}
    nodes = []
    for pixel, (row, column) in enumerate(np.ndindex(2, 2)):
        constants[f"kernel_{pixel}"] = kernel[:, :, 3 - row :: -2, 3 - column :: -2].transpose(1, 0, 2, 3)
        # This pixel meets the image's pixel (i, j), of the same 2 x 2 or of a neighbour, through one weight.
        spread = np.zeros((2, 2, *image_kernel.shape[:2], 2, 2), np.float32)
        for i, j, u, v in np.ndindex(2, 2, 2, 2):
            down, right = 2 * u - row - i + 1, 2 * v - column - j + 1
            if 0 <= down < 3 and 0 <= right < 3:
                spread[i, j, :, :, u, v] = image_kernel[:, :, down, right]
        constants[f"image_kernel_{pixel}"] = spread.reshape(-1, *spread.shape[3:])
        part = [f"active_{pixel}", f"image_kernel_{pixel}", *(["image_bias"] if pixel == 0 else [])]
        nodes += [
            helper.make_node(
                "Conv", [x, f"kernel_{pixel}", *bias], [f"pixel_{pixel}"], pads=[1 - row, 1 - column, row, column]
            ),
            helper.make_node("LeakyRelu", [f"pixel_{pixel}"], [f"active_{pixel}"], alpha=alpha),
            helper.make_node("Conv", part, [f"part_{pixel}"], pads=[row, column, 1 - row, 1 - column]),
        ]
    nodes += [
        helper.make_node("Add", ["part_0", "part_1"], ["parts_1"]),
        helper.make_node("Add", ["parts_1", "part_2"], ["parts_2"]),
        helper.make_node("Add", ["parts_2", "part_3"], ["parts_3"]),
        helper.make_node("DepthToSpace", ["parts_3"], list(to_image.output), blocksize=2, mode="DCR"),
    ]
    graph.initializer.extend(numpy_helper.from_array(value.copy(), name) for name, value in constants.items())
    _replace(graph, (doubling, activation, to_image), nodes)
    return result


def _image_of_columns(model: ModelProto, to_image: onnx.NodeProto) -> ModelProto:
    """Turn the convolution to the image into a matrix product and the sum of what each pixel adds to its neighbours.

    onnxruntime's blocked kernels compute eight channels where one or three are wanted.
    """
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernel, bias = weights[to_image.input[1]], weights[to_image.input[2]]  # (C, in, 3, 3), (C,)
    size = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim[2:]]
    constants = {
        "column_kernel": kernel[:, :, ::-1, ::-1].transpose(0, 2, 3, 1).reshape(-1, kernel.shape[1]),
        "rows": np.array([0, kernel.shape[1], math.prod(size)], np.int64),  # no -1: a batch may be empty
        "image_size": np.array(size, np.int64),
        "kernel_size": np.array(kernel.shape[2:], np.int64),
        "image_bias": bias[:, None, None],
    }
    graph.initializer.extend(numpy_helper.from_array(value.copy(), name) for name, value in constants.items())
    nodes = [
        helper.make_node("Reshape", [to_image.input[0], "rows"], ["pixels"]),  # (N, in, H W)
        helper.make_node("MatMul", ["column_kernel", "pixels"], ["columns"]),  # (N, C 9, H W)
        helper.make_node("Col2Im", ["columns", "image_size", "kernel_size"], ["sums"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["sums", "image_bias"], list(to_image.output)),
    ]
    _replace(graph, (to_image,), nodes)
    return model


def _replace(graph: onnx.GraphProto, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
    """Put new nodes in the place of the last of the old ones, and drop the weights that nobody reads any more."""
    nodes = list(graph.node)
    place = nodes.index(old[-1])
    nodes = [*(n for n in nodes[:place] if n not in old), *new, *nodes[place + 1 :]]
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


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


def compress(model: ModelProto, precision: Precision) -> ModelProto:
    """The model with its matrices and kernels rounded, and turned back into float32 when the file is opened.

    int8 has one scale for each output channel, max |w| / 127. onnxruntime folds the nodes that undo the rounding into
    constants when it loads the file, so that inference costs what it does in float32.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    channel_axis = {node.input[1]: 1 for node in graph.node if node.op_type == "ConvTranspose"}
    initializers, nodes = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            initializers.append(tensor)
            continue
        weight, small = numpy_helper.to_array(tensor), f"{tensor.name}_{precision}"
        if precision == "float16":
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
