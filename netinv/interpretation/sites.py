"""Places inside a classifier whose activations are read, and replaced by others.

Activations are rows: one for each image, or one for each position where a layer has pixels or tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, Classifier
from netinv.core import InputError, listed

BATCH = 250
"""Images that go through the classifier at a time."""
MAX_NAMED = 30
"""Layers that a message names."""


class Site:
    """A place inside a classifier: the output of a layer, or the penultimate features.

    Args:
        classifier: Of this project, or behind an adapter. It is left as it is found.
        layer: Dotted name of a module whose output is meant; ``None`` is the penultimate features, which are the input
            of the last linear layer. Channels are the second axis of four (N, D, H, W), else the last of (N, P, D) or
            (N, D).

    Raises:
        InputError: There is no such layer, or none of its activations belongs to one image; names those that do.
    """

    def __init__(self, classifier: Classifier | AdaptedClassifier, layer: str | None = None) -> None:
        self.classifier = classifier
        root = classifier.network if isinstance(classifier, AdaptedClassifier) else classifier
        self._modules = dict(root.named_modules())
        shapes = self._shapes()
        if layer is None:
            head = classifier.feature_layer if isinstance(classifier, AdaptedClassifier) else "head"
            if not head or head not in self._modules or next(iter(self._weighted(shapes)), None) == head:
                raise InputError("The classifier has no hidden layer: no activations lie between images and scores.")
            self.layer, self.reads_input = head, True
        elif layer not in shapes:
            known = listed([name for name in shapes if name], MAX_NAMED)
            raise InputError(f"The classifier has no layer {layer!r} with activations; those that have are: {known}.")
        else:
            self.layer, self.reads_input = layer, False
        self.name = layer or "penultimate features"
        """For people."""
        _, self.positions, self.dim = self.read(self._probes(), positions=None).shape

    def _probes(self) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        return torch.rand(3, *self.classifier.image_shape, generator=rng)

    @torch.no_grad()
    def _shapes(self) -> dict[str, torch.Size]:
        """Layers that are called once and give a tensor with a row for each image, in the order of their use."""
        probes, found, calls = self._probes(), dict[str, torch.Size](), dict[str, int]()

        def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def record(module: nn.Module, inputs: Any, output: Any) -> None:
                calls[name] = calls.get(name, 0) + 1
                if isinstance(output, Tensor) and output.is_floating_point() and output.ndim in (2, 3, 4):
                    found[name] = output.shape

            return record

        handles = [module.register_forward_hook(recorder(name)) for name, module in self._modules.items() if name]
        try:
            self.classifier(probes.to(self.classifier.device))
        finally:
            for handle in handles:
                handle.remove()
        return {name: shape for name, shape in found.items() if calls[name] == 1 and shape[0] == len(probes)}

    def _weighted(self, names: dict[str, torch.Size]) -> Iterator[str]:
        """Those of the layers that have weights of their own, in the order of their use."""
        return (name for name in names if next(self._modules[name].parameters(recurse=False), None) is not None)

    @contextmanager
    def _hooked(self, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Show activations to a function as they come; what it returns takes their place."""
        module = self._modules[self.layer]
        if self.reads_input:

            def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
                replaced = function(inputs[0])
                return None if replaced is None else (replaced, *inputs[1:])

            handle = module.register_forward_pre_hook(before)
        else:
            handle = module.register_forward_hook(lambda module, inputs, output: function(output))
        try:
            yield
        finally:
            handle.remove()

    def activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and activations (N, P, D) of images (N, C, H, W), with gradients where those are on."""
        seen: list[Tensor] = []
        with self._hooked(lambda tensor: seen.append(_rows(tensor))):
            logits = self.classifier(images)
        return logits, torch.cat(seen)[: len(images)].float()

    @torch.no_grad()
    def read(self, images: Tensor, positions: int | None, seed: int = 0) -> Tensor:
        """Activations (N, P, D) of images, a batch at a time, on the CPU.

        Args:
            images: (N, C, H, W) in [0, 1].
            positions: How many of an image's positions are kept, drawn by chance; ``None`` keeps all.
            seed: Of that choice.
        """
        rng = torch.Generator().manual_seed(seed)
        parts = []
        for batch in torch.split(images, BATCH):
            _, rows = self.activations(batch.to(self.classifier.device))
            rows = rows.cpu()
            if positions is not None and positions < rows.shape[1]:
                chosen = torch.rand(rows.shape[:2], generator=rng).topk(positions, dim=1).indices
                rows = rows.gather(1, chosen[:, :, None].expand(-1, -1, rows.shape[2]))
            parts.append(rows)
        return torch.cat(parts)

    def logits_with(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (N, K) of images where a function of the activations (N, P, D) takes their place."""

        def replace(tensor: Tensor) -> Tensor:
            return _like(function(_rows(tensor).float()), tensor)

        with self._hooked(replace):
            logits: Tensor = self.classifier(images)
        return logits


def _rows(tensor: Tensor) -> Tensor:
    """A layer's activations as (N, P, D)."""
    if tensor.ndim == 4:
        return tensor.flatten(2).transpose(1, 2)
    return tensor[:, None] if tensor.ndim == 2 else tensor


def _like(rows: Tensor, tensor: Tensor) -> Tensor:
    """Activations (N, P, D) in the shape and precision of a layer's own."""
    if tensor.ndim == 4:
        rows = rows.transpose(1, 2)
    return rows.reshape(tensor.shape).to(tensor.dtype)
