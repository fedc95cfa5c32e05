"""Places inside a classifier whose activations are read, and replaced by others.

Activations are rows: one for each image, or one for each position where a layer has pixels or tokens.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from netinv.classifiers import AdaptedClassifier, Classifier, batch_for
from netinv.core import InputError, listed

BATCH = 250
"""Images that go through the classifier at a time, at most; fewer large ones."""
TOGETHER = 50_000
"""Activations that are looked at together: where images have many, fewer images go through at a time."""
PROBES = 3
"""Images on which it is found out how layers are used."""
MAX_NAMED = 30
"""Layers that a message names."""
NO_HIDDEN = "The classifier has no hidden layer: no activations lie between images and scores."


class Site:
    """A place inside a classifier: the output of a layer, or the penultimate features.

    Args:
        classifier: Of this project, or behind an adapter. It is left as it is found.
        layer: Dotted name of a module whose output is meant; ``None`` is the penultimate features, which are the input
            of the last linear layer. Channels may be the second axis, (N, D, H, W) or (N, D, L), or the last one,
            (N, H, W, D), (N, P, D) or (N, D).

    Raises:
        InputError: There is no such layer, or none of its activations belongs to one image, such as of a layer that is
            used twice for it; names those that do. Or which of its axes is that of the channels cannot be told, or the
            classifier is a script of ``torch.jit``.
    """

    def __init__(self, classifier: Classifier | AdaptedClassifier, layer: str | None = None) -> None:
        self.classifier = classifier
        root = classifier.network if isinstance(classifier, AdaptedClassifier) else classifier
        self._root, self._modules = root, dict(root.named_modules())
        given, shapes = self._recorded()
        names = [name for name in given if name in shapes]
        none = "none; put what it computes into modules that it calls once for a batch"
        known = listed(names, MAX_NAMED) if names else none
        scripted = any(isinstance(module, torch.jit.ScriptModule) for module in root.modules())
        if scripted and not given:
            raise InputError(
                "The classifier is a script of torch.jit, whose layers cannot be read: give the network as it was "
                "before, or written by torch.export.save (.pt2)."
            )
        if layer is None:
            head = classifier.feature_layer if isinstance(classifier, AdaptedClassifier) else "head"
            if head is None:
                raise InputError(
                    "The classifier has no last linear layer that sees one row for each image: name a layer; those "
                    f"with activations are: {known}."
                )
            if head not in given:
                raise InputError(NO_HIDDEN)
            if sum(given[head][:-1]) >= PROBES:  # all images have gone in, and then more
                raise InputError(
                    f"The classifier uses {head!r}, which takes the penultimate features, more than once for an image: "
                    f"name a layer that it uses once; those are: {known}."
                )
            self.layer, self.reads_input = head, True
        elif layer not in shapes:
            raise InputError(f"The classifier has no layer {layer!r} with activations; those that have are: {known}.")
        else:
            self.layer, self.reads_input = layer, False
        self.name = layer or "penultimate features"
        """For people."""
        self._channels_last = self._are_channels_last(given)
        self.batch = PROBES
        """Images that go through the classifier at a time."""
        _, self.positions, self.dim = self.read(self._probes(), positions=None).shape
        shape = classifier.input_shape if isinstance(classifier, AdaptedClassifier) else classifier.image_shape
        sees_images = self.reads_input and self.positions * self.dim == math.prod(shape)
        if sees_images and self._first_weighted(given) == self.layer and not scripted:
            raise InputError(NO_HIDDEN)
        self.batch = max(1, min(batch_for(classifier, BATCH), TOGETHER // self.positions))

    def _probes(self) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        return torch.rand(PROBES, *self.classifier.image_shape, generator=rng)

    @torch.no_grad()
    def _recorded(self) -> tuple[dict[str, list[int]], set[str]]:
        """Layers in the order of their use, by name: rows that go in at each call; a fixed batch makes several.

        And those among them that are called once and give a tensor with a row for each image.
        """
        given, fit = dict[str, list[int]](), set[str]()

        def recorder(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
            def record(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                tensors = (value for value in (*inputs, *kwargs.values()) if isinstance(value, Tensor) and value.ndim)
                given.setdefault(name, []).append(next(map(len, tensors), 0))
                floats = isinstance(output, Tensor) and output.is_floating_point()
                if floats and output.ndim in (2, 3, 4) and len(output) == PROBES and len(given[name]) == 1:
                    fit.add(name)
                else:
                    fit.discard(name)

            return record

        handles = [
            module.register_forward_hook(recorder(name), with_kwargs=True)
            for name, module in self._modules.items()
            if name and not isinstance(module, torch.jit.ScriptModule)  # those take no hooks
        ]
        try:
            self.classifier(self._probes().to(self.classifier.device))
        finally:
            for handle in handles:
                handle.remove()
        return given, fit

    def _first_weighted(self, names: Iterable[str]) -> str | None:
        """The first of the layers that has weights of its own."""
        return next((n for n in names if next(self._modules[n].parameters(recurse=False), None) is not None), None)

    def _are_channels_last(self, used: Iterable[str]) -> bool:
        """Whether the channels are the last axis, and not the second: they are as many for larger images.

        Where the network takes no larger ones, they are as many as those of the last weighted layer up to here.
        """
        shape = self._shape(self.classifier, self._probes())
        if self.reads_input:
            return len(shape) != 3 or isinstance(self._modules[self.layer], nn.Linear)
        if len(shape) == 1:
            return True
        larger = self._shape(self._root, self._larger())
        second, last = (len(shape) == len(larger) and shape[i] == larger[i] for i in (0, -1))
        if second == last:
            so_far = [*takewhile(lambda name: name != self.layer, used), self.layer]
            counts = ((self._modules[name], _num_channels(self._modules[name])) for name in reversed(so_far))
            maker, num = next(((module, num) for module, num in counts if num), (None, 0))
            second, last = shape[0] == num, shape[-1] == num
            if second and last:
                second = type(maker) not in (nn.Linear, nn.LayerNorm)  # others of their kind take channels first
                last = not second
        if second == last and len(shape) == 3:
            return False  # as torch has images
        if second == last:
            raise InputError(
                f"Which axis of what {self.layer!r} gives, {shape} for an image, is that of the channels cannot be "
                "told: name the convolution, the linear layer or the normalisation before or after it."
            )
        return last

    def _larger(self) -> Tensor:
        """Probes of twice the height and width, as the network itself takes them."""
        shape: tuple[int, ...] = self.classifier.image_shape
        dtype = torch.float32
        if isinstance(self.classifier, AdaptedClassifier):
            shape, dtype = self.classifier.input_shape, self.classifier.dtype
        rng = torch.Generator().manual_seed(0)
        return torch.rand(PROBES, shape[0], *(2 * side for side in shape[1:]), generator=rng).to(dtype)

    @torch.no_grad()
    def _shape(self, network: nn.Module, images: Tensor) -> tuple[int, ...]:
        """That of the activations of one image; empty where the network fails before it gets there."""
        seen: list[tuple[int, ...]] = []
        with suppress(Exception), self._hooked(lambda tensor: seen.append(tuple(tensor.shape[1:]))):
            network(images.to(self.classifier.device))
        return seen[0] if seen else ()

    @contextmanager
    def _hooked(self, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Show activations to a function as they come; what it returns takes their place."""
        module = self._modules[self.layer]
        if self.reads_input:

            def before(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                replaced = function((*inputs, *kwargs.values())[0])
                if replaced is None:
                    return None
                if inputs:
                    return (replaced, *inputs[1:]), kwargs
                return inputs, kwargs | {next(iter(kwargs)): replaced}

            handle = module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = module.register_forward_hook(lambda module, inputs, output: function(output))
        try:
            yield
        finally:
            handle.remove()

    def activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and activations (N, P, D) of images (N, C, H, W), with gradients where those are on."""
        seen: list[Tensor] = []
        # Copies, since what follows may change them in place.
        with self._hooked(lambda tensor: seen.append(self._rows(tensor).clone())):
            logits = self.classifier(images)
        return logits, torch.cat(seen)[: len(images)].float()

    @torch.no_grad()
    def batches(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (N, K) and activations (N, P, D) of a batch of the images after another; no earlier batch is held."""
        for batch in torch.split(images, self.batch):
            yield self.activations(batch.to(self.classifier.device))

    def read(self, images: Tensor, positions: int | None, seed: int = 0) -> Tensor:
        """Activations (N, P, D) of images, a batch at a time, on the CPU.

        Args:
            images: (N, C, H, W) in [0, 1].
            positions: How many of an image's positions are kept, drawn by chance; ``None`` keeps all.
            seed: Of that choice.
        """
        rng = torch.Generator().manual_seed(seed)
        parts = []
        for _, rows in self.batches(images):
            rows = rows.cpu()
            if positions is not None and positions < rows.shape[1]:
                chosen = torch.rand(rows.shape[:2], generator=rng).topk(positions, dim=1).indices
                rows = rows.gather(1, chosen[:, :, None].expand(-1, -1, rows.shape[2]))
            parts.append(rows)
        return torch.cat(parts)

    def logits_with(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (N, K) of images where a function of the activations (N, P, D) takes their place."""

        def replace(tensor: Tensor) -> Tensor:
            return self._like(function(self._rows(tensor).float()), tensor)

        with self._hooked(replace):
            logits: Tensor = self.classifier(images)
        return logits

    def _rows(self, tensor: Tensor) -> Tensor:
        """A layer's activations as (N, P, D)."""
        if tensor.ndim == 2:
            return tensor[:, None]
        return tensor.flatten(1, -2) if self._channels_last else tensor.flatten(2).transpose(1, 2)

    def _like(self, rows: Tensor, tensor: Tensor) -> Tensor:
        """Activations (N, P, D) in the shape and precision of a layer's own: a copy, which may be changed in place."""
        return (rows if self._channels_last else rows.transpose(1, 2)).reshape(tensor.shape).to(tensor.dtype, copy=True)


def _num_channels(module: nn.Module) -> int:
    """Channels of what a layer gives, if it says so, else 0."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return module.normalized_shape[-1]
    names = ("out_channels", "num_features", "num_channels", "out_features")
    return next((num for name in names if isinstance(num := getattr(module, name, None), int)), 0)
