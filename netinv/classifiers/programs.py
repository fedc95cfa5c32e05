"""Programs of ``torch.export`` as networks: without unpickling, for any batch, with their features marked."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from netinv.classifiers.archives import check_archive
from netinv.classifiers.calls import InParts
from netinv.classifiers.sources import ClassifierSource, Network, check_whole, shape_of
from netinv.core import InputError

MARK = "netinv_features"
"""Name of the identity that marks the features of an exported program."""


def read_program(path: Path, source: ClassifierSource) -> Network:
    """A program of ``torch.export``, with its features marked and its batch set free."""
    check_whole(source)
    with _no_unpickling(path), path.open("rb") as file:  # and not its path, of which torch asks that it ends in .pt2
        try:
            program = torch.export.load(file)
        except Exception as error:  # torch logs most reasons, and raises one that points there
            raise InputError(
                f"{path} is not a readable exported program (it is damaged, or of another version of torch than "
                f"{torch.__version__}): export it again."
            ) from error
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
    if adapter.feature_layer is None and _mark_features(module, batch):
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
    """Refuse an archive with code of any kind, and force torch to load the rest as plain tensors, without its log."""
    check_archive(path)
    log = logging.getLogger("torch.export")
    told, log.disabled = log.disabled, True  # its tracebacks
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        log.disabled = told
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def _mark_features(program: fx.GraphModule, batch: int | torch.SymInt) -> bool:
    """Send the input of the last linear operation through an identity, where an adapter can read it.

    Not so where that has not one row for each of the images, as of a network that cuts them into pieces.
    """
    places = {torch.ops.aten.linear.default: 0, torch.ops.aten.addmm.default: 1}
    for node in reversed(program.graph.nodes):
        place = places.get(node.target)
        if place is not None:
            if str(node.args[place].meta["val"].shape[0]) != str(batch):  # as formulas, which no guard comes of
                return False
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
