"""What the folder of an inversion says of it, and where its classifier came from."""

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeInt

from netinv.classifiers import ClassifierSource, check_named
from netinv.core import ClassNames, Config, InputError, Share, network_digest, read_json
from netinv.inversion import InversionConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from netinv.classifiers import AdaptedClassifier

RECORD = "inversion.json"
"""File that marks the folder of an inversion, and says how it came about."""
FILES = (RECORD, "weights.safetensors", "config.json", "history.csv", "grid.png")
"""All that such a folder holds."""


def save_somewhere(save: "Callable[[Path], object]", out: Path) -> None:
    """Save what took long, beside ``out`` where that cannot be written any more, or else among temporary files.

    Raises:
        InputError: It could not be written there; says where it is.
    """
    try:
        save(out)
    except InputError as error:
        other = next(each for i in itertools.count(2) if not (each := out.with_name(f"{out.name}-{i}")).exists())
        try:
            save(other)
        except InputError:
            other = Path(tempfile.mkdtemp(prefix="netinv-")) / out.name
            save(other)
        raise InputError(f"{error} What was made is in {other}.") from None


class Record(Config):
    """What ``inversion.json`` holds."""

    classes: ClassNames = Field(min_length=1, max_length=100_000)
    accuracy: Share
    class_accuracy: tuple[Share, ...] = ()
    config: InversionConfig
    seed: NonNegativeInt | None = None
    classifier: ClassifierSource | None = None
    classifier_sha256: str | None = None


def read_record(folder: Path) -> Record:
    """What the folder of an inversion says of it.

    Raises:
        InputError: Nothing that can be read.
    """
    path = folder / RECORD
    return Record.parse(read_json(path, "invert again"), where=str(path))


def expect_inverted(model: str, classifier: "AdaptedClassifier") -> None:
    """Refuse, where the folder of an inversion stands for its classifier, another one than was inverted.

    Args:
        model: Where the classifier comes from. Of anything but such a folder, nothing is known.
        classifier: What came from there.

    Raises:
        InputError: Its weights are others than they were.
    """
    if not (Path(model) / RECORD).is_file():
        return
    record = read_record(Path(model))
    if record.classifier_sha256 not in (None, network_digest(classifier.network)):
        source = record.classifier
        named = "its classifier" if source is None else source.weights or source.model
        raise InputError(
            f"{named} has other weights now than those that were inverted for {model} (the file was changed, or a "
            "factory makes random ones): bring them back, or invert again."
        )


def source_of(folder: Path, named: ClassifierSource) -> ClassifierSource:
    """Where the classifier of an inversion's folder came from.

    Args:
        folder: May come from anywhere: a factory that it names is not called unless it is named here as well.
        named: What the command line says: the folder, and perhaps the factory.

    Raises:
        InputError: The folder does not say, its file is not here, it would run code that is not named, or more is said
            than that.
    """
    path = folder / RECORD
    source = read_record(folder).classifier
    if source is None:
        raise InputError(f"{path} does not say where its classifier came from: name that as the MODEL.")
    if named != ClassifierSource(model=named.model, factory=named.factory, arguments=named.arguments):
        raise InputError(f"{path} says what its classifier takes and gives: leave that out, or name the classifier.")
    for place in (Path(source.model), Path(source.weights or "")):
        if place.is_absolute() and not place.exists():  # it was a file, see `placed`
            raise InputError(
                f"The classifier of {folder} was {place}, which is not here: bring it back, or name the classifier as "
                f"the MODEL and {folder} by --inversion."
            )
    if Path(source.model).exists():  # a folder may name a factory in its turn, and what this one says does not count
        return source.model_copy(update={"factory": named.factory, "arguments": named.arguments})
    check_named(source, named, folder)
    return source


def placed(source: ClassifierSource) -> ClassifierSource:
    """A source whose files are found from anywhere on this machine.

    Links are not followed: those of a cache lead to names without an ending, away from what else their folder holds.
    """
    paths = {name: getattr(source, name) for name in ("model", "weights")}
    found = {name: str(Path(path).absolute()) for name, path in paths.items() if path and Path(path).exists()}
    return source.model_copy(update=found)
