"""Where a classifier comes from, in words that a file or a command line can hold."""

from typing import Any, NamedTuple

from pydantic import Field, PositiveInt
from torch import nn

from netinv.classifiers.adapters import AdapterConfig
from netinv.core import Config, InputError


class ClassifierSource(Config):
    """Where a classifier comes from, what it takes and what it gives."""

    model: str = Field(min_length=1)
    """``torchvision:NAME``, a factory ``package.module:function``, a ``.pt2`` exported program, or the folder of a
    checkpoint that this library wrote."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the factory or of torchvision's model."""
    weights: str | None = None
    """File of weights, safetensors or ``torch.save`` of tensors; for torchvision also a name such as ``DEFAULT``."""
    weights_prefix: str | None = None
    """Where in that file the network's names begin, such as ``state_dict.module``; ``None`` looks for it."""
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """(C, H, W) of the images to be generated; ``None`` where the source knows it."""
    num_classes: PositiveInt | None = None
    """K; ``None`` is what the network gives."""
    adapter: AdapterConfig = AdapterConfig()


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
    if source.arguments:
        raise InputError(f"{source.model} takes no arguments: leave out {', '.join(source.arguments)}.")


def shape_of(source: ClassifierSource) -> tuple[int, int, int]:
    if source.image_shape is None:
        raise InputError(f"{source.model} does not tell the shape of its images: give image_shape.")
    return source.image_shape
