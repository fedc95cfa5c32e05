"""Exported files as sessions of onnxruntime, opened only where they are what they say."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netinv.core import InputError, expect_regular, whole
from netinv.sampling.draws import BATCH_SIZE, Floats
from netinv.sampling.metadata import Metadata

# Its official builds report their use to Microsoft, with the path of the program, and keep an id of the machine in the
# home. Read when it is imported, which is why nothing else in netinv does that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

MAX_SECONDS = 120
"""Longest time that ``BATCH_SIZE`` rows may take."""
ROUNDING = 1e-3
"""How far pixels may lie beyond [0, 1]: less than changes any of 256 levels."""


def open_session(
    path: Path, kind: Literal["generator", "classifier"], num_threads: int | None
) -> tuple[Metadata, onnxruntime.InferenceSession]:
    """What a file says of itself, and its session.

    Raises:
        InputError: It cannot be opened, is of another kind, or does not fit its metadata.
    """
    try:
        expect_regular(path)
    except OSError as error:
        command = "export" if kind == "generator" else "export-classifier"
        raise InputError(
            f"{path} is not a file that can be read ({error.strerror or error}): name an ONNX file, as `netinv "
            f"{command}` writes it."
        ) from None
    most = max(64, os.cpu_count() or 1)
    if num_threads is not None and not 1 <= whole(num_threads, "The number of threads") <= most:
        raise InputError(f"The number of threads is {num_threads}: give 1 to {most}, or leave it out.")
    try:
        session = new_session(str(path), num_threads)
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not an ONNX file that onnxruntime {onnxruntime.__version__} opens ({reason}): export it again."
        ) from None
    metadata = Metadata.from_entries(session.get_modelmeta().custom_metadata_map, path)
    if metadata.kind != kind:
        raise InputError(f"{path} is a {metadata.kind}: name an exported {kind}.")
    if (found := {i.name: tuple(i.shape[1:]) for i in session.get_inputs()}) != (expected := _input_shapes(metadata)):
        raise InputError(f"{path} does not fit its metadata: expected the inputs {expected}, got {found}.")
    return metadata, session


def new_session(model: str | bytes, num_threads: int | None = None) -> onnxruntime.InferenceSession:
    """A model, or the path of its file, on the CPU; ``None`` is a thread for each core.

    Raises:
        Exception: Whatever onnxruntime says of it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or 0
    options.log_severity_level = 4  # what goes wrong is raised as well
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, metadata: Metadata, feeds: Mapping[str, NDArray[Any]]) -> Floats:
    """The output for any number of rows, ``BATCH_SIZE`` at a time: what fits into the caches is faster.

    Floats and whole numbers of any precision are taken.

    Raises:
        InputError: The inputs are not the file's, or not finite numbers, as many rows of each, or images beyond [0, 1];
            the file gives something else than its metadata say, or does not come to an end.
    """
    feeds = {name: np.asarray(rows) for name, rows in feeds.items()}
    num = len(next(iter(feeds.values())))
    takes = {i.name: (num, *i.shape[1:]) for i in session.get_inputs()}
    if takes != (given := {name: rows.shape for name, rows in feeds.items()}):
        raise InputError(f"The file takes inputs of the shapes {takes}, but was given {given}.")
    feeds = {name: _converted(name, rows) for name, rows in feeds.items()}
    outputs = []
    for start in range(0, max(num, 1), BATCH_SIZE):
        output = _run_part(session, {name: rows[start : start + BATCH_SIZE] for name, rows in feeds.items()})
        _expect_output(output, min(num - start, BATCH_SIZE), metadata)
        outputs.append(output)
    return np.concatenate(outputs)


def _converted(name: str, rows: NDArray[Any]) -> NDArray[Any]:
    """An input as the file takes it: ``generator`` as int64, all others as float32.

    Raises:
        InputError: It is of another kind, or holds numbers that are not finite, or images that are not in [0, 1].
    """
    kinds, wanted, told = ("iu", np.int64, "whole numbers") if name == "generator" else ("f", np.float32, "floats")
    within = " in [0, 1]; divide pixels of 0 to 255 by 255" if name == "images" else ""
    if rows.dtype.kind not in kinds:
        raise InputError(f"The input {name} holds {rows.dtype}: give {told}{within}.")
    rows = rows.astype(wanted, copy=False)
    if not np.isfinite(rows).all():
        raise InputError("The inputs hold numbers that are not finite: give others.")
    if name == "images" and rows.size and not -ROUNDING <= rows.min() <= rows.max() <= 1 + ROUNDING:
        raise InputError(f"The input images goes from {rows.min():g} to {rows.max():g}: give {told}{within}.")
    return rows


def _expect_output(output: Any, num: int, metadata: Metadata) -> None:
    """Refuse an output that the metadata do not tell of: a file may come from anywhere.

    Raises:
        InputError: It has another type or shape, or numbers out of range.
    """
    generates = metadata.kind == "generator"
    expected = (num, *(metadata.image_shape if generates else (len(metadata.classes),)))
    found = (output.dtype, output.shape) if isinstance(output, np.ndarray) else (type(output).__name__, "")
    if found != (np.float32, expected):
        told = " ".join(map(str, found)).strip()
        raise InputError(
            f"The {metadata.kind} gives {told} where its metadata ask for float32 {expected}: export it again."
        )
    if not np.isfinite(output).all():
        raise InputError(f"The {metadata.kind} gives numbers that are not finite: export it again.")
    if generates and output.size and not -ROUNDING <= output.min() <= output.max() <= 1 + ROUNDING:
        raise InputError(
            f"The generator gives pixels from {output.min():g} to {output.max():g}, beyond [0, 1]: export it again."
        )


def _run_part(session: onnxruntime.InferenceSession, part: Mapping[str, NDArray[Any]]) -> Any:
    """The output for a few rows, within a bound: a graph may have a loop without an end."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    clock = threading.Timer(MAX_SECONDS, setattr, (options, "terminate", True))
    clock.daemon = True
    clock.start()
    try:
        output = session.run(None, part, options)[0]
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        reason = " ".join(str(error).split())
        raise InputError(f"The file cannot be run, or does not end within {MAX_SECONDS} s ({reason}).") from None
    finally:
        clock.cancel()
    return output


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
