"""Draws, grids and exported generators, with numpy and onnxruntime alone."""

from netinv.sampling.draws import draw, draw_batches, softmax
from netinv.sampling.grids import Pixels, grid, to_pixels
from netinv.sampling.metadata import Metadata
from netinv.sampling.onnx_models import OnnxClassifier, OnnxGenerator, Samples
from netinv.sampling.saving import check_place, check_size, save
from netinv.sampling.sessions import new_session

__all__ = [
    "Metadata",
    "OnnxClassifier",
    "OnnxGenerator",
    "Pixels",
    "Samples",
    "check_place",
    "check_size",
    "draw",
    "draw_batches",
    "grid",
    "new_session",
    "save",
    "softmax",
    "to_pixels",
]
