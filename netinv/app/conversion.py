"""Subcommands that bring things into the forms that others take: the built-in data sets, a classifier as ONNX."""

import json
from pathlib import Path
from typing import Any

import click

from netinv.app.options import as_json, source_options
from netinv.app.parsing import PATH, parse_classes, parse_source
from netinv.core import InputError


@click.command()
@click.argument("name")
@click.option(
    "--mirror",
    type=PATH,
    envvar="NETINV_MIRROR",
    help="Folder in torchvision's layout.  [default: NETINV_MIRROR, or it is downloaded]",
)
@click.option("--out", required=True, type=PATH, help="New folder for the data set.")
@as_json
def fetch(name: str, mirror: Path | None, out: Path, as_json: bool) -> None:
    """Bring a data set into the form that --data takes.

    NAME is digits (scikit-learn's, no download), or mnist, fashion_mnist, svhn or cifar10 (torchvision's).
    """
    from netinv.core import check_folder, new_folder
    from netinv.data import FetchConfig, fetch_dataset, save_dataset

    check_folder(out)
    data = fetch_dataset(name, FetchConfig(mirror=None if mirror is None else str(mirror)))
    with new_folder(out) as folder:
        spec = save_dataset(folder, name, *data)
    told = {"out": str(out), "train": spec.num_train, "test": spec.num_test, "image_shape": spec.image_shape}
    print(json.dumps(told) if as_json else f"{out}: {spec.num_train} training and {spec.num_test} test images")


@click.command("export-classifier")
@source_options
@click.option("--classes", help="Names of the classes in label order, such as red,blue.  [default: their numbers]")
@click.option("--out", required=True, type=PATH, help="ONNX file.")
@as_json
def export_classifier(classes: str | None, out: Path, as_json: bool, **options: Any) -> None:
    """Write MODEL as an ONNX file, by which `netinv sample --verify` tells the accuracy without torch."""
    from netinv.classifiers import load_classifier_from
    from netinv.core import check_file
    from netinv.export import export_classifier as written
    from netinv.export import versions
    from netinv.sampling import Metadata

    check_file(out, ".onnx")
    classifier = load_classifier_from(*parse_source(options))
    names = tuple(map(str, range(classifier.num_classes))) if classes is None else parse_classes(classes)
    if len(names) != classifier.num_classes:
        raise InputError(f"--classes names {len(names)} classes, but the classifier knows {classifier.num_classes}.")
    metadata = Metadata(
        kind="classifier",
        dataset="",
        variant="",
        classes=names,
        image_shape=classifier.image_shape,
        run_id="",
        licence="",
        versions=versions(),
    )
    difference = written(out, classifier.cpu(), metadata)
    told = {"out": str(out), "bytes": out.stat().st_size, "difference": difference}
    print(json.dumps(told) if as_json else f"{out}: written, and checked against torch")
