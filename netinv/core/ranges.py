"""The ranges of settings: every number of a configuration has one of these types, so that none is without an end.

The ends are far outside of what makes sense and far inside of what breaks a machine or a library. ``docs/settings.md``
lists them; a test holds that list, and that no configuration has a number without a range.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

Item = TypeVar("Item", bound=Hashable)

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Of random draws; what is derived from it still fits the generators of all libraries."""
Steps = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of a training, or between two records of it."""
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
SharedBatchSize = Annotated[int, Field(ge=2, le=65_536)]
"""Of images that are compared with each other, too."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of images, trials or resamples."""
Resamples = Annotated[int, Field(ge=100, le=100_000)]
"""Of a bootstrap."""
Members = Annotated[int, Field(ge=1, le=1_000)]
"""Of generators, workers or seeds."""
Attempts = Annotated[int, Field(ge=1, le=100)]
"""At the training of a generator, while it lacks a class."""
AttackSteps = Annotated[int, Field(ge=1, le=1_000)]
"""Gradient steps of an attack."""
Width = Annotated[int, Field(ge=1, le=4_096)]
"""Channels, or units of a layer."""
Depth = Annotated[int, Field(ge=1, le=16)]
"""Layers of one kind in a row."""
Side = Annotated[int, Field(ge=1, le=4_096)]
"""Of an image, in pixels."""
ImageShape = tuple[Width, Side, Side]
"""(C, H, W)."""
Classes = Annotated[int, Field(ge=2, le=100_000)]
Shift = Annotated[int, Field(ge=0, le=1_024)]
"""In pixels."""
LearningRate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=10_000)]
"""Of a term of a loss."""
Decay = Annotated[float, Field(ge=0, le=10)]
"""Of weights."""
Concentration = Annotated[float, Field(ge=0, le=100)]
"""Of a Beta distribution; 0 is none."""
Sharpness = Annotated[float, Field(gt=0, le=1_000)]
"""Of a condition; from some hundred on it is one-hot."""
Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
PixelBound = Annotated[float, Field(ge=0, le=1)]
"""In pixels of [0, 1]."""
Distortion = Annotated[float, Field(ge=0, le=2)]
"""Of an affine map, as a share of half of the image."""
Softening = Annotated[float, Field(ge=0, le=8)]
"""Of an image, in blurs."""
Bending = Annotated[float, Field(ge=0, le=0.25)]
"""Of an image, as a share of its side."""
Positive = Annotated[float, Field(gt=0, le=100)]
"""Of what has no unit: a temperature, a step's length."""
Deviation = Annotated[float, Field(gt=0, le=1_000)]
"""Of pixels, that they are divided by."""
Cpus = Annotated[float, Field(ge=0.01, le=1_024)]
Gpus = Annotated[float, Field(ge=0, le=64)]
Number = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]
"""An end of a range that is searched."""


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("expected a range (low, high) with low <= high")
    return ends


SharpnessRange = Annotated[tuple[Sharpness, Sharpness], AfterValidator(_rising)]
"""(low, high)."""


def _each_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if twice := [item for item, count in Counter(items).items() if count > 1]:
        raise ValueError(f"{', '.join(map(str, twice[:10]))} is there more than once")
    return items


Few = Annotated[tuple[Item, ...], Field(max_length=50), AfterValidator(_each_once)]
"""Some values, each once."""
ClassNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_each_once)]
"""In label order."""
