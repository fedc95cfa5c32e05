"""Options that several subcommands share, and what they stand for: a classifier, its inversions, data, a judge."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from netinv.app.messages import warn_of_chance
from netinv.app.parsing import NETWORK, PATH, expect_evaluator, parse_evaluator, parse_source
from netinv.core import InputError

if TYPE_CHECKING:
    from netinv.app.inversions import Inversion
    from netinv.classifiers import AdaptedClassifier, Classifier, ClassifierSource
    from netinv.data import Dataset, LabelledImages

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = (
    "MODEL is torchvision:NAME, a factory PACKAGE.MODULE:FUNCTION, a .pt2 exported program, a checkpoint's folder, or "
    "the folder of an inversion, which knows where its classifier came from."
)
"""What the help of every command that takes one ends with."""
EVALUATOR_EPOCHS = 5
"""Passes over the data when an evaluator has to be trained."""


def source_options(command: Command) -> Command:
    """The argument and the options that say where a classifier comes from, what it takes and what it gives.

    The command's help ends with what the argument can be.
    """
    command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{MODEL}"
    options = [
        click.argument("model", type=NETWORK),
        click.option(
            "--weights", type=NETWORK, help="File of weights, or a name such as DEFAULT for torchvision's own."
        ),
        click.option("--weights-prefix", help="Where in that file the network's names begin.  [default: found]"),
        click.option("--argument", "arguments", multiple=True, help="NAME=VALUE for the factory; repeat it."),
        click.option("--factory", help="The PACKAGE.MODULE:FUNCTION that may build a stored network."),
        click.option("--image-shape", help="Channels, height, width of the images, such as 3,32,32."),
        click.option("--num-classes", type=click.IntRange(2), help="Classes.  [default: as the network has]"),
        click.option("--mean", help="Mean of each channel that it is normalised by, such as 0.49,0.48,0.45."),
        click.option("--std", help="Standard deviation of each channel, likewise; 1/255 for pixels in 0..255."),
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


def subject_options(command: Command) -> Command:
    """The options that say what is measured of a classifier, and beside what; :func:`read_subject` reads them."""
    options = [
        click.option("--inversion", "folders", multiple=True, type=PATH, help="Folder; repeat it.  [default: MODEL]"),
        click.option("--data", type=PATH, help="Real images: a data set, or a folder of images."),
        click.option(
            "--evaluator",
            type=NETWORK,
            help="Independent classifier, in any form of MODEL.  [default: one is trained on --data]",
        ),
        click.option(
            "--evaluator-set", multiple=True, help="NAME=VALUE, an option of MODEL for it, such as mean=0.5; repeat it."
        ),
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(0), help="Fixes the evaluator and all draws."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Subject(NamedTuple):
    """A classifier that was inverted, and what it is to be measured beside."""

    source: "ClassifierSource"
    classifier: "Classifier | AdaptedClassifier"
    inversions: "list[Inversion]"
    """Their generators are on the classifier's device."""
    dataset: "Dataset | None"
    evaluator: "Classifier | AdaptedClassifier | None"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in label order."""
        return self.inversions[0].classes if self.dataset is None else self.dataset.classes

    @property
    def splits(self) -> "tuple[LabelledImages | None, LabelledImages | None]":
        """Real images for training and for testing, where there are any."""
        return (None, None) if self.dataset is None else (self.dataset.train, self.dataset.test)


def read_subject(
    folders: tuple[Path, ...],
    data: Path | None,
    evaluator: str | None,
    evaluator_set: tuple[str, ...],
    seed: int,
    options: Mapping[str, Any],
    alike: bool = False,
) -> Subject:
    """What the options name, read and checked; an evaluator is trained where there are data and none is named.

    Args:
        folders: As the options of the same names, like what follows.
        data: Real images.
        evaluator: Independent classifier.
        evaluator_set: Its options.
        seed: Of an evaluator that is trained.
        options: Those of :func:`source_options`.
        alike: Whether all inversions are to be of one variant, sharpness and architecture.

    Raises:
        InputError: One of them is not what it should be, or they do not speak of the same classes.
    """
    from netinv.app.inversions import expect_alike
    from netinv.app.records import expect_inverted
    from netinv.classifiers import load_classifier_from
    from netinv.core import check_same_classes, expect_once

    expect_evaluator(evaluator, evaluator_set)
    folders = folders or _inversion_in(options["model"])
    expect_once(folders)
    source, device = parse_source(dict(options))
    classifier = load_classifier_from(source, device)
    expect_inverted(options["model"], classifier)
    inversions = [read_inversion(folder, options["model"], classifier) for folder in folders]
    if alike:
        expect_alike(dict(zip(map(str, folders), inversions, strict=True)))
    dataset = None if data is None else read_data(data, classifier.image_shape)
    orders = {str(folder): inversion.classes for folder, inversion in zip(folders, inversions, strict=True)}
    check_same_classes(orders if dataset is None else orders | {str(data): dataset.classes})
    judge: Any = None
    if evaluator is not None:
        judge = load_classifier_from(parse_evaluator(evaluator, evaluator_set, classifier.image_shape, device), device)
    elif dataset is not None:
        judge = train_evaluator(dataset, device, seed)
    if dataset is not None:
        warn_of_chance(f"{source.model} on {data}", classifier, dataset.test)
        warn_of_chance(f"the evaluator on {data}", judge, dataset.test)
    for inversion in inversions:
        inversion.generator.to(device)
    return Subject(source, classifier, inversions, dataset, judge)


def read_inversion(folder: Path, model: str, classifier: "AdaptedClassifier") -> "Inversion":
    """The inversion in a folder, whose images the classifier of a MODEL must take and have the classes of.

    Raises:
        InputError: It does not; says what differs.
    """
    from netinv.app.inversions import Inversion

    inversion = Inversion.load(folder)
    expect_drawn_for(model, classifier, folder, inversion.generator.image_shape, inversion.classes)
    return inversion


def expect_drawn_for(
    model: str, classifier: "AdaptedClassifier", path: Path, image_shape: Sequence[int], classes: Sequence[str]
) -> None:
    """Refuse a generator of other images or another number of classes than the classifier of a MODEL knows.

    Args:
        model: What the classifier is called in the error.
        classifier: It.
        path: Of the generator.
        image_shape: (C, H, W) of what it draws.
        classes: Names of its K classes.

    Raises:
        InputError: It is one; says what differs.
    """
    drawn, taken = tuple(image_shape), tuple(classifier.image_shape)
    if (drawn, len(classes)) != (taken, classifier.num_classes):
        raise InputError(
            f"{path} draws images {drawn} of {len(classes)} classes, but {model} takes {taken} and knows "
            f"{classifier.num_classes}: name what belongs together."
        )


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

    What makes measures of it mean less is told on stderr.

    Raises:
        InputError: It is neither, or its images have another shape.
    """
    from netinv.data import Dataset, FolderConfig, load_spec, load_split, oddities, read_image_folder

    if (path / "spec.json").exists():
        spec = load_spec(path)
        if spec.image_shape != image_shape:
            raise InputError(
                f"{path} has images of shape {spec.image_shape}, not {image_shape}: give that --image-shape."
            )
        splits = load_split(path, "train"), load_split(path, "test")
        dataset = Dataset(spec.classes, *splits, spec.source, spec.licence)
    else:
        expect_pictures(path, image_shape)
        folder = FolderConfig.parse({"path": str(path), "image_shape": image_shape}, where="--data")
        dataset = read_image_folder(folder)
    for sentence in oddities(dataset):
        print(f"warning: {path}: {sentence}", file=sys.stderr)
    return dataset


def expect_pictures(path: Path, image_shape: tuple[int, int, int]) -> None:
    """Refuse to read a folder of images for a classifier of other than grey or RGB images (C, H, W).

    Raises:
        InputError: It takes another number of channels.
    """
    if image_shape[0] not in (1, 3):
        raise InputError(
            f"{path} would be read as grey or RGB images, but the classifier takes {image_shape[0]} channels: give a "
            "data set of this library, samples in an .npz, or tensors in Python, as to netinv.evaluate."
        )


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
