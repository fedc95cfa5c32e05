"""Take docs/images/steering.png: ``python docs/steering_picture.py onnx/digits/robust/ensemble.onnx OUT``."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from netinv.sampling import OnnxGenerator, grid

ROWS = ((0, (3, 2)), (7, (0, 0)), (9, (3, 0)))
"""Class, and the cell that moves."""
VALUES = (-3, -2, -1, 0, 1, 2, 3)
SCALE = 4


def main(model: Path, out: Path) -> None:
    """A row for each class: the same draw, with one cell of the latent field from dark to bright."""
    generator = OnnxGenerator(model)
    rows = [
        [generator.sample(1, seed=0, labels=label, field={cell: value}).images for value in VALUES]
        for label, cell in ROWS
    ]
    images = np.concatenate([image for row in rows for image in row])
    pixels = grid([images], len(images), generator.metadata.image_shape, columns=len(VALUES), scale=SCALE)
    Image.fromarray(pixels).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
