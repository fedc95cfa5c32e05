"""An interpretation, and its files."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from netinv.core import new_folder
from netinv.interpretation.autoencoder import SparseAutoencoder
from netinv.interpretation.units import Picture
from netinv.results import INTERPRETATION, InterpretationResults
from netinv.sampling import Pixels, grid

SIDE = 64
"""Pixels up to which images are enlarged."""
FILES = (INTERPRETATION, "units.png", "unit-*.png", "dictionary.safetensors")
"""Patterns of all that the folder of an interpretation holds."""
RED = torch.tensor([1.0, 0.1, 0.0])[:, None, None]
"""What heat is painted in."""


@dataclass(frozen=True)
class Interpretation:
    """What was found of a classifier, and the dictionaries and pictures that it speaks of."""

    results: InterpretationResults
    dictionaries: Mapping[str, SparseAutoencoder]
    """By the names in the results."""
    pictures: tuple[Picture, ...]
    """Of the units in the results, in their order."""

    def __repr__(self) -> str:
        """In a line: all numbers of all units would fill pages."""
        found = self.results
        return f"Interpretation({found.layer}, {len(self.dictionaries)} dictionaries, {len(found.units)} units)"

    def sheet(self) -> Image.Image:
        """All units in one picture: two rows for each, as :meth:`write` says."""
        strips = [_strip(picture) for picture in self.pictures] or [np.full((1, 1, 3), 255, np.uint8)]
        width = max(strip.shape[1] for strip in strips)
        padded = [np.pad(s, ((0, 8), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
        return Image.fromarray(np.concatenate(padded))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture = io.BytesIO()
        self.sheet().save(picture, format="PNG")
        return picture.getvalue()

    def write(self, folder: Path) -> None:
        """Write ``interpretation.json``, ``units.png``, a picture ``unit-<n>.png`` of each unit, and the dictionary.

        A picture has two rows: the image made for the unit, the image that fires it most with red where it looks, and
        the generated images that fire it, strongest first; below them the real ones.

        Args:
            folder: An existing folder.
        """
        (folder / INTERPRETATION).write_text(self.results.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for unit, picture in zip(self.results.units, self.pictures, strict=True):
            Image.fromarray(_strip(picture)).save(folder / f"unit-{unit.unit}.png")
        self.sheet().save(folder / "units.png")
        dictionary = self.dictionaries["generated"]
        weights = {name: value.contiguous().cpu() for name, value in dictionary.state_dict().items()}
        # Not save_file: it tells of a full disk with an exception of its own, and only its owner can read the file.
        (folder / "dictionary.safetensors").write_bytes(save(weights, {"active": str(dictionary.active)}))

    def save(self, folder: str | Path) -> None:
        """Write a new folder, whole or not at all. An earlier interpretation there is replaced.

        Raises:
            InputError: The folder holds something else, were it beside an interpretation, or cannot be written.
        """
        with new_folder(Path(folder), replaces=FILES) as partial:
            self.write(partial)


def _strip(picture: Picture) -> Pixels:
    """The picture of one unit, (H, W, 3)."""
    columns = 2 + max(len(picture.generated), len(picture.real))
    first = [_colour(picture.made), _heated(picture.generated[0], picture.heat), *map(_colour, picture.generated)]
    white = torch.ones_like(first[0])
    cells = [*first, *[white] * (columns - len(first))]
    if len(picture.real):
        cells += [white, white, *map(_colour, picture.real)]
        cells += [white] * (2 * columns - len(cells))
    height, width = picture.made.shape[1:]
    images = torch.stack(cells).numpy()
    return grid([images], len(cells), (3, height, width), columns, scale=max(1, SIDE // max(height, width)))


def _colour(image: Tensor) -> Tensor:
    return image if image.shape[0] == 3 else image.mean(dim=0, keepdim=True).expand(3, -1, -1)


def _heated(image: Tensor, heat: Tensor) -> Tensor:
    """An image in grey, with red where the unit looks."""
    grey = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    share = 0.7 * (heat / heat.max().clamp(min=1e-12))
    return (1 - share) * grey + share * RED
