"""ONNX graphs rewritten into what onnxruntime computes faster."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper


def split_convolution(model: ModelProto) -> ModelProto:
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
    (sigmoid,) = (node for node in graph.node if node.op_type == "Sigmoid")
    to_image = producer[sigmoid.input[0]]
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
    """Put new nodes in the place of the last of the old ones, and drop the weights that are no longer used."""
    nodes = list(graph.node)
    place = nodes.index(old[-1])
    nodes = [*(n for n in nodes[:place] if n not in old), *new, *nodes[place + 1 :]]
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
