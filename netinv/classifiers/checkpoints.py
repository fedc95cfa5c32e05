"""This library's own classifiers on disk."""

from pathlib import Path
from typing import Self

from pydantic import ConfigDict, model_validator

from netinv.classifiers.networks import ClassifierConfig, ConvClassifier, ResidualClassifier, build_classifier
from netinv.core import (
    Classes,
    Config,
    Deviation,
    ImageShape,
    InputError,
    Number,
    read_config,
    read_network,
    write_network,
)


class _Record(Config):
    """What ``config.json`` holds, beside what an imported classifier adds."""

    model_config = ConfigDict(extra="ignore")

    architecture: ClassifierConfig
    num_classes: Classes
    image_shape: ImageShape
    mean: tuple[Number, ...]
    std: tuple[Deviation, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.mean) == len(self.std) == self.image_shape[0]:
            raise ValueError(f"mean and std have one value for each of {self.image_shape[0]} channels")
        return self


def save_classifier(folder: Path, classifier: ConvClassifier | ResidualClassifier) -> None:
    """Write a classifier's weights and all that is needed to rebuild it."""
    record = _Record(
        architecture=classifier.config,
        num_classes=classifier.num_classes,
        image_shape=classifier.image_shape,
        mean=tuple(classifier.mean.flatten().tolist()),
        std=tuple(classifier.std.flatten().tolist()),
    )
    write_network(folder, classifier, {"network": "classifier", **record.model_dump(mode="json")})


def load_classifier(folder: Path) -> ConvClassifier | ResidualClassifier:
    """Read a classifier, in evaluation mode.

    Raises:
        InputError: The folder does not hold a classifier's checkpoint, or holds a damaged one.
    """
    config = read_config(folder)
    if (kind := config.get("network", "classifier")) not in ("classifier", "imported"):
        raise InputError(f"{folder} holds a network of the kind {kind!r}: name the folder of a classifier.")
    record = _Record.parse(config, where=str(folder / "config.json"))
    about = record.num_classes, record.image_shape, record.mean, record.std
    return read_network(folder, lambda: build_classifier(record.architecture, *about))
