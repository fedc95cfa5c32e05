"""Trained networks as single-file ONNX models that need no torch, each checked against torch before it is written.

The forms of a generator, all with inputs and outputs in float32 and any batch size:

* plain: ``latent`` (N, Z) and ``condition`` (N, K) to ``images`` (N, C, H, W)
* stochastic: one more input, ``noise`` (N, U), uniform in [0, 1), decides which channels the dropout drops. With the
  noise outside the graph the caller's seed fixes the pixels, which the random operators of ONNX cannot promise
* ensemble: all generators of a variant, and one more input, ``generator`` (N,), int64, that names who draws each image
* float16 and int8: the plain form with its weights rounded. They are turned back into float32 once, when the file
  is opened, so that these forms run as fast as the plain one; only the file is smaller
"""

import copy
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, Classifier
from netinv.core import (
    Config,
    Count,
    Few,
    InputError,
    Share,
    __version__,
    batch_size_for,
    check_file,
    listed,
    new_file,
    reason,
)
from netinv.export.forms import Array, WeightFormat, compress, ensemble_model, stochastic_model
from netinv.export.graphs import classifier_model, generator_models
from netinv.export.rewriting import rewritten
from netinv.generators import ConditionedGenerator
from netinv.sampling import Metadata, draw, draw_batches, new_session

TOLERANCE = 1e-5
"""How far an exported network may be from torch, in pixels of [0, 1], or in logits as a share of the largest one."""
BATCH_SIZES = (1, 7, 64, 1000)
"""Where that is checked; of large images fewer are looked at, here and below: a thousand would fill the memory."""

