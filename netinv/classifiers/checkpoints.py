"""This library's own classifiers on disk."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from netinv.classifiers.networks import ClassifierConfig, ConvClassifier, ResidualClassifier, build_classifier
from netinv.core import InputError, explain, read_config, read_weights, write_network


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
    write_network(folder, classifier, config)


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
    read_weights(folder, classifier)
    return classifier.eval()
