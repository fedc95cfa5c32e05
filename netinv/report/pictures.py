"""The report's pictures: grids and nearest neighbours, cut from the evaluation's and small enough to be embedded."""

import base64
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netinv.core import InputError
from netinv.report.inputs import Evaluated
from netinv.results import GRID_CLASSES, GRID_COLUMNS, Row, each_class, number

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_LOSSLESS = 60_000
"""Bytes of a picture that is kept exactly as it is; larger ones are compressed."""
MAX_SIDE = 1600
"""Pixels along the longer side of a picture."""
MAX_PIXELS = 100_000_000
"""Of a picture that is read."""
CELL = 46
"""Width of an image on the page, in its pixels."""


class Picture(NamedTuple):
    """An image of the page."""

    uri: str
    """Data URI."""
    width: float
    """On the page, in its pixels."""
    alt: str


class Grid(NamedTuple):
    """A picture with a row for each class, or for the first of many."""

    title: str
    picture: Picture
    columns: list[str]
    """A label for each column, or none at all."""
    classes: tuple[str, ...]
    real: Picture | None = None
    """A column of real images to compare with."""


class Neighbours(NamedTuple):
    """The generated images nearest to training images, by one kind of distance."""

    title: str
    rows: list[tuple[str, Picture, str, str]]
    """Class; generated, training and test image side by side; distance to the two."""
    classes: str
    """Of which classes, in words."""


def figure(e: Evaluated) -> Grid:
    """The paper's Figure 2: a row for each class, a column for each generator; beside it a real image of each class."""
    rows, each = min(len(e.results.classes), GRID_CLASSES), each_class(len(e.results.classes))
    columns = [row.name.removeprefix("generator ") for row in e.generators]
    title = f"{e.variant}: a row for {each}, a column for each generator"
    picture = picture_of(open_picture(e.folder / "figure2.png", len(columns), rows), len(columns), title)
    real = None
    if e.row("real_test").samples:
        image = open_picture(e.folder / "real_test.png", GRID_COLUMNS, rows)
        image = image.crop((0, 0, (image.width + 1) // GRID_COLUMNS - 1, image.height))
        real = picture_of(image, 1, f"a real test image of {each}")
    return Grid(title, picture, columns, e.results.classes[:GRID_CLASSES], real)


def class_grid(e: Evaluated, name: str, title: str) -> Grid:
    """Several images of each class from one source."""
    rows, each = min(len(e.results.classes), GRID_CLASSES), each_class(len(e.results.classes))
    image = open_picture(e.folder / f"{name.replace(' ', '-')}.png", GRID_COLUMNS, rows)
    picture = picture_of(image, GRID_COLUMNS, f"{title}: a row of {GRID_COLUMNS} images for {each}")
    return Grid(title, picture, [], e.results.classes[:GRID_CLASSES])


def neighbours(e: Evaluated, row: Row) -> list[Neighbours]:
    """A row's images nearest to training images, cut from the evaluation's picture of them."""
    audit = row.audit
    if not audit.pairs:
        return []
    kinds = list(dict.fromkeys(pair.distance for pair in audit.pairs))
    labels = sorted({pair.label for pair in audit.pairs})
    each, labels = each_class(len(labels)), labels[:GRID_CLASSES]
    image = open_picture(e.folder / f"{row.name.replace(' ', '-')}-neighbours.png", 3 * len(kinds), len(labels))
    width, height = (image.width + 1) // len(kinds), (image.height + 1) // len(labels)
    pairs = {(pair.distance, pair.label): pair for pair in audit.pairs}
    found: dict[str, list[tuple[str, Picture, str, str]]] = {kind: [] for kind in kinds}
    for column, kind in enumerate(kinds):
        for i, label in enumerate(labels):
            corner = column * width, i * height
            strip = image.crop((*corner, corner[0] + width - 1, corner[1] + height - 1))
            if (kind, label) not in pairs:
                raise InputError(
                    f"{e.folder / 'results.json'}: audit.pairs has no {kind} of class {label}: evaluate again."
                )
            name, pair = e.results.classes[label], pairs[kind, label]
            alt = f"Class {name}: a generated image, its nearest training image, its nearest test image"
            picture = picture_of(strip, 3, alt)
            found[kind].append((name, picture, number(pair.train_distance), number(pair.test_distance)))
    return [Neighbours(kind, rows, each) for kind, rows in found.items()]


def open_picture(path: Path, columns: int, rows: int, mend: str = "evaluate again") -> "Image":
    """A grid of so many images; ``mend`` says what makes a new one.

    Raises:
        InputError: It is none, or too large a picture.
    """
    from PIL import Image

    try:
        if not path.is_file():
            raise OSError("it is no regular file")
        # Pillow warns of large pictures.
        with warnings.catch_warnings(action="error"), Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"it has {image.width} x {image.height} pixels")
            if image.width < columns or image.height < rows:
                raise OSError(f"{image.width} x {image.height} pixels hold no {columns} x {rows} images")
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} is not a readable picture ({error}): {mend}.") from None


def picture_of(image: "Image", columns: float, alt: str) -> Picture:
    """A picture of so many columns for the page: exact where it is small, else compressed."""
    width = round(columns * CELL * image.width / (image.width + 1), 2)  # all but a separating pixel
    image = image.copy()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=True)
    if data.tell() > MAX_LOSSLESS:
        data = io.BytesIO()
        image.save(data, "WEBP", quality=75)
    return Picture(f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}", width, alt)
