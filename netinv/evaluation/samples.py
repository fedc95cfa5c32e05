"""Images to be measured, drawn from a generator or real, as the inverted classifier and the evaluator see them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netinv.classifiers import InvertibleClassifier, predict
from netinv.results import Kind

Bools = NDArray[np.bool_]

ROUNDING = 1e-6
"""Values in [0, 1] that differ by no more are taken for the same: kernels may round one sample of a batch otherwise."""


@dataclasses.dataclass(frozen=True)
class SampleSet:
    """Images with the labels they are meant to have, as both networks see them. All on the CPU."""

    name: str
    kind: Kind
    images: Tensor
    """(N, C, H, W) in [0, 1]."""
    label: Tensor
    """(N,), int64."""
    vector: Tensor | None
    """Condition of generated images, (N, K)."""
    logits: Tensor
    """Of the inverted classifier, (N, K)."""
    evaluator_logits: Tensor | None
    """(N, K); ``None`` without an evaluator."""
    features: Tensor | None
    """Of the evaluator, (N, D)."""

    @property
    def num_classes(self) -> int:
        """K."""
        return self.logits.shape[1]

    @property
    def correct(self) -> Bools:
        """Whether the classifier sees the label, (N,)."""
        return (self.logits.argmax(dim=1) == self.label).numpy()

    @property
    def evaluator_correct(self) -> Bools | None:
        """Whether the evaluator does, (N,)."""
        return None if self.evaluator_logits is None else (self.evaluator_logits.argmax(dim=1) == self.label).numpy()

    @property
    def gap(self) -> NDArray[np.float32] | None:
        """Difference of the two largest entries of the condition, (N,)."""
        if self.vector is None:
            return None
        top = self.vector.topk(2, dim=1).values
        return (top[:, 0] - top[:, 1]).numpy()


def observe(
    name: str,
    kind: Kind,
    images: Tensor,
    label: Tensor,
    vector: Tensor | None = None,
    *,
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
) -> SampleSet:
    """Show images to both networks."""
    seen = images.nan_to_num()  # broken images get a row that says so, not an exception
    logits, _ = predict(classifier, seen)
    judged = predict(evaluator, seen) if evaluator is not None else (None, None)
    evaluator_logits, features = (None if t is None else t.cpu() for t in judged)
    return SampleSet(name, kind, images, label, vector, logits.cpu(), evaluator_logits, features)


def first(samples: SampleSet, num: int) -> SampleSet:
    """The first ``num`` samples of a set."""
    tensors: dict[str, Any] = {name: t[:num] for name, t in vars(samples).items() if isinstance(t, Tensor)}
    return dataclasses.replace(samples, **tensors)


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Row i of the result is row i of part i mod G: as many rows as each of the G parts, (G, N, ...) -> (N, ...)."""
    stacked = torch.stack(list(parts))
    index = torch.arange(stacked.shape[1])
    return stacked[index % len(parts), index]


def ensemble(parts: Sequence[SampleSet]) -> SampleSet:
    """The generators taken together: each sample from the next one in turn, as many as each generator has."""

    def mix(get: Callable[[SampleSet], Tensor | None]) -> Tensor | None:
        tensors = [tensor for tensor in map(get, parts) if tensor is not None]
        return interleave(tensors) if tensors else None

    return SampleSet(
        name="ensemble",
        kind="ensemble",
        images=interleave([s.images for s in parts]),
        label=interleave([s.label for s in parts]),
        vector=mix(lambda s: s.vector),
        logits=interleave([s.logits for s in parts]),
        evaluator_logits=mix(lambda s: s.evaluator_logits),
        features=mix(lambda s: s.features),
    )


def broken(samples: SampleSet) -> str | None:
    """Why samples cannot be measured at all, if they cannot."""
    num = len(samples.label)
    for tensor, text in (
        (samples.images, f"of {num} images hold values that are not finite"),
        (samples.logits, f"of {num} images get an answer from the classifier that is not finite"),
        (samples.evaluator_logits, f"of {num} images get an answer from the evaluator that is not finite"),
        (samples.features, f"of {num} images get evaluator features that are not finite"),
    ):
        bad = 0 if tensor is None else int((~torch.isfinite(tensor)).flatten(1).any(dim=1).sum())
        if bad:
            return f"{bad} {text}"
    return None


def constant(images: Tensor) -> str | None:
    """Why images have no diversity to measure, if they have none."""
    same = bool((images - images[:1]).abs().max() <= ROUNDING)
    return f"all {len(images)} images are the same" if same else None
