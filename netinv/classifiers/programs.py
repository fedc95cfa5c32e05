"""Programs of ``torch.export`` as networks: without unpickling, for any batch, with their features marked."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from netinv.classifiers.archives import check_archive
from netinv.classifiers.sources import ClassifierSource, Network, check_whole, shape_of
from netinv.core import InputError

MARK = "netinv_features"
"""Name of the identity that marks the features of an exported program."""


def read_program(path: Path, source: ClassifierSource) -> Network:
    """A program of ``torch.export``, with its features marked and its batch set free."""
    check_whole(source)
    with _no_unpickling(path):
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise InputError(f"{path} is not a readable exported program ({str(error).splitlines()[0]}).") from error
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        raise InputError(f"{path} takes {len(inputs)} inputs, and a classifier takes one: images.")
    if layer := _trained_layer(program.graph):
        raise InputError(
            f"{path} was exported in training mode (its {layer} is at work): call .eval() on the network, and export "
            "it again."
        )
    batch, *shape = inputs[0].meta["val"].shape
    module = program.module(check_guards=False)  # guards are Python code, which torch would execute
    assert isinstance(module, fx.GraphModule)
    adapter = source.adapter
    if adapter.feature_layer is None and _mark_features(module):
        adapter = adapter.model_copy(update={"feature_layer": MARK})
    known = tuple(shape) if all(isinstance(side, int) for side in shape) else None
    if known is not None and adapter.input_shape is None and known != source.image_shape:
        adapter = adapter.model_copy(update={"input_shape": known})
    image_shape = source.image_shape or (known if known is not None and len(known) == 3 else shape_of(source))
    network: nn.Module = Program(module)
    if isinstance(batch, int):
        network = InParts(network, batch, fixed=True)
    else:
        limit = program.range_constraints[batch.node.expr].upper
        if limit.is_Integer:
            network = InParts(network, int(limit), fixed=False)
    if adapter.feature_layer is not None:
        place = next(name for name, part in network.named_modules() if part is module)
        adapter = adapter.model_copy(update={"feature_layer": f"{place}.{adapter.feature_layer}"})
    return Network(network, image_shape, source.num_classes, adapter)


_NORM = torch.ops.aten.batch_norm.default, torch.ops.aten._native_batch_norm_legit_functional.default
_DROPOUT = torch.ops.aten.dropout.default, torch.ops.aten.native_dropout.default


def _trained_layer(graph: fx.Graph) -> str | None:
    """A layer of a program that does something else when it is trained, and was exported so."""
    for node in graph.nodes:
        if node.target in _DROPOUT and node.args[1] and node.args[2]:
            return "dropout"
        if node.target in _NORM and node.args[3] is not None and node.args[5]:  # without its own statistics it may
            return "batch norm"
    return None


@contextmanager
def _no_unpickling(path: Path) -> Iterator[None]:
    """Refuse an archive with code of any kind, and force torch to load the rest as plain tensors."""
    check_archive(path)
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def _mark_features(program: fx.GraphModule) -> bool:
    """Send the input of the last linear operation through an identity, where an adapter can read it."""
    places = {torch.ops.aten.linear.default: 0, torch.ops.aten.addmm.default: 1}
    for node in reversed(program.graph.nodes):
        place = places.get(node.target)
        if place is not None:
            program.add_submodule(MARK, nn.Identity())
            with program.graph.inserting_before(node):
                marked = program.graph.call_module(MARK, (node.args[place],))
            node.update_arg(place, marked)
            program.recompile()
            return True
    return False


class Program(nn.Module):
    """A program that goes to another device as a whole.

    An export writes the device that it was made on into every tensor that the program makes by itself, and keeps
    tensors that are no weights where a module's ``to`` does not find them.

    Args:
        graph: What ``torch.export.ExportedProgram.module`` gives.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph
        for module in graph.modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    delattr(module, name)
                    module.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Any:
        """What the program gives."""
        return self.graph(images)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Do something to every tensor, as all of torch's ways to another device do."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (like := next(self.parameters(), next(self.buffers(), None))) is not None:
            _move(self.graph, like.device)
        return self


def _move(program: fx.GraphModule, device: torch.device) -> None:
    """Have a program, and the programs within it, make its tensors on a device."""

    def moved(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    for module in program.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.args, node.kwargs = fx.node.map_aggregate((node.args, node.kwargs), moved)
            module.recompile()


class InParts(nn.Module):
    """A network that takes a fixed or bounded batch, for any batch.

    Args:
        network: Images to scores.
        size: Images that it takes at once.
        fixed: It takes no fewer either; the last part is filled up with copies of its last image.
    """

    def __init__(self, network: nn.Module, size: int, fixed: bool) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.fixed = fixed

    def forward(self, images: Tensor) -> Any:
        """What the network gives, put together."""
        num = len(images)
        short = -num % self.size
        if self.fixed and short:
            images = torch.cat([images, images[-1:].expand(short, *images.shape[1:])])
        parts = [self.network(part) for part in torch.split(images, self.size)]
        if isinstance(parts[0], Tensor) and not parts[0].ndim:  # a squeezed score of one image
            parts = [part[None] for part in parts]
        return _joined(parts, num, alone=self.fixed and self.size == 1)


def _joined(parts: list[Any], num: int, alone: bool) -> Any:
    """Outputs of one structure as one output of ``num`` rows.

    Args:
        parts: In order.
        num: Rows that are meant; what fills up the last part comes behind them.
        alone: Each part is of one image: it may have been squeezed, and then has no row for it.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        if alone and first.ndim and first.shape[0] != 1:
            parts = [part[None] for part in parts]
        return torch.cat(parts)[:num] if first.ndim else first
    if isinstance(first, Mapping):
        return {key: _joined([part[key] for part in parts], num, alone) for key in first}
    if isinstance(first, (tuple, list)):
        return [_joined(list(column), num, alone) for column in zip(*parts, strict=True)]
    return first
