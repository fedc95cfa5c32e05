"""The schema of ``interpretation.json``: what dictionaries of a classifier's activations were found to be worth."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from netinv.core import Config, ImageShape, InputError, Share, read_json
from netinv.results.estimates import Finite, Measure

INTERPRETATION = "interpretation.json"
"""Name of the file."""


class DictionaryRow(Config):
    """One dictionary, and what it is worth on each kind of images."""

    name: str
    """Such as ``real``, ``generated, again`` (with another seed) or ``generated, 4 active``."""
    source: str
    """The images whose activations it was trained on, or the control that it is."""
    active: PositiveInt
    """Units that one activation may use."""
    seed: NonNegativeInt
    on: dict[str, dict[str, Measure]]
    """By the kind of images (``generated``, ``real``), none of which it was trained on: always the same names."""


class Match(Config):
    """How much of one dictionary is found in another of the same size."""

    wanted: str
    """Name of the one whose living units are looked for."""
    among: str
    cosine: Measure
    """Mean cosine of partners, matched one to one."""
    found: Measure
    """Share of units whose partner's cosine is at least 0.7."""


class Unit(Config):
    """One unit of the dictionary of generated images."""

    unit: NonNegativeInt
    fires: Share
    """Share of generated images that fire it."""
    labels: tuple[Share, ...]
    """How what it fires on is divided among the K classes, by strength."""
    real_labels: tuple[Share, ...]
    """The same on real images; empty where there are none, or it fires on none."""
    monosemanticity: Finite | None
    """How alike the images are that fire it, as the evaluator sees them: 0 is chance. ``None`` without an evaluator, or
    where fewer than 3 images fire it."""
    effect: tuple[Finite, ...]
    """What it adds to each logit, (K,): mean, over the images that fire it, of the logits with it and without it."""
    accuracy_lost: tuple[Share | None, ...]
    """Share of all generated images of each class, (K,), that are no longer read as asked without it; ``None`` where a
    class has no images."""
    made_strength: Finite
    """How strongly the image made for it fires it, over the strongest of the generated images."""
    made_purity: Share
    """Share of all units' strengths on that image that is its own."""
    strongest_purity: Share
    """The same on the generated image that fires it most."""


class InterpretationResults(Config):
    """All that was found on one layer of a classifier."""

    version: Literal[1] = 1
    """Of the schema."""
    classes: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    image_shape: ImageShape
    layer: str
    dim: PositiveInt
    """D, length of an activation."""
    positions: PositiveInt
    """Activations of one image."""
    constant: NonNegativeInt
    """Of the D numbers, those that are the same for all generated images."""
    settings: dict[str, Any]
    """The configuration."""
    headline: dict[str, Measure]
    """The few numbers that people compare."""
    neurons: Measure
    """Monosemanticity of the layer's own D numbers, without any dictionary."""
    dictionaries: tuple[DictionaryRow, ...]
    matches: tuple[Match, ...]
    units: tuple[Unit, ...]
    """Those that are shown, class by class."""


def load_interpretation(folder: Path) -> InterpretationResults:
    """Read what ``netinv interpret`` or the stage ``interpret`` found.

    Raises:
        InputError: The file is missing, or holds something else; names the key.
    """
    path = folder / INTERPRETATION
    values = read_json(path, "interpret again")
    if not isinstance(values, dict) or values.get("version") != 1:
        raise InputError(f"{path} is of another version than 1: interpret again.")
    results = InterpretationResults.parse(values, where=str(path))
    for unit in results.units:
        lengths = {len(unit.labels), len(unit.effect), len(unit.accuracy_lost), len(unit.real_labels or unit.labels)}
        if lengths != {len(results.classes)}:
            raise InputError(f"{path}: unit {unit.unit} does not have a number for each class: interpret again.")
    return results
