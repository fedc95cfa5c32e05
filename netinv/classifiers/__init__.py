"""Classifiers: the project's own and their training, and other people's behind an adapter."""

from netinv.classifiers.adapters import DEFAULT, AdaptedClassifier, AdapterConfig, adapt
from netinv.classifiers.batch_norm import (
    BatchNormInputs,
    check_statistics,
    has_pixel_statistics,
    norms_see_vectors,
)
from netinv.classifiers.calls import frozen
from netinv.classifiers.check import CheckReport, check_classifier, near_chance
from netinv.classifiers.checkpoints import load_classifier, save_classifier
from netinv.classifiers.findings import as_found, behaviour
from netinv.classifiers.fresh import FreshClassifier, fresh_copy
from netinv.classifiers.imported import ImportedClassifier, import_classifier, load_checkpoint
from netinv.classifiers.loading import load_classifier_from, load_network
from netinv.classifiers.networks import (
    Classifier,
    ClassifierConfig,
    ConvClassifierConfig,
    InvertibleClassifier,
    ResidualClassifierConfig,
    build_classifier,
    freeze,
)
from netinv.classifiers.sources import ClassifierSource, check_named
from netinv.classifiers.training import ClassifierTrainingConfig, batch_for, predict, train_classifier
from netinv.classifiers.untrained import untrained

__all__ = [
    "DEFAULT",
    "AdaptedClassifier",
    "AdapterConfig",
    "BatchNormInputs",
    "CheckReport",
    "Classifier",
    "ClassifierConfig",
    "ClassifierSource",
    "ClassifierTrainingConfig",
    "ConvClassifierConfig",
    "FreshClassifier",
    "ImportedClassifier",
    "InvertibleClassifier",
    "ResidualClassifierConfig",
    "adapt",
    "as_found",
    "batch_for",
    "behaviour",
    "build_classifier",
    "check_classifier",
    "check_named",
    "check_statistics",
    "freeze",
    "fresh_copy",
    "frozen",
    "has_pixel_statistics",
    "import_classifier",
    "load_checkpoint",
    "load_classifier",
    "load_classifier_from",
    "load_network",
    "near_chance",
    "norms_see_vectors",
    "predict",
    "save_classifier",
    "train_classifier",
    "untrained",
]
