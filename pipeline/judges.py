"""The two networks of a data set: the classifier that is inverted, and the evaluator that no generator ever saw."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from netinv.classifiers import Classifier, ImportedClassifier
    from pipeline.params import TrainParams


class Judges(NamedTuple):
    """Both, as the stage ``train`` left them."""

    classifier: "Classifier | ImportedClassifier"
    evaluator: "Classifier | ImportedClassifier"


def load_judges(models: Path, train: "TrainParams", device: str) -> Judges:
    """Read both from the data set's folder of networks, in evaluation mode, onto one device.

    Raises:
        InputError: A folder does not hold a classifier, or not the one that the settings name.
    """
    from netinv.classifiers import load_checkpoint

    return Judges(
        load_checkpoint(models / "classifier", train.classifier.source).to(device),
        load_checkpoint(models / "evaluator", train.evaluator.source).to(device),
    )
