"""Trained networks as ONNX files."""

from netinv.export.forms import compress
from netinv.export.graphs import generator_models
from netinv.export.models import (
    ExportConfig,
    export_classifier,
    export_generator,
    export_generators,
    versions,
    write_model,
)
from netinv.export.rewriting import rewritten

__all__ = [
    "ExportConfig",
    "compress",
    "export_classifier",
    "export_generator",
    "export_generators",
    "generator_models",
    "rewritten",
    "versions",
    "write_model",
]
