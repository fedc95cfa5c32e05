"""Trained generators on disk."""

from pathlib import Path
from typing import Literal

from netinv.core import Classes, Config, ImageShape, InputError, read_config, read_network, write_network
from netinv.generators.network import ConditionedGenerator, GeneratorConfig


class _Record(Config):
    """What ``config.json`` holds."""

    network: Literal["generator"]
    architecture: GeneratorConfig
    num_classes: Classes
    image_shape: ImageShape


def save_generator(folder: Path, generator: ConditionedGenerator) -> None:
    """Write a generator's weights and all that is needed to rebuild it."""
    record = _Record(
        network="generator",
        architecture=generator.config,
        num_classes=generator.num_classes,
        image_shape=generator.image_shape,
    )
    write_network(folder, generator, record.model_dump(mode="json"))


def load_generators(folder: Path) -> list[ConditionedGenerator]:
    """All generators of a variant, in the order of their numbers, by which their folders are named.

    Raises:
        InputError: There are none, or one is damaged.
    """
    numbered = [path for path in Path(folder).glob("*") if path.name.isdecimal()]
    if not numbered:
        raise InputError(f"{folder} holds no generators, in folders named 0, 1 and so on: run the stage invert again.")
    return [load_generator(path) for path in sorted(numbered, key=lambda path: int(path.name))]


def load_generator(folder: Path) -> ConditionedGenerator:
    """Read a generator, in evaluation mode.

    Raises:
        InputError: The folder does not hold a generator's checkpoint, or holds a damaged one.
    """
    record = _Record.parse(read_config(folder), where=f"{folder / 'config.json'}")
    about = record.architecture, record.num_classes, record.image_shape
    return read_network(folder, lambda: ConditionedGenerator(*about))
