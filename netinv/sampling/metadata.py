"""What an exported file says of itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from netinv.core import InputError, listed


@dataclass(frozen=True)
class Metadata:
    """What an exported file says of itself. Each field is one metadata entry ``netinv.<field>`` of it, as JSON."""

    kind: Literal["generator", "classifier"]
    dataset: str
    variant: str
    """Which generator (``standard`` or ``robust``), or which classifier (``classifier`` or ``evaluator``)."""
    classes: tuple[str, ...]
    """Names of the K classes, in label order."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    run_id: str
    """The MLflow run that trained the network; empty where there was none."""
    licence: str
    """What the source of the training images says about their use."""
    versions: dict[str, str]
    """Of the libraries that wrote the file."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """How the weights are stored. Inputs, outputs and arithmetic are float32 in every form."""
    latent_dim: int = 0
    """Z; 0 for a classifier."""
    sharpness: tuple[float, float] = (1.0, 1.0)
    """Range of the sharpness that the generator was trained with, its default."""
    num_generators: int = 0
    """In an ensemble, which has the input ``generator`` (N,), int64; 0 where the file is one generator alone."""
    noise_dim: int = 0
    """U, length of the stochastic form's input ``noise`` (N, U), uniform in [0, 1); 0 where there is no dropout."""
    image_range: tuple[float, float] = (0.0, 1.0)
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
        names = [field.name for field in fields(cls)]
        if missing := [f"netinv.{name}" for name in names if f"netinv.{name}" not in entries]:
            raise InputError(
                f"{path} was not written by this project's export: it lacks the metadata {listed(missing)}."
            )
        try:
            values: dict[str, Any] = {name: json.loads(entries[f"netinv.{name}"]) for name in names}
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            return cls(**values)
        except ValueError as error:
            raise InputError(f"{path} has damaged metadata ({error}): export it again.") from None
