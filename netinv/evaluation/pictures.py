"""An evaluation as files: ``results.json``, and grids of the images that it looked at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from netinv.data import LabelledImages, to_uint8
from netinv.evaluation.evaluate import Evaluation
from netinv.results import GRID_CLASSES, GRID_COLUMNS, Row
from netinv.sampling import Pixels, grid

SIDE = 64
"""Pixels up to which the images in a grid are enlarged."""
LARGEST = 256
"""Pixels of the longer side to which larger ones are shrunk, so that a grid is no picture too large to be read."""


def save_evaluation(
    folder: Path, evaluation: Evaluation, train: LabelledImages | None, test: LabelledImages | None
) -> Pixels:
    """Write everything that the report shows of an evaluation.

    The files are ``results.json``, ``figure2.png`` (the paper's: a row for each class, a column for each generator), a
    grid ``<row>.png`` for each set of samples, and ``<row>-neighbours.png`` where images have nearest neighbours.

    Args:
        folder: An existing folder.
        evaluation: What was found.
        train: The training images that it was given, for the neighbours.
        test: The test images, likewise.

    Returns:
        ``figure2.png`` transposed, a row for each generator, for places that are wider than high: (H, W) or (H, W, 3).
    """
    # In one line: with each count of a confusion matrix on a line of its own the file is four times as large.
    (folder / "results.json").write_text(evaluation.results.model_dump_json() + "\n", encoding="utf-8")
    Image.fromarray(_figure_2(evaluation)).save(folder / "figure2.png")
    for row in evaluation.results.rows:
        name = row.name.replace(" ", "-")
        if row.name in evaluation.images:
            Image.fromarray(_class_grid(row.name, evaluation)).save(folder / f"{name}.png")
        if row.kind != "reference" and row.audit.pairs and train is not None and test is not None:
            Image.fromarray(_neighbours(row, evaluation, train, test)).save(folder / f"{name}-neighbours.png")
    return _figure_2(evaluation, transposed=True)


def _first_of_class(data: LabelledImages, label: int, num: int) -> Sequence[Pixels | None]:
    """The first images of a class, unselected, then ``None``."""
    images = [image.numpy() for image in data.images[data.labels == label][:num]]
    return images + [None] * (num - len(images))


def _figure_2(evaluation: Evaluation, transposed: bool = False) -> Pixels:
    """The paper's Figure 2: a row for each class, a column for each generator; transposed, the other way round."""
    classes = min(len(evaluation.results.classes), GRID_CLASSES)
    columns = [evaluation.images[row.name] for row in evaluation.results.rows if row.kind == "generator"]
    # Generators share their draws: another place in each column, or the columns would show one draw.
    rows = [[_first_of_class(data, k, i + 1)[i] for i, data in enumerate(columns)] for k in range(classes)]
    if transposed:
        rows = [list(column) for column in zip(*rows, strict=True)]
    return _grid([cell for row in rows for cell in row], len(rows[0]), evaluation.results.image_shape)


def _class_grid(name: str, evaluation: Evaluation) -> Pixels:
    """A row for each class, ``GRID_COLUMNS`` images in each."""
    classes = min(len(evaluation.results.classes), GRID_CLASSES)
    cells = [image for k in range(classes) for image in _first_of_class(evaluation.images[name], k, GRID_COLUMNS)]
    return _grid(cells, GRID_COLUMNS, evaluation.results.image_shape)


def _neighbours(row: Row, evaluation: Evaluation, train: LabelledImages, test: LabelledImages) -> Pixels:
    """For each class and kind of distance: the generated image, its nearest training image, its nearest test image."""
    pairs = sorted(row.audit.pairs, key=lambda pair: pair.label)
    distances = list(dict.fromkeys(pair.distance for pair in pairs))
    labels = list(dict.fromkeys(pair.label for pair in pairs))[:GRID_CLASSES]
    made = evaluation.images[row.name].images
    by_place = {(pair.label, pair.distance): pair for pair in pairs}
    cells: list[Pixels | None] = []
    for label in labels:
        for distance in distances:
            pair = by_place[label, distance]
            three = made[pair.sample], train.images[pair.train], test.images[pair.test]
            cells += [to_uint8(image).numpy() for image in three]
    return _grid(cells, 3 * len(distances), evaluation.results.image_shape)


def _grid(cells: Sequence[Pixels | None], columns: int, image_shape: tuple[int, int, int]) -> Pixels:
    """One picture of many, row by row, absent images white. Tiny ones are enlarged, large ones shrunk."""
    channels, *sides = image_shape
    height, width = (max(1, round(side * min(1, LARGEST / max(sides)))) for side in sides)
    white = np.full((channels, height, width), 255, np.uint8)
    images = np.stack([white if cell is None else _resized(cell, height, width) for cell in cells])
    floats = images.astype(np.float32) / np.float32(255)
    return grid([floats], len(images), (channels, height, width), columns, scale=max(1, SIDE // max(height, width)))


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    """An image (C, H, W) of that size, each pixel the mean of what it covers."""
    if image.shape[1:] == (height, width):
        return image
    whole = torch.from_numpy(image)[None].float()
    resized: Pixels = F.interpolate(whole, (height, width), mode="area")[0].round().byte().numpy()
    return resized
