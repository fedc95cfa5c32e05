"""What an exported file says of itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from netinv.core import ClassNames, ImageShape, InputError, Number, SharpnessRange, explain, listed, parse_json

LATER = ("field_side",)
"""What files of an earlier version lack."""


@dataclass(frozen=True)
class Metadata:
    """What an exported file says of itself. Each field is one metadata entry ``netinv.<field>`` of it, as JSON."""

    kind: Literal["generator", "classifier"]
    dataset: str
    variant: str
    """Which generator (``standard`` or ``robust``), or which classifier (``classifier`` or ``evaluator``)."""
    classes: Annotated[ClassNames, Field(min_length=1, max_length=100_000)]
    """Names of the K classes, in label order."""
    image_shape: ImageShape
    run_id: str
    """The MLflow run that trained the network; empty where there was none."""
    licence: str
    """What the source of the training images says about their use."""
    versions: dict[str, str]
    """Of the libraries that wrote the file."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """How the weights are stored. Inputs, outputs and arithmetic are float32 in every form."""
    latent_dim: Annotated[int, Field(ge=0, le=4_096)] = 0
    """Z; 0 for a classifier."""
    sharpness: SharpnessRange = (1.0, 1.0)
    """Range of the sharpness that the generator was trained with, its default."""
    num_generators: Annotated[int, Field(ge=0, le=1_000)] = 0
    """In an ensemble, which has the input ``generator`` (N,), int64; 0 where the file is one generator alone."""
    noise_dim: Annotated[int, Field(ge=0, le=65_536)] = 0
    """U, length of the stochastic form's input ``noise`` (N, U), uniform in [0, 1); 0 where there is no dropout."""
    field_side: Annotated[int, Field(ge=0, le=64)] = 0
    """F: the last F x F latents, read as a small image, are where an image is brighter or darker; 0 where they are not,
    or in files of before there was such a field."""
    image_range: tuple[Number, Number] = (0.0, 1.0)
    image_layout: Literal["NCHW"] = "NCHW"

    @property
    def draws(self) -> dict[str, Any]:
        """What :func:`draw` must know of a generator, by name: its sizes, and the sharpness of its training."""
        return {"latent_dim": self.latent_dim, "num_classes": len(self.classes), "sharpness": self.sharpness}

    def to_entries(self) -> dict[str, str]:
        """The entries of the file."""
        return {f"netinv.{key}": json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def from_entries(cls, entries: Mapping[str, str], path: Path) -> "Metadata":
        """Read the entries of a file.

        Raises:
            InputError: Names the entries that are missing or damaged.
        """
        names = [field.name for field in fields(cls) if field.name not in LATER or f"netinv.{field.name}" in entries]
        if missing := [f"netinv.{name}" for name in names if f"netinv.{name}" not in entries]:
            raise InputError(
                f"{path} was not written by this project's export: it lacks the metadata {listed(missing)}."
            )
        try:
            values = {name: parse_json(entries[f"netinv.{name}"]) for name in names}
            # Through JSON, since only there does strict validation take a list for a tuple.
            metadata = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
            if metadata.image_range != (0, 1):
                raise ValueError(f"an image_range of {metadata.image_range} where images are in [0, 1]")
            if metadata.kind == "generator" and not metadata.latent_dim:
                raise ValueError("a generator has a latent_dim")
            if metadata.field_side**2 > metadata.latent_dim:
                raise ValueError(f"a field_side of {metadata.field_side} asks for more than the latent_dim")
        except ValueError as error:
            reason = explain(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(f"{path} has damaged metadata ({reason}): export it again.") from None
        return metadata
