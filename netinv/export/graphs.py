"""Trained networks as ONNX graphs: traced, stripped, and rewritten into what onnxruntime computes faster."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
import torch.nn.functional as F
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights, fuse_linear_bn_weights

from netinv.classifiers import AdaptedClassifier, Classifier
from netinv.core import InputError
from netinv.export.rewriting import split_convolution
from netinv.generators import ConditionedGenerator, up_sizes

OPSET = 25
"""ONNX operator set of the files, the newest that torch's exporter writes by itself; onnxruntime 1.24 reads it."""


def generator_models(generators: Sequence[ConditionedGenerator]) -> list[ModelProto]:
    """Generators of one architecture as plain ONNX models, in evaluation mode, without metadata."""
    first = generators[0]
    inputs = {"latent": torch.zeros(2, first.config.latent_dim), "condition": torch.zeros(2, first.num_classes)}
    networks = [_folded(generator) for generator in generators]
    # Tracing takes seconds and the architecture is the same, so the others only lend their weights.
    template = _trace(networks[0], inputs, "images", optimize=False)
    from onnxscript.optimizer import optimize  # seconds, which a look at the configuration must not cost

    models = [optimize(_with_weights(template, network)) for network in networks]
    return [split_convolution(_stripped(model)) for model in models]


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
    """The network as the exporter writes it; unoptimised, every parameter is there under its name in torch.

    Raises:
        InputError: It would take one number of images alone.
    """
    shapes = tuple({0: torch.export.Dim("N")} for _ in inputs)
    with _exporting(), torch.no_grad():
        model = _converted(network, inputs, shapes, output, optimize)
        if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
            # It makes a constant of len(images), where torch's strict export, which reads the code, does not.
            try:
                frozen = copy.deepcopy(network).requires_grad_(False)  # else an adapter does, which cannot be compiled
                program = torch.export.export(frozen, tuple(inputs.values()), dynamic_shapes=shapes, strict=True)
            except Exception as error:  # in any way: it compiles code of the network's author
                raise InputError(
                    "This network cannot be exported to ONNX, since its forward fixes the number of images: write "
                    "images.shape[0] for len(images), and no loop over them."
                ) from error
            model = _converted(program, inputs, shapes, output, optimize)
    return model


def _converted(
    network: nn.Module | torch.export.ExportedProgram,
    inputs: Mapping[str, Tensor],
    shapes: tuple[dict[int, Any], ...],
    output: str,
    optimize: bool,
) -> ModelProto:
    """What torch's exporter makes of it; silently with a fixed batch where the network does not allow ``shapes``."""
    program = torch.onnx.export(
        network,
        tuple(inputs.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=shapes,
        external_data=False,
        optimize=optimize,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@contextmanager
def _exporting() -> Iterator[None]:
    """Silence for the exporter, which prints and logs graphs and warnings that concern its own developers.

    And no fused attention, an operation of torch's alone.
    """
    disabled, fused = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
        logging.disable()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            logging.disable(disabled)
            torch.backends.mha.set_fastpath_enabled(fused)


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
