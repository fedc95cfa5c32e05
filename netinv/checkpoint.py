"""Trained networks on disk: ``weights.safetensors`` and ``config.json`` in one folder. Nothing is pickled."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from netinv.classifiers import ClassifierConfig, ConvClassifier, ResidualClassifier, build_classifier
from netinv.config import explain
from netinv.errors import InputError
from netinv.generator import ConditionedGenerator, GeneratorConfig


def _save(folder: Path, network: nn.Module, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Not save_file: it tells of a full disk with an exception of its own.
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint's folder says of its network.

    Raises:
        InputError: It says nothing that can be read.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a readable checkpoint configuration ({error}).") from None
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a checkpoint configuration: expected an object, got {type(config).__name__}.")
    return config


def _load_weights(folder: Path, network: nn.Module) -> None:
    path = Path(folder) / "weights.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} does not hold the weights that config.json describes ({reason}).") from None


def save_classifier(folder: Path, classifier: ConvClassifier | ResidualClassifier) -> None:
    """Write a classifier's weights and all that is needed to rebuild it."""
    config = {
        "network": "classifier",
        "architecture": classifier.config.model_dump(mode="json"),
        "num_classes": classifier.num_classes,
        "image_shape": classifier.image_shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }
    _save(folder, classifier, config)


def load_classifier(folder: Path) -> ConvClassifier | ResidualClassifier:
    """Read a classifier, in evaluation mode.

    Raises:
        InputError: The folder does not hold a classifier's checkpoint, or holds a damaged one.
    """
    config = read_config(folder)
    try:
        architecture = TypeAdapter(ClassifierConfig).validate_python(config["architecture"])
        channels, height, width = config["image_shape"]
        classifier = build_classifier(
            architecture, config["num_classes"], (channels, height, width), tuple(config["mean"]), tuple(config["std"])
        )
    except ValidationError as error:
        raise InputError(f"{folder} does not hold a classifier: {explain(error)}.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} does not hold a classifier: config.json lacks or misstates {error}.") from None
    _load_weights(folder, classifier)
    return classifier.eval()


def save_generator(folder: Path, generator: ConditionedGenerator) -> None:
    """Write a generator's weights and all that is needed to rebuild it."""
    config = {
        "network": "generator",
        "architecture": generator.config.model_dump(mode="json"),
        "num_classes": generator.num_classes,
        "image_shape": generator.image_shape,
    }
    _save(folder, generator, config)


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
    _load_weights(folder, generator)
    return generator.eval()
