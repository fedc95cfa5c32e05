"""Trained generators on disk."""

from pathlib import Path

from netinv.core import InputError, read_config, read_weights, write_network
from netinv.generators.network import ConditionedGenerator, GeneratorConfig


def save_generator(folder: Path, generator: ConditionedGenerator) -> None:
    """Write a generator's weights and all that is needed to rebuild it."""
    config = {
        "network": "generator",
        "architecture": generator.config.model_dump(mode="json"),
        "num_classes": generator.num_classes,
        "image_shape": generator.image_shape,
    }
    write_network(folder, generator, config)


def load_generator(folder: Path) -> ConditionedGenerator:
    """Read a generator, in evaluation mode.

    Raises:
        InputError: The folder does not hold a generator's checkpoint, or holds a damaged one.
    """
    config = read_config(folder)
    try:
        architecture = GeneratorConfig.parse(config["architecture"], where=f"{folder}: architecture")
        channels, height, width = config["image_shape"]
        generator = ConditionedGenerator(architecture, config["num_classes"], (channels, height, width))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} does not hold a generator: config.json lacks or misstates {error}.") from None
    read_weights(folder, generator)
    return generator.eval()
