"""Inversions that people would take in place of this library's, each written plainly from its paper.

All get a frozen classifier of images in [0, 1] and a seed. What makes images by a network is given this library's, with
an embedding of the label, unless its paper's own is lighter, so that what differs is the method and not its layers.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from netinv.classifiers import AdaptedClassifier
from peers.base import Inversion
from peers.contrast import Contrast
from peers.embedding import Embedding
from peers.kegnet import KegNet
from peers.landscape import Landscape
from peers.per_image import PerImage
from peers.product import Product

Start = Callable[[AdaptedClassifier, int], Inversion]

PEERS: dict[str, Start] = {
    "per image": PerImage,
    "per image, transforms": partial(PerImage, transforms=True),
    "per image, batch norm": partial(PerImage, statistics=True),
    "landscape": Landscape,
    "label embedding": Embedding,
    "KegNet": KegNet,
    "contrast": Contrast,
    "netinv standard": partial(Product, variant="standard"),
    "netinv robust": partial(Product, variant="robust"),
}
"""Every method by its name, this library's last."""
if find_spec("cma"):
    from peers.evolution import Evolution

    PEERS = {"evolution": Evolution} | PEERS

__all__ = ["PEERS", "Inversion", "Start"]
