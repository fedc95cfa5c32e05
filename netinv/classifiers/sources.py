"""Where a classifier comes from, in words that a file or a command line can hold."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from torch import nn

from netinv.classifiers.adapters import AdapterConfig
from netinv.core import Classes, Config, ImageShape, InputError


class ClassifierSource(Config):
    """Where a classifier comes from, what it takes and what it gives."""

    model: str = Field(min_length=1)
    """``torchvision:NAME``, a factory ``package.module:function``, a ``.pt2`` exported program, or the folder of a
    checkpoint that this library wrote."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the factory or of torchvision's model."""
    weights: str | None = None
    """File of weights, safetensors or ``torch.save`` of tensors, or the index of several such files beside it; for
    torchvision also a name such as ``DEFAULT``."""
    weights_prefix: str | None = None
    """Where in that file the network's names begin, such as ``state_dict.module``; ``None`` looks for it."""
    image_shape: ImageShape | None = None
    """(C, H, W) of the images to be generated; ``None`` where the source knows it."""
    num_classes: Classes | None = None
    """K; ``None`` is what the network gives."""
    adapter: AdapterConfig = AdapterConfig()
    factory: str | None = None
    """For the folder of a checkpoint whose network a factory builds: that factory, as no stored file says alone what
    code runs. ``arguments`` are then the factory's."""


class Network(NamedTuple):
    """A network with what is known about it, ready for :class:`~netinv.classifiers.AdaptedClassifier`."""

    module: nn.Module
    image_shape: tuple[int, int, int]
    num_classes: int | None
    adapter: AdapterConfig


def check_known(source: ClassifierSource, image_shape: tuple[int, int, int], num_classes: int | None) -> None:
    """Refuse a shape of images, or a number of classes, other than what a model is known to have.

    Raises:
        InputError: Names both.
    """
    for name, given, known in (
        ("image_shape", source.image_shape, image_shape),
        ("num_classes", source.num_classes, num_classes),
    ):
        if None not in (given, known) and given != known:
            raise InputError(f"{source.model} has {name} {known}, not {given}: leave it out.")


def check_whole(source: ClassifierSource) -> None:
    """Refuse weights and arguments for a model that needs none.

    Raises:
        InputError: Names what to leave out.
    """
    if source.weights is not None:
        raise InputError(f"{source.model} holds its own weights: leave out {source.weights}.")
    if source.arguments and source.factory is None:
        raise InputError(f"{source.model} takes no arguments: leave out {', '.join(source.arguments)}.")


def check_named(stored: ClassifierSource, named: ClassifierSource | None, folder: Path) -> None:
    """Refuse a stored network that would run code which the caller's own settings do not name.

    A folder may come from a store that others write to: it holds weights and plain values, and may say of which factory
    they are, but neither which code is imported here nor what that is given.

    Args:
        stored: What the folder says.
        named: What the settings or the command line of this machine say of the same network.
        folder: For the message.

    Raises:
        InputError: The folder names another factory, other arguments, or something that lies elsewhere.
    """
    if stored.model.startswith("torchvision:"):
        return  # one of a closed list, whose arguments fetch nothing
    if ":" not in stored.model:
        raise InputError(f"{folder} names {stored.model!r} as its network, which is no part of it: get it again.")
    trusted = named is not None and (named.factory or named.model) == stored.model
    if named is None or not trusted or _plain(named) != _plain(stored):
        arguments = json.dumps(stored.arguments)
        other = f" (but {named.factory} with {json.dumps(_plain(named))[:200]})" if named and named.factory else ""
        raise InputError(
            f"{folder} asks to call {stored.model} with {arguments[:200]}, which nothing here names{other}: refused. "
            f"If you know that code, name it with the same arguments: by --factory {stored.model}, or in settings as "
            "the source's model, or as factory beside a folder."
        )


def _plain(source: ClassifierSource) -> Any:
    return source.model_dump(mode="json")["arguments"]


def shape_of(source: ClassifierSource) -> tuple[int, int, int]:
    if source.image_shape is None:
        raise InputError(f"{source.model} does not tell the shape of its images: give image_shape (--image-shape).")
    return source.image_shape
