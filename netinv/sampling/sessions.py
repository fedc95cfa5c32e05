"""Exported files as sessions of onnxruntime, opened only where they are what they say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from netinv.core import InputError
from netinv.sampling.draws import BATCH_SIZE, Floats
from netinv.sampling.metadata import Metadata


def open_session(
    path: Path, kind: Literal["generator", "classifier"], num_threads: int | None
) -> tuple[Metadata, onnxruntime.InferenceSession]:
    """What a file says of itself, and its session.

    Raises:
        InputError: It cannot be opened, is of another kind, or does not fit its metadata.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: name an exported {kind}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or 0
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not an ONNX file that onnxruntime {onnxruntime.__version__} opens ({reason})."
        ) from None
    metadata = Metadata.from_entries(session.get_modelmeta().custom_metadata_map, path)
    if metadata.kind != kind:
        raise InputError(f"{path} is a {metadata.kind}: name an exported {kind}.")
    if (found := {i.name: tuple(i.shape[1:]) for i in session.get_inputs()}) != (expected := _input_shapes(metadata)):
        raise InputError(f"{path} does not fit its metadata: expected the inputs {expected}, got {found}.")
    return metadata, session


def run_session(session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> Floats:
    """The output for any number of rows, ``BATCH_SIZE`` at a time: what fits into the caches is faster."""
    num = len(next(iter(feeds.values())))
    outputs = [
        session.run(None, {name: rows[i : i + BATCH_SIZE] for name, rows in feeds.items()})[0]
        for i in range(0, max(num, 1), BATCH_SIZE)
    ]
    return np.concatenate(outputs)


def _input_shapes(metadata: Metadata) -> dict[str, tuple[int, ...]]:
    """The shape of each input, less its first axis N."""
    if metadata.kind == "classifier":
        return {"images": metadata.image_shape}
    shapes: dict[str, tuple[int, ...]] = {"latent": (metadata.latent_dim,), "condition": (len(metadata.classes),)}
    if metadata.noise_dim:
        shapes["noise"] = (metadata.noise_dim,)
    if metadata.num_generators:
        shapes["generator"] = ()
    return shapes