Form = Literal["stochastic", "ensemble", "float16", "int8"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("float16", "int8")


class ExportConfig(Config):
    """Which forms of a generator are exported beside the plain one, and what a smaller form may cost."""

    forms: Few[Form] = ("stochastic", "ensemble", "float16", "int8")
    max_accuracy_loss: Share = 0.01
    """A smaller form that loses more than this in inversion or evaluator accuracy is refused: it is not written."""
    num_samples: Count = 1000
    """Images on which that loss is measured."""


@contextmanager
def _single_precision() -> Iterator[None]:
    """All that a file holds is float32, whatever torch's default is."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


@_single_precision()
def export_generators(
    folder: Path,
    generators: Sequence[ConditionedGenerator],
    judges: Mapping[str, Callable[[Tensor], Tensor]],
    metadata: Metadata,
    config: ExportConfig,
) -> dict[str, float]:
    """Write the generators of a variant, each in its forms, and their ensemble.

    The files are ``generator-<i>.onnx``, ``generator-<i>-<form>.onnx`` and ``ensemble.onnx``.

    Args:
        folder: An existing folder.
        generators: Of one architecture, on the CPU.
        judges: Classifiers, from images (N, C, H, W) to logits (N, K), by name: a smaller form may not lose accuracy
            under any of them.
        metadata: What the plain form says of itself; the other forms follow from it.
        config: The forms and their bound.

    Returns:
        ``max_difference`` from torch over all files, and for each smaller form its ``size`` as a share of the plain
        one, the ``loss`` of accuracy under each judge (the worst of all generators), and how many were ``refused``.

    Raises:
        FloatingPointError: A file differs from torch by more than ``TOLERANCE``.
        InputError: The stochastic form is wanted of a generator without dropout, a smaller form without a judge, or
            the folder cannot be written.
    """
    if not judges and (small := [form for form in WEIGHT_FORMATS if form in config.forms]):
        raise InputError(
            f"What the forms {listed(small)} lose cannot be told without a judge: give classifiers as judges, or leave "
            "these forms out."
        )
    generators = [copy.deepcopy(generator).eval().float() for generator in generators]
    plain = generator_models(generators)
    models = [rewritten(model) for model in plain]
    inputs = _random_inputs(generators[0])
    rows = len(inputs["latent"])
    references = [_reference(generator, inputs) for generator in generators]
    differences: list[float] = []
    measures: dict[str, float] = {}

    def finish(name: str, model: ModelProto, feeds: Mapping[str, Array], expected: Array, **changes: Any) -> None:
        differences.append(check_agreement(name, model, feeds, expected))
        write_model(folder / f"{name}.onnx", model, replace(metadata, **changes))

    for i, (generator, model, expected) in enumerate(zip(generators, models, references, strict=True)):
        name = f"generator-{i}"
        finish(name, model, inputs, expected)
        if "stochastic" in config.forms:
            noise = np.random.default_rng(i).random((rows, generator.noise_dim), dtype=np.float32)
            feeds = {**inputs, "noise": noise}
            expected = _reference(generator, feeds)
            finish(
                f"{name}-stochastic", stochastic_model(plain[i], generator), feeds, expected, noise_dim=noise.shape[1]
            )
        for form in WEIGHT_FORMATS:
            if form in config.forms:
                small = compress(model, form)
                losses = accuracy_losses(model, small, judges, metadata, config.num_samples)
                refused = max(losses.values()) > config.max_accuracy_loss
                if not refused:
                    write_model(folder / f"{name}-{form}.onnx", small, replace(metadata, precision=form))
                measures[f"{form}/refused"] = measures.get(f"{form}/refused", 0) + refused
                measures[f"{form}/size"] = small.ByteSize() / model.ByteSize()
                for judge, loss in losses.items():
                    key = f"{form}/{judge}_accuracy_loss"
                    measures[key] = max(loss, measures.get(key, -1.0))
    if "ensemble" in config.forms:
        turns = np.arange(rows) % len(generators)
        expected = np.stack([references[turn][row] for row, turn in enumerate(turns)])
        feeds = {**inputs, "generator": turns}
        finish("ensemble", ensemble_model(models), feeds, expected, num_generators=len(generators))
    return {"max_difference": max(differences), **measures}


@_single_precision()
def export_generator(path: Path, generator: ConditionedGenerator, metadata: Metadata) -> float:
    """Write one generator in its plain form; returns its largest difference from torch.

    Raises:
        FloatingPointError: It is larger than ``TOLERANCE``.
        InputError: The path cannot be written, or does not end in ``.onnx``.
    """
    check_file(path, ".onnx")
    generator = copy.deepcopy(generator).cpu().eval().float()
    (model,) = map(rewritten, generator_models([generator]))
    inputs = _random_inputs(generator)
    difference = check_agreement(path.stem, model, inputs, _reference(generator, inputs))
    write_model(path, model, metadata)
    return difference


@_single_precision()
def export_classifier(path: Path, classifier: Classifier | AdaptedClassifier, metadata: Metadata) -> float:
    """Write a classifier; returns its largest difference from torch, as a share of the largest logit.

    A network of another precision is written as it is in float32.

    Raises:
        FloatingPointError: It is larger than ``TOLERANCE``.
        InputError: The path cannot be written or does not end in ``.onnx``, or the network, one from elsewhere, cannot
            be traced or fixes the batch.
    """
    check_file(path, ".onnx")
    single = copy.deepcopy(classifier).eval().float()
    if not isinstance(single, AdaptedClassifier):
        return _write_classifier(path, single, metadata)
    own, single.dtype = single.dtype, torch.float32
    try:
        return _write_classifier(path, single, metadata)
    except InputError:
        if own != torch.float64:
            raise
        return _write_classifier(path, copy.deepcopy(classifier).eval(), metadata)  # it may insist on its precision


def _write_classifier(path: Path, classifier: Classifier | AdaptedClassifier, metadata: Metadata) -> float:
    """:func:`export_classifier` of a copy that may be changed."""
    try:
        model = classifier_model(classifier)
    except torch.onnx.OnnxExporterError as error:
        if not isinstance(classifier, AdaptedClassifier):
            raise
        cause: BaseException = error  # the exporter's own message is its steps
        while cause.__cause__ is not None:
            cause = cause.__cause__
        scripts = any(isinstance(module, torch.jit.ScriptModule) for module in classifier.modules())
        advice = ": give it as it was before torch.jit.script" if scripts else ""
        raise InputError(f"torch cannot export this network to ONNX ({reason(cause)}){advice}.") from error
    rows = _most_rows(classifier.image_shape, classifier)
    images = np.random.default_rng(0).random((rows, *classifier.image_shape), dtype=np.float32)
    inputs = {"images": images}
    expected = _reference(classifier, inputs)
    try:
        difference = check_agreement(path.stem, model, inputs, expected)
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        if not type(error).__module__.startswith("onnxruntime.") or not isinstance(classifier, AdaptedClassifier):
            raise
        told = " ".join(str(error).split())
        raise InputError(
            f"onnxruntime does not run what torch exports of this network ({told}): give it without that, such as "
            "torch.autocast in its forward."
        ) from error
    write_model(path, model, metadata)
    return difference


def versions() -> dict[str, str]:
    """Versions of the libraries that write the files, for :class:`~netinv.sampling.Metadata`."""
    others = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")}
    return {"netinv": __version__, **others}


def write_model(path: Path, model: ModelProto, metadata: Metadata) -> None:
    """Put the metadata into a model and write it to a file, whole or not at all.

    Raises:
        onnx.checker.ValidationError: The model is not valid ONNX.
        InputError: The path cannot be written.
    """
    model.producer_name, model.producer_version = "netinv", metadata.versions.get("netinv", "")
    helper.set_model_props(model, metadata.to_entries())
    onnx.checker.check_model(model, full_check=True)
    with new_file(path) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


def check_agreement(name: str, model: ModelProto, inputs: Mapping[str, Array], expected: Array) -> float:
    """Compare a model in onnxruntime with what torch gave, at all ``BATCH_SIZES`` that there are rows for.

    Args:
        name: What the model is called in the error.
        model: The model.
        inputs: By name, each of as many rows; all of them are one batch in place of the sizes above that.
        expected: torch's output for all rows.

    Returns:
        The largest difference, as a share of the largest expected value where that is above 1.

    Raises:
        FloatingPointError: It is larger than ``TOLERANCE``, or not a number.
    """
    scale = max(1.0, float(np.abs(expected).max()))
    worst = 0.0
    session = new_session(model.SerializeToString())
    for size in sorted({min(size, len(expected)) for size in BATCH_SIZES}):
        output = session.run(None, {key: value[:size] for key, value in inputs.items()})[0]
        difference = float(np.abs(output - expected[:size]).max()) / scale
        if not difference <= TOLERANCE:
            raise FloatingPointError(
                f"{name} as ONNX differs from torch by {difference:.2g} at batch size {size}, "
                f"more than the {TOLERANCE:g} allowed, as where weights are very large: train it with a smaller lr."
            )
        worst = max(worst, difference)
    return worst


@torch.no_grad()
def accuracy_losses(
    model: ModelProto,
    small: ModelProto,
    judges: Mapping[str, Callable[[Tensor], Tensor]],
    metadata: Metadata,
    num_samples: int,
) -> dict[str, float]:
    """What a smaller form loses in accuracy under each judge, on the same draws; negative where it gains."""
    sessions = [new_session(form.SerializeToString()) for form in (model, small)]
    lost = dict.fromkeys(judges, 0)
    at_once = _most_rows(metadata.image_shape, *judges.values())
    for latent, condition in draw_batches(num_samples, **metadata.draws, seed=0, batch_size=at_once):
        label = torch.from_numpy(condition.argmax(axis=1))
        feeds = {"latent": latent, "condition": condition}
        full, rounded = (torch.from_numpy(session.run(None, feeds)[0]) for session in sessions)
        for name, judge in judges.items():
            right = [int((judge(images).argmax(dim=1) == label).sum()) for images in (full, rounded)]
            lost[name] += right[0] - right[1]
    return {name: count / num_samples for name, count in lost.items()}


def _most_rows(image_shape: Sequence[int], *judges: Callable[[Tensor], Tensor]) -> int:
    """Rows of the largest batch that is looked at: fewer where images are large, or become so for one that judges."""
    enlarged = [judge.input_shape for judge in judges if isinstance(judge, AdaptedClassifier)]
    return min(batch_size_for(max(BATCH_SIZES), shape) for shape in (image_shape, *enlarged))


def _random_inputs(generator: ConditionedGenerator) -> dict[str, Array]:
    """Latents and conditions from nearly uniform to nearly one-hot, as many rows as the largest batch has."""
    latent, condition = draw(
        _most_rows(generator.image_shape),
        latent_dim=generator.config.latent_dim,
        num_classes=generator.num_classes,
        seed=0,
        sharpness=(0.1, 100.0),
    )
    return {"latent": latent, "condition": condition}


@torch.no_grad()
def _reference(network: nn.Module, inputs: Mapping[str, Array]) -> Array:
    output: Array = network(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    return output
