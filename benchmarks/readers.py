"""How the product reads each kind of file that it or a person brings, for ``fuzz.py``."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn


class Reader(NamedTuple):
    """Files, and the function that the product reads them with."""

    paths: tuple[str, ...]
    """Patterns of the files that are changed, in the project."""
    read: Callable[[Path], Any]
    """Takes the project's root."""
    share: float
    """Of the trials."""


def read_settings(root: Path) -> None:
    """All of ``params.yaml``, each data set's share of it, and what it would take."""
    from netinv.classifiers import load_checkpoint
    from netinv.data import load_spec
    from pipeline.estimates import check_classifier_training, check_inversion
    from pipeline.params import load_params

    params = load_params(root / "params.yaml")
    for number in numbers(params.model_dump(mode="json")):
        assert math.isfinite(number), f"{number} is taken"
    spec, classifier = load_spec(root / "data/digits"), load_checkpoint(root / "models/digits/classifier")
    for name in params.datasets:
        own = params.for_dataset(name)
        for model in ("classifier", "evaluator"):
            part = getattr(own.train, model)
            if part.source is None:
                check_classifier_training(f"train.{model}", part, spec)
        for variant in params.variants:
            architecture = own.invert.common.architecture(variant)
            check_inversion(f"invert.{variant}", architecture, getattr(own.invert, variant), classifier)


def numbers(values: Any) -> list[float]:
    """All numbers in nested values."""
    if isinstance(values, (dict, list)):
        return [n for part in (values.values() if isinstance(values, dict) else values) for n in numbers(part)]
    return [values] if isinstance(values, (int, float)) else []


def network() -> nn.Module:
    """Someone's own, whose weights are read from a file."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))


def read_weights(root: Path, suffix: str) -> None:
    """Weights of another program."""
    from netinv.classifiers import AdapterConfig, ClassifierSource, load_network

    source = ClassifierSource(
        model="readers:network", weights=str(root / f"foreign/last.{suffix}"), image_shape=(1, 16, 16), num_classes=10
    )
    load_network(source)
    assert AdapterConfig()


def read_onnx(root: Path) -> None:
    """An exported generator, and two images of it."""
    from netinv.sampling import OnnxGenerator

    OnnxGenerator(root / "onnx/digits/robust/generator-0.onnx", 1).sample(2, seed=0)


def read_data(root: Path) -> None:
    """A data set."""
    from netinv.data import load_spec, load_split

    load_spec(root / "data/digits")
    for split in ("train", "test"):
        load_split(root / "data/digits", split)


def read_generator(root: Path) -> None:
    """A generator, and two images of it."""
    from netinv.generators import draw_images, load_generator

    draw_images(load_generator(root / "generators/digits/robust/0").eval(), 2, seed=0, sharpness=(1.0, 1.0))


def read_images(root: Path, name: str) -> None:
    """A folder of images, packed or not."""
    from netinv.data import FolderConfig, read_image_folder

    read_image_folder(FolderConfig(path=str(root / "foreign" / name), image_shape=(1, 16, 16)))


def read_report(root: Path) -> None:
    """All that the report is made of, and the page."""
    from netinv.report import read_ablations, render
    from pipeline.params import load_params
    from pipeline.report import collect

    folders = [root / name for name in ("evaluation", "interpretation", "metrics", "plots", "runs")]
    render(
        collect(load_params(root / "params.yaml"), *folders, "sqlite:///mlflow.db"), read_ablations(root / "ablation")
    )


def read_checkpoint(root: Path) -> None:
    """What a killed stage has left: it goes on, or begins anew and says so."""
    from pipeline.checkpoints import Checkpoints

    Checkpoints(str(root / "foreign/checkpoints"), "invert-digits-robust", "0123").load(0)


def read_journals(root: Path) -> None:
    """What is still to be delivered to MLflow."""
    from pipeline.tracking import delivery

    os.chdir(root / "foreign")
    delivery.Deliverer("sqlite:///mlflow.db").folders()


def read_policy(root: Path) -> None:
    """A policy of audits."""
    from netinv.audit import load_policy

    load_policy(root / "foreign/policy.yaml")


def read_inversion(root: Path) -> None:
    """What ``netinv invert`` has written."""
    from netinv import Inversion

    Inversion.load(root / "foreign/inversion").sample(2, seed=0)


def read_checkpointed(root: Path) -> None:
    """A classifier of this project."""
    from netinv.classifiers import load_checkpoint

    load_checkpoint(root / "models/digits/classifier")


def read_results(root: Path) -> None:
    """The numbers of an evaluation, and of an interpretation."""
    from netinv.results import load_interpretation, load_results

    load_results(root / "evaluation/digits/robust/results.json")
    load_interpretation(root / "interpretation/digits")


SETTINGS = Reader(("params.yaml",), read_settings, 1)
FILES = {
    "data set": Reader(("data/digits/*",), read_data, 0.1),
    "classifier": Reader(("models/digits/classifier/*",), read_checkpointed, 0.08),
    "generator": Reader(("generators/digits/robust/0/*.json", "generators/digits/robust/0/*.s*"), read_generator, 0.08),
    "inversion": Reader(("foreign/inversion/*.json", "foreign/inversion/*.s*"), read_inversion, 0.08),
    "weights (torch)": Reader(("foreign/last.pt",), lambda root: read_weights(root, "pt"), 0.06),
    "weights (safetensors)": Reader(
        ("foreign/last.safetensors",), lambda root: read_weights(root, "safetensors"), 0.04
    ),
    "ONNX": Reader(("onnx/digits/robust/generator-0.onnx",), read_onnx, 0.12),
    "images": Reader(("foreign/images/**/*",), lambda root: read_images(root, "images"), 0.06),
    "archive (tar.gz)": Reader(("foreign/images.tar.gz",), lambda root: read_images(root, "images.tar.gz"), 0.06),
    "archive (zip)": Reader(("foreign/images.zip",), lambda root: read_images(root, "images.zip"), 0.06),
    "results": Reader(
        ("evaluation/digits/robust/results.json", "interpretation/digits/interpretation.json"), read_results, 0.08
    ),
    "report's inputs": Reader(
        ("evaluation/**/*", "interpretation/**/*", "metrics/**/*", "plots/**/*", "runs/**/*"), read_report, 0.06
    ),
    "stage's checkpoint": Reader(("foreign/checkpoints/**/*",), read_checkpoint, 0.04),
    "journal": Reader(("foreign/.mlflow-journal/**/*",), read_journals, 0.04),
    "policy": Reader(("foreign/policy.yaml",), read_policy, 0.04),
}
