"""Calls of other people's networks: they are left as they were found, and what fails inside is told as theirs."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from netinv.classifiers.networks import InvertibleClassifier
from netinv.core import InputError, OutOfMemory, out_of_memory, reason

_AS_FILE = (
    "write it by torch.export.save(program, 'network.pt2') and give "
    "netinv.load_classifier_from(netinv.ClassifierSource(model='network.pt2'))"
)


@contextmanager
def frozen(classifier: InvertibleClassifier | nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters inside the block; every flag as it was after it.

    A call of an adapted network is such a block. Whoever computes gradients through it holds one around the backward
    pass, too: gradient checkpointing calls parts of the network again there.

    The flags are set one by one and not through ``eval()``, which some networks refuse or overrule.
    """
    network = classifier if isinstance(classifier, nn.Module) else nn.Module()
    # Those that torch.jit.freeze has been through have no mode any more.
    training = {module: module.training for module in network.modules() if hasattr(module, "training")}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
        for parameter in trainable:
            parameter.requires_grad_(True)


def call(network: nn.Module, inputs: Tensor) -> Any:
    """What a frozen network gives.

    Raises:
        InputError: It fails; tells the shape that went in, what went wrong, and the line of its author's at which.
    """
    try:
        with frozen(network), _uncompiled(), _without_cudnn(network):
            return network(inputs)
    except Exception as error:
        # Its author sees where it failed, and not the way there through this library.
        theirs = error.__traceback__.tb_next if error.__traceback__ else None
        if out_of_memory(error):
            raise OutOfMemory(
                f"The classifier runs out of memory on a batch of shape {tuple(inputs.shape)}: take a smaller batch, "
                "or for an inversion set images_at_once to fewer images."
            ) from error.with_traceback(theirs)
        if "Guard failed" in str(error):
            raise InputError(
                f"The classifier is an exported program that takes no batch of shape {tuple(inputs.shape)}: "
                f"{_AS_FILE}, or export it with a dynamic batch."
            ) from error.with_traceback(theirs)
        raise InputError(
            f"The classifier fails on a batch of shape {tuple(inputs.shape)} ({reason(error)}): mend it there, check "
            "image_shape, give the input_shape that it takes, or wrap it in a module whose forward takes one float "
            "tensor (N, C, H, W), of any N; only a .pt2 may have a fixed one."
        ) from error.with_traceback(theirs)


def _uncompiled() -> AbstractContextManager[Any]:
    """Whatever is compiled runs as it was written inside: where it is compiled, hooks of this library are not seen.

    Functions and methods are compiled as well as modules, and cannot be told from others.
    """
    as_it_is = torch.compiler.is_dynamo_compiling() or "torch._dynamo" not in sys.modules  # which compiling imports
    return nullcontext() if as_it_is else torch.compiler.set_stance("force_eager")


@contextmanager
def _without_cudnn(network: nn.Module) -> Iterator[None]:
    """Where layers are recurrent, whose gradients cuDNN has in training mode alone, torch computes them itself."""
    if not any(isinstance(module, nn.RNNBase) for module in network.modules()):
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def first_tensor(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> list[Tensor]:
    """The first tensor that a module is called with, by place or by name; none where there is none."""
    return [value for value in (*arguments, *named.values()) if isinstance(value, Tensor)][:1]


def bare(network: Any) -> nn.Module:
    """The module itself, without what spreads it over devices or compiles it: hooks do not reach through those.

    Raises:
        InputError: It is no module, or one that has no gradients.
    """
    if isinstance(network, Mapping):
        raise InputError(
            "A mapping of weights is no network: build the module that they belong to, fill it by "
            "module.load_state_dict(weights), and give the module."
        )
    if isinstance(network, torch.export.ExportedProgram):
        raise InputError(f"The classifier is an exported program: {_AS_FILE}.")
    if not isinstance(network, nn.Module):
        raise InputError(
            f"The classifier is a {type(network).__name__}, not a torch.nn.Module: give a module, whose forward may "
            "call what you have."
        )
    if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return bare(network.module)
    if "_orig_mod" in network._modules:  # of torch.compile, whose import takes seconds
        return bare(network._modules["_orig_mod"])
    for name, module in network.named_modules():
        place = type(module).__module__
        if place.startswith("torch.") and ".quantized" in place:
            raise InputError(
                f"The classifier's module {name!r} is quantised ({type(module).__name__}), and so has no gradients: "
                "give the network as it was before its quantisation."
            )
    named = dict((*network.named_parameters(), *network.named_buffers()))
    for name, tensor in named.items():
        if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:  # its operations are somebody's own code
            raise InputError(
                f"The classifier's {name!r} is no plain tensor ({type(tensor).__name__}), as where a network is "
                "quantised or spread over devices: give the network as it was before that."
            )
    tensors = named.values()
    if any(nn.parameter.is_lazy(tensor) or tensor.is_meta for tensor in tensors):
        raise InputError(
            "The classifier has weights without values, of lazy modules or on the device meta: call it on a batch "
            "once, and load its weights."
        )
    if any(tensor.is_inference() for tensor in tensors):
        raise InputError(
            "The classifier was made in torch.inference_mode, which bars gradients: build it and load its weights "
            "outside of that."
        )
    return network


def precision(network: nn.Module, default: torch.dtype) -> torch.dtype:
    """What most of a network's floating-point numbers are of; of its buffers where it has no such parameters."""
    for tensors in (network.parameters(), network.buffers()):
        found = Counter[torch.dtype]()
        for tensor in tensors:
            found[tensor.dtype] += tensor.numel() if tensor.is_floating_point() else 0
        if found.total():
            return found.most_common(1)[0][0]
    return default


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

    def rows(self, num: int) -> int:
        """Rows that the network sees of so many images, with those that fill up the last part, behind all others."""
        return num + -num % self.size if self.fixed else num

    def forward(self, images: Tensor) -> Any:
        """What the network gives, put together."""
        num = len(images)
        if short := self.rows(num) - num:
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
