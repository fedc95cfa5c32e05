"""The shape of ``results.json``: written by the evaluate stage, read by the report, explained in docs/measures.md."""

from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from netinv.core import Config, ImageShape, InputError, Number, Share, read_json
from netinv.results.estimates import Measure, NotMeasured

VERSION = 1
"""Of the schema. It grows with every change that a reader can notice. Files of another version are not converted, as
what they lack has to be measured: they are evaluated again, which DVC does by itself, as the stage depends on this."""
Kind = Literal["generator", "ensemble", "reference"]


ROW_NAME = r"^\w[\w .+-]*$"
"""What a row may be called: its name is part of those of files."""
GRID_COLUMNS = 10
"""Images of each class in the grid of a row, which lies beside the results."""
GRID_CLASSES = 20
"""Classes in such a grid."""


def each_class(num: int, shown: int = GRID_CLASSES) -> str:
    """Of which classes there is a row, in words, where a picture has no more than so many rows.

    Example:
        >>> each_class(20), each_class(300)
        ('each class', 'each of the first 20 of 300 classes')
    """
    return "each class" if num <= shown else f"each of the first {shown} of {num} classes"


class AccuracyBin(Config):
    """Accuracy where the condition lies in a range: of the gap, or of the sharpness (then low == high)."""

    low: Number
    high: Number
    inversion_accuracy: Measure
    evaluator_accuracy: Measure


class CalibrationBin(Config):
    """Samples whose wanted intensity lies in a range."""

    low: Number
    high: Number
    wanted: Measure
    """Mean of p_y, the condition's entry for the wanted label."""
    obtained: Measure
    """Mean of q_y, the classifier's probability of that label."""


class RobustPoint(Config):
    """A point of the robustness curve."""

    epsilon: Number
    accuracy: Measure


class Comparison(Config):
    """One kind of distance from generated images to their nearest training and test image."""

    train: Measure
    """Mean distance to the nearest training image."""
    test: Measure
    """Mean distance to the nearest test image."""
    train_minus_test: Measure
    """Their difference; below 0 is closer to training images. Interval from the permutations."""
    p_value: Share
    """Share of the permutations with a difference as low."""
    copies_train: Measure
    """Share of near copies of training images."""
    copies_test: Measure
    """Share of near copies of test images, the control."""
    copies_p_value: Share
    """Share of the permutations with as large a surplus of near copies on the training side."""
    copy_distance: float
    """A near copy is closer than this."""
    by_class: tuple[Measure, ...]
    """``train_minus_test`` of each class."""


class Pair(Config):
    """The generated image of a class that is nearest to a training image."""

    distance: Literal["pixel", "ssim", "feature"]
    label: NonNegativeInt
    sample: NonNegativeInt
    """Index among the row's samples."""
    train: NonNegativeInt
    """Index of the nearest image in the training split."""
    test: NonNegativeInt
    """Index of the nearest image in the test split."""
    train_distance: float
    test_distance: float


class Audit(Config):
    """A privacy audit of one set of generated images."""

    verdict: str
    """One sentence for people."""
    memorised: bool | None
    """Whether the audit found memorised training images; ``None`` if it could not tell."""
    pool: NonNegativeInt
    """Images in the training pool, and in the test pool."""
    comparisons: dict[str, Comparison | NotMeasured]
    """Of pixel (Euclidean), ssim (1 - SSIM) and feature (Euclidean between unit feature vectors), by these names."""
    pairs: tuple[Pair, ...]


class Row(Config):
    """One set of samples and all its measures."""

    name: str = Field(pattern=ROW_NAME)
    """generator 0, generator 1, ..., ensemble, real_train, real_test, noise, one_picture."""
    kind: Kind
    samples: NonNegativeInt
    measures: dict[str, Measure]
    """Always the same names."""
    dropout: dict[str, Measure]
    """The same names, for images drawn with the generator's dropout left on."""
    by_class: dict[str, tuple[Measure, ...]]
    """inversion_accuracy, evaluator_accuracy and vendi of each class."""
    confusion: dict[str, tuple[tuple[NonNegativeInt, ...], ...]]
    """Counts, wanted label by predicted label, under the ``classifier`` and the ``evaluator``."""
    by_gap: tuple[AccuracyBin, ...]
    by_sharpness: tuple[AccuracyBin, ...]
    calibration: tuple[CalibrationBin, ...]
    robustness: tuple[RobustPoint, ...]
    audit: Audit
    """Of references too, as its controls: it must flag real training images, and nothing but them."""


class Results(Config):
    """All that the evaluation of one variant found."""

    version: Literal[1] = 1
    """Of the schema."""
    classes: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    image_shape: ImageShape
    settings: dict[str, Any]
    """The evaluation's configuration."""
    sharpness: tuple[float, float]
    """Range of the condition's sharpness that the samples were drawn from."""
    vendi_n: NonNegativeInt
    """Samples of each class behind every Vendi score."""
    headline: dict[str, Measure]
    """The few numbers that people compare."""
    verdict: str
    """The privacy audit of all generators and of the classifier, in a sentence each."""
    leak: bool | None
    """Whether either found a leak of training images; ``None`` if neither did and one could not be judged."""
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unlike := next(self._unlike(), None):
            raise ValueError(unlike)
        return self

    def _unlike(self) -> Iterator[str]:
        """What does not fit the classes, or the other rows."""
        num, names = len(self.classes), [row.name for row in self.rows]
        for row in self.rows:
            if names.count(row.name) > 1:
                yield f"there are two rows {row.name!r}"
            for kind in ("measures", "dropout"):
                if {*getattr(row, kind)} != {*self.rows[0].measures}:
                    yield f"{kind} of the row {row.name!r} are not those of the row {self.rows[0].name!r}"
            by_class: dict[str, Sized] = {f"by_class.{name}": found for name, found in row.by_class.items()}
            by_class |= {
                f"audit.comparisons.{name}.by_class": found.by_class
                for name, found in row.audit.comparisons.items()
                if isinstance(found, Comparison)
            }
            by_class |= {f"confusion.{name}": counts for name, counts in row.confusion.items()}
            by_class |= {
                f"confusion.{name}.{i}": line for name, counts in row.confusion.items() for i, line in enumerate(counts)
            }
            for key, found in by_class.items():
                if len(found) != num:
                    yield f"{key} of the row {row.name!r} has {len(found)} entries for {num} classes"
            if wrong := [pair.label for pair in row.audit.pairs if pair.label >= num]:
                yield f"audit.pairs of the row {row.name!r} name class {wrong[0]} of {num}"


def load_results(path: Path) -> Results:
    """Read ``results.json``.

    Raises:
        InputError: The file is missing or is not a result.
    """
    values = read_json(path, "evaluate again")
    version = values.get("version", "none") if isinstance(values, dict) else VERSION
    if version != VERSION:
        mend = "update netinv" if isinstance(version, int) and version > VERSION else "evaluate again"
        raise InputError(f"{path} is of version {str(version)[:20]}, and this netinv reads version {VERSION}: {mend}.")
    return Results.parse(values, where=str(path))
