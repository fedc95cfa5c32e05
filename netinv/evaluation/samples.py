"""Images to be measured, drawn from a generator or real, as the inverted classifier and the evaluator see them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netinv.classifiers import InvertibleClassifier, predict
from netinv.generators import ConditionedGenerator
from netinv.results import Kind
from netinv.sampling import draw

Bools = NDArray[np.bool_]

ROUNDING = 1e-6
"""Values in [0, 1] that differ by no more are taken for the same: kernels may round one sample of a batch otherwise."""
BATCH = 500
"""Samples that a generator is given at a time. Every batch is full, since the masks of dropout depend on its size."""


@dataclasses.dataclass(frozen=True)
class Source:
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
        if self.vector is None or self.num_classes < 2:
            return None
        top = self.vector.topk(2, dim=1).values
        return (top[:, 0] - top[:, 1]).numpy()


def observe(
    name: str,
    kind: Kind,
    images: Tensor,
    label: Tensor,
    vector: Tensor | None,
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
) -> Source:
    """Show images to both networks."""
    seen = images.nan_to_num()  # broken images get a row that says so, not an exception
    logits, _ = predict(classifier, seen)
    judged = predict(evaluator, seen) if evaluator is not None else (None, None)
    evaluator_logits, features = (None if t is None else t.cpu() for t in judged)
    return Source(name, kind, images, label, vector, logits.cpu(), evaluator_logits, features)


def first(source: Source, num: int) -> Source:
    """The first ``num`` samples of a source."""
    tensors: dict[str, Any] = {name: t[:num] for name, t in vars(source).items() if isinstance(t, Tensor)}
    return dataclasses.replace(source, **tensors)


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """Row i of the result is row i of part i mod G: as many rows as each of the G parts, (G, N, ...) -> (N, ...)."""
    stacked = torch.stack(list(parts))
    index = torch.arange(stacked.shape[1])
    return stacked[index % len(parts), index]


def ensemble(sources: Sequence[Source]) -> Source:
    """The generators taken together: each sample from the next one in turn, as many as each generator has."""

    def mix(get: Callable[[Source], Tensor | None]) -> Tensor | None:
        parts = [part for part in map(get, sources) if part is not None]
        return interleave(parts) if parts else None

    return Source(
        name="ensemble",
        kind="ensemble",
        images=interleave([s.images for s in sources]),
        label=interleave([s.label for s in sources]),
        vector=mix(lambda s: s.vector),
        logits=interleave([s.logits for s in sources]),
        evaluator_logits=mix(lambda s: s.evaluator_logits),
        features=mix(lambda s: s.features),
    )


def broken(source: Source) -> str | None:
    """Why a source cannot be measured at all, if it cannot."""
    num = len(source.label)
    for tensor, text in (
        (source.images, f"of {num} images hold values that are not finite"),
        (source.logits, f"of {num} images get an answer from the classifier that is not finite"),
        (source.evaluator_logits, f"of {num} images get an answer from the evaluator that is not finite"),
        (source.features, f"of {num} images get evaluator features that are not finite"),
    ):
        bad = 0 if tensor is None else int((~torch.isfinite(tensor)).flatten(1).any(dim=1).sum())
        if bad:
            return f"{bad} {text}"
    return None


def constant(images: Tensor) -> str | None:
    """Why images have no diversity to measure, if they have none."""
    same = bool((images - images[:1]).abs().max() <= ROUNDING)
    return f"all {len(images)} images are the same" if same else None


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] to the nearest of 256 levels; NaN becomes 0."""
    return images.nan_to_num().mul(255).round().clamp(0, 255).byte()


@torch.no_grad()
def generate(
    generator: ConditionedGenerator, num: int, seed: int, sharpness: tuple[float, float], dropout: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw images on the generator's device; the same seed gives the same draws in torch and in ONNX.

    The first images are the same whatever ``num`` is, with dropout and without.

    Args:
        generator: Left in the mode it was in.
        num: N.
        seed: Seed of the draws, and of dropout.
        sharpness: Range of the condition's sharpness.
        dropout: Leave dropout on, as in training; batch norm keeps to its running statistics in either case.

    Returns:
        images (N, C, H, W) and condition vectors (N, K), on the CPU.
    """
    noise, condition = draw(
        -(-num // BATCH) * BATCH,
        latent_dim=generator.config.latent_dim,
        num_classes=generator.num_classes,
        seed=seed,
        sharpness=sharpness,
    )
    latent, vector = torch.from_numpy(noise), torch.from_numpy(condition)
    device = next(generator.parameters()).device
    training = generator.training
    generator.eval()
    for layer in dropout_layers(generator):
        layer.train(dropout)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        batches = zip(torch.split(latent, BATCH), torch.split(vector, BATCH), strict=True)
        images = torch.cat([generator(z.to(device), p.to(device)).cpu() for z, p in batches])
    generator.train(training)
    return images[:num].contiguous(), vector[:num]


def dropout_layers(network: nn.Module) -> list[nn.Dropout | nn.Dropout2d]:
    """A network's dropout layers."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)]
