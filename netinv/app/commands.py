"""The subcommands of ``netinv`` for a classifier of one's own: check, invert, evaluate, report, export."""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netinv.app.parsing import expect_evaluator, parse_evaluator, parse_pairs, parse_source
from netinv.app.telling import tell_evaluation, tell_inversion, told
from netinv.core import VARIANTS, InputError

if TYPE_CHECKING:
    from netinv.classifiers import Classifier
    from netinv.data import Dataset

Command = TypeVar("Command", bound=Callable[..., Any])

EVALUATOR_EPOCHS = 5
"""Passes over the data when an evaluator has to be trained."""


def source_options(command: Command) -> Command:
    """The argument and the options that say where a classifier comes from, what it takes and what it gives."""
    options = [
        click.argument("model"),
        click.option("--weights", help="File of weights, or a name such as DEFAULT for torchvision's own."),
        click.option("--weights-prefix", help="Where in that file the network's names begin.  [default: found]"),
        click.option("--argument", "arguments", multiple=True, help="NAME=VALUE for the factory; repeat it."),
        click.option("--factory", help="The PACKAGE.MODULE:FUNCTION that may build a stored network."),
        click.option("--image-shape", help="Channels, height, width of the images, such as 3,32,32."),
        click.option("--num-classes", type=click.IntRange(2), help="Classes.  [default: as the network has]"),
        click.option("--mean", help="Mean of each channel that it is normalised by, such as 0.49,0.48,0.45."),
        click.option("--std", help="Standard deviation of each channel, likewise."),
        click.option("--input-shape", help="Shape that the network takes, if not the images'; 784 for flat rows."),
        click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), help="[default: rgb]"),
        click.option(
            "--output",
            type=click.Choice(["auto", "logits", "probabilities", "log_probabilities", "sigmoid"]),
            help="What the network gives.  [default: auto]",
        ),
        click.option("--output-entry", help="Place or name of the logits among several outputs.  [default: found]"),
        click.option("--feature-layer", help="Module whose input is the features.  [default: the last linear layer]"),
        click.option("--device", help="Such as cpu or cuda:0.  [default: a GPU where there is one]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def as_json(command: Command) -> Command:
    """The option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")(command)


@click.command()
@source_options
@click.option("--data", type=click.Path(path_type=Path), help="Labelled images: a data set, or a folder of images.")
@as_json
def check(data: Path | None, as_json: bool, **options: Any) -> None:
    """Try MODEL out before the work, and tell the usual mistakes. Exit status 1 where inversion would be in vain.

    MODEL is torchvision:NAME, a factory PACKAGE.MODULE:FUNCTION, a .pt2 exported program, or a checkpoint's folder.
    """
    from netinv.classifiers import check_classifier, load_network

    source, device = parse_source(options)
    network = load_network(source, device)
    labelled, num_classes = None, network.num_classes
    if data is not None:
        dataset = read_data(data, network.image_shape)
        labelled, num_classes = dataset.test, num_classes or len(dataset.classes)
    report = check_classifier(network.module, network.image_shape, num_classes, network.adapter, labelled)
    print(report.model_dump_json(indent=2) if as_json else told(source.model, report))
    sys.exit(0 if report.ok else 1)


@click.command()
@source_options
@click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    default="standard",
    show_default=True,
    help="What is asked for: images that this network reads as asked, or that others read, too.",
)
@click.option("--steps", type=click.IntRange(1), help="Steps of the training.  [default: the variant's]")
@click.option("--set", "settings", multiple=True, help="[generator.]NAME=VALUE; repeat it. A wrong NAME lists all.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Fixes weights and draws.")
@click.option(
    "--attempts",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="How often it is tried at most, while a class cannot be drawn.",
)
@click.option(
    "--max-hours",
    default=12.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="What one try may take; more is refused, by an estimate from one step.",
)
@click.option("--classes", help="Names of the classes in label order, such as red,blue.  [default: their numbers]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the trained generator.")
@as_json
def invert(
    variant: str,
    steps: int | None,
    settings: tuple[str, ...],
    seed: int,
    attempts: int,
    max_hours: float,
    classes: str | None,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a generator that draws images of any class of MODEL, and show them in OUT/grid.png.

    MODEL is torchvision:NAME, a factory PACKAGE.MODULE:FUNCTION, a .pt2 exported program, or a checkpoint's folder.
    Ends with status 3 if some class could not be drawn.
    """
    from netinv.app.api import invert as invert_classifier
    from netinv.app.api import settings_of
    from netinv.app.inversions import MissingClasses
    from netinv.app.records import RECORD, placed
    from netinv.classifiers import load_classifier_from
    from netinv.core import check_folder
    from netinv.generators import GeneratorConfig
    from netinv.inversion import InversionConfig, variant_config

    check_folder(out, replaces=RECORD)
    values = parse_pairs(settings, "--set")
    architecture = {name.removeprefix("generator."): value for name, value in values.items() if "." in name}
    changes = {name: value for name, value in values.items() if "." not in name} | ({"steps": steps} if steps else {})
    InversionConfig.parse(variant_config(variant).model_dump(mode="json") | changes, where="--set")
    generator = GeneratorConfig.parse(architecture, where="--set generator")
    source, device = parse_source(options)
    classifier = load_classifier_from(source, device)
    settings_there, left_out = settings_of(variant, classifier)
    if left_out and "pixel_statistics" not in changes:
        print(f"note: {left_out}", file=sys.stderr)
    config = InversionConfig.parse(settings_there.model_dump(mode="json") | changes, where="--set")
    try:
        with warnings.catch_warnings(action="ignore", category=MissingClasses):  # told below
            inversion = invert_classifier(
                classifier,
                image_shape=classifier.image_shape,
                config=config,
                generator=generator,
                classes=tuple(classes.split(",")) if classes else None,
                seed=seed,
                attempts=attempts,
                max_hours=max_hours,
            )
    except FloatingPointError as error:
        raise InputError(str(error)) from None
    inversion = replace(inversion, source=placed(source))
    inversion.save(out)
    tell_inversion(inversion, out, as_json)


@click.command()
@source_options
@click.option(
    "--inversion",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder; repeat it.  [default: MODEL]",
)
@click.option("--data", type=click.Path(path_type=Path), help="Real images: a data set, or a folder of images.")
@click.option("--evaluator", help="Independent classifier, in any form of MODEL.  [default: one is trained on --data]")
@click.option(
    "--evaluator-set", multiple=True, help="NAME=VALUE, an option of MODEL for it, such as mean=0.5; repeat it."
)
@click.option("--num-samples", default=2000, show_default=True, type=click.IntRange(10), help="Images drawn of each.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Fixes the evaluator and all draws.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for measures and pictures.")
@as_json
def evaluate(
    folders: tuple[Path, ...],
    data: Path | None,
    evaluator: str | None,
    evaluator_set: tuple[str, ...],
    num_samples: int,
    seed: int,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure generators of MODEL. What cannot be measured without --data says so; with it, an evaluator is trained.

    MODEL may be the folder of an inversion, which knows where its classifier came from.
    """
    from netinv.app.inversions import Inversion, classifier_vendi
    from netinv.classifiers import load_classifier_from
    from netinv.core import check_folder, check_same_classes, new_folder, save_csv
    from netinv.evaluation import EvaluationConfig, save_evaluation
    from netinv.evaluation import evaluate as measure

    check_folder(out)
    expect_evaluator(evaluator, evaluator_set)
    folders = folders or _inversion_in(options["model"])
    source, device = parse_source(options)
    classifier = load_classifier_from(source, device)
    inversions = [Inversion.load(folder) for folder in folders]
    dataset = None if data is None else read_data(data, classifier.image_shape)
    orders = {str(folder): inversion.classes for folder, inversion in zip(folders, inversions, strict=True)}
    check_same_classes(orders if dataset is None else orders | {str(data): dataset.classes})
    judge: Any = None
    if evaluator is not None:
        judge = load_classifier_from(parse_evaluator(evaluator, evaluator_set, classifier.image_shape, device), device)
    elif dataset is not None:
        judge = train_evaluator(dataset, device, seed)
    train, test = (None, None) if dataset is None else (dataset.train, dataset.test)
    evaluation = measure(
        [inversion.generator.to(device) for inversion in inversions],
        classifier,
        judge,
        inversions[0].classes if dataset is None else dataset.classes,
        train,
        test,
        EvaluationConfig(num_samples=num_samples, seed=seed),
        inversions[0].config.sharpness,
    )
    with new_folder(out) as folder:
        save_evaluation(folder, evaluation, train, test)
        curves = [{"generator": i, **record} for i, inversion in enumerate(inversions) for record in inversion.history]
        save_csv(folder / "curves.csv", curves)
        settings = source.model_dump(mode="json", exclude_defaults=True)
        settings |= {name: str(path) for name, path in (("data", data), ("evaluator", evaluator)) if path is not None}
        settings |= {"evaluator_set": " ".join(evaluator_set)} if evaluator_set else {}
        settings |= inversions[0].generator.config.model_dump(mode="json")
        settings |= inversions[0].config.model_dump(mode="json")
        (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    vendi = [classifier_vendi(inversion, classifier) for inversion in inversions]
    if as_json:
        headline = {name: value.model_dump(mode="json") for name, value in evaluation.results.headline.items()}
        print(json.dumps({"out": str(out), "headline": headline, "classifier_vendi": vendi}))
        return
    tell_evaluation(evaluation.results, vendi)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HTML file.")
@as_json
def report(folders: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Write one self-contained page on all FOLDERS of `netinv evaluate`, each under its name; models apart."""
    from netinv.core import check_file, write_text
    from netinv.report import read_evaluations, render

    check_file(out)
    page = render(read_evaluations(folders))
    write_text(out, page)
    print(json.dumps({"out": str(out), "bytes": len(page)}) if as_json else f"{out}: {len(page) / 1e6:.1f} MB")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="ONNX file.")
@as_json
def export(folder: Path, out: Path, as_json: bool) -> None:
    """Write the generator in FOLDER as an ONNX file, which `netinv sample` draws from without torch."""
    from netinv.app.inversions import Inversion
    from netinv.core import check_file

    check_file(out)
    Inversion.load(folder).to_onnx(out)
    print(json.dumps({"out": str(out), "bytes": out.stat().st_size}) if as_json else f"{out}: written and checked")


def _inversion_in(model: str) -> tuple[Path]:
    """The folder of an inversion that stands for its classifier.

    Raises:
        InputError: It is none.
    """
    from netinv.app.records import RECORD

    if not (Path(model) / RECORD).is_file():
        raise InputError("Missing option '--inversion': it names what is measured.")
    return (Path(model),)


def read_data(path: Path, image_shape: tuple[int, int, int]) -> "Dataset":
    """A data set of this library, or a folder of images with ``train/<class>/`` and ``test/<class>/``.

    Raises:
        InputError: It is neither, or its images have another shape.
    """
    from netinv.data import Dataset, FolderConfig, load_spec, load_split, read_image_folder

    if not (path / "spec.json").exists():
        folder = FolderConfig.parse({"path": str(path), "image_shape": image_shape}, where="--data")
        return read_image_folder(folder)
    spec = load_spec(path)
    if spec.image_shape != image_shape:
        raise InputError(f"{path} has images of shape {spec.image_shape}, not {image_shape}: give that --image-shape.")
    return Dataset(spec.classes, load_split(path, "train"), load_split(path, "test"), spec.source, spec.licence)


def train_evaluator(dataset: "Dataset", device: str, seed: int) -> "Classifier":
    """An independent judge: a small residual network trained on the real images. The seed fixes it.

    Torch's random state is left as it was.
    """
    import torch

    from netinv.classifiers import (
        ClassifierTrainingConfig,
        ResidualClassifierConfig,
        build_classifier,
        train_classifier,
    )
    from netinv.data import channel_statistics

    mean, std = channel_statistics(dataset.train.images)
    channels, height, width = dataset.train.images.shape[1:]
    shape = (channels, height, width)
    config = ClassifierTrainingConfig(epochs=EVALUATOR_EPOCHS)
    with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        evaluator = build_classifier(ResidualClassifierConfig(), len(dataset.classes), shape, mean, std).to(device)
        for record in train_classifier(evaluator, dataset.train, config, seed):
            epoch, accuracy = record["epoch"], record["accuracy"]
            print(f"evaluator: epoch {epoch:.0f}, training accuracy {accuracy:.3f}", file=sys.stderr)
    return evaluator
