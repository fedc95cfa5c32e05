"""The shape of ``results.json``: written by the evaluate stage, read by the report, explained in docs/measures.md."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from netinv.core import Config, InputError
from netinv.results.estimates import Measure, NotMeasured

Kind = Literal["generator", "ensemble", "reference"]


GRID_COLUMNS = 10
"""Images of each class in the grid of a row, which lies beside the results."""
GRID_CLASSES = 20
"""Classes in such a grid."""


class AccuracyBin(Config):
    """Accuracy where the condition lies in a range: of the gap, or of the sharpness (then low == high)."""

    low: float
    high: float
    inversion_accuracy: Measure
    evaluator_accuracy: Measure


class CalibrationBin(Config):
    """Samples whose wanted intensity lies in a range."""

    low: float
    high: float
    wanted: Measure
    """Mean of p_y, the condition's entry for the wanted label."""
    obtained: Measure
    """Mean of q_y, the classifier's probability of that label."""


class RobustPoint(Config):
    """A point of the robustness curve."""

    epsilon: float
    accuracy: Measure


class Comparison(Config):
    """One kind of distance from generated images to their nearest training and test image."""

    train: Measure
    """Mean distance to the nearest training image."""
    test: Measure
    """Mean distance to the nearest test image."""
    train_minus_test: Measure
    """Their difference; below 0 is closer to training images. Interval from the permutations."""
    p_value: float
    """Share of the permutations with a difference as low."""
    copies_train: Measure
    """Share of near copies of training images."""
    copies_test: Measure
    """Share of near copies of test images, the control."""
    copies_p_value: float
    """Share of the permutations with as large a surplus of near copies on the training side."""
    copy_distance: float
    """A near copy is closer than this."""
    by_class: tuple[Measure, ...]
    """``train_minus_test`` of each class."""


class Pair(Config):
    """The generated image of a class that is nearest to a training image."""

    distance: Literal["pixel", "ssim", "feature"]
    label: int
    sample: int
    """Index among the row's samples."""
    train: int
    """Index of the nearest image in the training split."""
    test: int
    """Index of the nearest image in the test split."""
    train_distance: float
    test_distance: float


class Audit(Config):
    """A privacy audit of one set of generated images."""

    verdict: str
    """One sentence for people."""
    memorised: bool | None
    """Whether the audit found memorised training images; ``None`` if it could not tell."""
    pool: int
    """Images in the training pool, and in the test pool."""
    comparisons: dict[str, Comparison | NotMeasured]
    """By kind of distance: pixel (Euclidean), ssim (1 - SSIM), feature (Euclidean between unit feature vectors)."""
    pairs: tuple[Pair, ...]


class Row(Config):
    """One set of samples and all its measures."""

    name: str = Field(pattern=r"^\w[\w .+-]*$")
    """generator 0, generator 1, ..., ensemble, real_train, real_test, noise."""
    kind: Kind
    samples: int
    measures: dict[str, Measure]
    """Always the same names."""
    dropout: dict[str, Measure]
    """The same names, for images drawn with the generator's dropout left on."""
    by_class: dict[str, tuple[Measure, ...]]
    """inversion_accuracy, evaluator_accuracy and vendi of each class."""
    confusion: dict[str, tuple[tuple[int, ...], ...]]
    """Counts, wanted label by predicted label, under the ``classifier`` and the ``evaluator``."""
    by_gap: tuple[AccuracyBin, ...]
    by_sharpness: tuple[AccuracyBin, ...]
    calibration: tuple[CalibrationBin, ...]
    robustness: tuple[RobustPoint, ...]
    audit: Audit
    """Of references too, as its controls: it must flag real training images, and nothing but them."""


class Results(Config):
    """All that the evaluation of one variant found."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    settings: dict[str, Any]
    """The evaluation's configuration."""
    sharpness: tuple[float, float]
    """Range of the condition's sharpness that the samples were drawn from."""
    vendi_n: int
    """Samples of each class behind every Vendi score."""
    headline: dict[str, Measure]
    """The few numbers that people compare."""
    verdict: str
    """The privacy audit of all generators and of the classifier, in a sentence each."""
    leak: bool | None
    """Whether either found a leak of training images; ``None`` if the generators could not be audited."""
    rows: tuple[Row, ...]


def load_results(path: Path) -> Results:
    """Read ``results.json``.

    Raises:
        InputError: The file is missing or is not a result.
    """
    try:
        return Results.parse(json.loads(path.read_text()), where=str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a readable result ({error}): evaluate again.") from None
