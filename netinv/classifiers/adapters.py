"""Other people's classifiers, made to take images in [0, 1] and to give logits and penultimate features.

The wrapped network is touched only while a call lasts: evaluation mode, frozen parameters and the hook that reads its
features are taken back before the call returns, also when it fails. Between calls the network is as its owner left it,
but for a block of ``frozen``, which the backward pass needs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self, cast, overload

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from netinv.classifiers.calls import InParts, bare, call, first_tensor, precision
from netinv.classifiers.inputs import converted_shape, expect_default_device, expect_shape, probe_images, to_grey
from netinv.classifiers.outputs import OutputKind, detect_output, find_scores, to_logits
from netinv.core import Config, Count, Deviation, InputError, Number, whole


class AdapterConfig(Config):
    """What a classifier takes and gives, where that is not images in [0, 1] and logits."""

    mean: Annotated[tuple[Number, ...], Field(max_length=4_096)] | None = None
    """Per-channel mean that its inputs are normalised by, in [0, 1] units; ``None`` where it does so itself."""
    std: Annotated[tuple[Deviation, ...], Field(max_length=4_096)] | None = None
    """Per-channel standard deviation, likewise. A network that takes pixels in 0..255 has mean 0 and std 1/255."""
    input_shape: tuple[Count, ...] | None = None
    """(C, H, W) that the network takes, or (pixels,) for flat rows, where that is not the shape of the images."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    output: Literal["auto"] | OutputKind = "auto"
    """What the network gives; ``auto`` finds out. ``sigmoid`` is a score for each class by itself, before or after its
    sigmoid, which is found out; a single one, (N,) or (N, 1), is that of class 1 of two."""
    output_entry: Annotated[int, Field(ge=0, le=1_000)] | str | None = None
    """Place, key or name of the logits in a tuple, mapping or object; ``None`` is the only entry of shape (N, K)."""
    feature_layer: str | None = Field(None, min_length=1)
    """Dotted name of the module whose input is the features; ``None`` is the last linear layer in use."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.input_shape is not None and len(self.input_shape) not in (1, 3):
            raise ValueError("input_shape is (channels, height, width) or (pixels,)")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("mean and std have one value for each channel")
        if any(value > 1 for value in (*(self.mean or ()), *(self.std or ()))):
            raise ValueError("mean and std are in units of [0, 1]: divide by 255 what is above 1")
        return self


DEFAULT = AdapterConfig()


class AdaptedClassifier(nn.Module):
    """Any network as a classifier of images in [0, 1] that gives logits and features.

    Batches of one go in twice, since networks that squeeze their output or branch on N = 1 are common.

    Args:
        network: Any module that maps a batch of images to scores. Nothing of it is changed for longer than a call.
        image_shape: (C, H, W) of the images; greyscale and colour, and other sizes, are converted for the network.
        num_classes: K, or ``None`` to take the network's word for it.
        config: What the network takes and gives.

    Raises:
        InputError: The network fails on such images, or its output has not one row of K scores for each of them.
    """

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        config: AdapterConfig = DEFAULT,
    ) -> None:
        super().__init__()
        expect_default_device()
        self.network = bare(network)
        self.image_shape = image_shape = expect_shape(image_shape)
        self.config = config = AdapterConfig.expect(config, "adapter")
        like = next(self.network.parameters(), next(self.network.buffers(), torch.zeros(())))
        self.dtype = precision(self.network, torch.float32)
        self.input_shape = converted_shape(image_shape, config.input_shape)
        channels = self.input_shape[0]
        if config.mean is not None and len(config.mean) != channels:
            raise InputError(
                f"mean and std have {len(config.mean)} values, but the classifier takes {channels} channels."
            )
        if config.channel_order == "bgr" and channels != 3:
            raise InputError(f"channel_order bgr needs 3 channels, but the classifier takes {channels}.")
        self.mean: Tensor
        self.std: Tensor
        mean, std = config.mean or (0.0,), config.std or (1.0,)
        if config.channel_order == "bgr":
            mean, std = mean[::-1], std[::-1]  # images are normalised in their own order, and then turned round
        self.register_buffer("mean", torch.tensor(mean, device=like.device).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device=like.device).view(1, -1, 1, 1), persistent=False)

        probes = probe_images(image_shape).to(like.device)
        wanted = None if num_classes is None else whole(num_classes, "num_classes")
        layers, scores = self._trace(probes, wanted)
        if not bool(torch.isfinite(scores).all()):
            raise InputError("The classifier's outputs are not finite: check its weights and its normalisation.")
        self.num_classes = max(scores.shape[1], 2)
        single = config.output == "sigmoid"
        self.detected_output = self.sigmoid_or_logits(scores) if single else detect_output(scores, self.dtype)
        believed = self.detected_output if config.output in ("auto", "sigmoid") else config.output
        self.output = cast(OutputKind, believed)
        self.output_range = float(scores.min()), float(scores.max())
        self.saturated = bool(((scores == 0) | (scores == 1)).all())
        """Whether each score on the images of the trial is 0 or 1."""
        self.feature_layer: str | None = config.feature_layer or _feature_layer(layers, scores)
        """Name of the module whose input is the features; ``None`` where the logits stand in for them."""
        if self.feature_layer is not None and self.feature_layer not in dict(self.network.named_modules()):
            known = ", ".join(name for name, _ in layers[-3:])
            raise InputError(f"The classifier has no module {self.feature_layer!r}; the last ones in use are: {known}.")
        self.needs_gradients = False
        """Whether it fails without gradients, as where it registers hooks on its activations."""
        with torch.no_grad():
            try:
                _, features = self(probes[:2], return_features=True)
            except InputError:
                self.needs_gradients = True
                _, features = self(probes[:2], return_features=True)
        self.feature_dim: int = features.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mean.device

    @property
    def least_batch(self) -> int:
        """The smallest batch into which no copies are put: two, or what a program takes that was exported for it."""
        return self.network.rows(2) if isinstance(self.network, InParts) else 2

    def train(self, mode: bool = True) -> Self:
        """Do nothing: every call is in evaluation mode, and the network's own mode is its owner's."""
        return self

    @overload
    def forward(self, images: Tensor) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, return_features: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images.

        Args:
            images: (N, C, H, W) in [0, 1].
            return_features: Also return the penultimate features.

        Returns:
            Logits (N, K), or (logits, features) with features (N, D), both float32.
        """
        if not self.needs_gradients or (torch.is_grad_enabled() and images.requires_grad):
            results = self._classified(images, return_features)
        else:
            with torch.inference_mode(mode=False), torch.enable_grad():
                results = [x.detach() for x in self._classified(images.clone().requires_grad_(), return_features)]
        return (results[0], results[1]) if return_features else results[0]

    def _classified(self, images: Tensor, return_features: bool) -> list[Tensor]:
        """The logits (N, K), and if wanted the features (N, D)."""
        num = images.shape[0]  # not len(), which tracing for an export would fix
        captured: list[Tensor] = []
        # In the network's own precision, whatever the caller's: in another it may fail, or round its scores.
        with torch.autocast(images.device.type, enabled=False):
            inputs = self._inputs(images.repeat(2, 1, 1, 1) if num == 1 else images)
            with self._capture(captured if return_features else None):
                output = call(self.network, inputs)
            scores = self._scores(output, self.num_classes, inputs)
            logits = to_logits(scores, self.output)
            if not return_features:
                return [logits[:num]]
            features = logits if self.feature_layer is None else self._features(captured, len(inputs))
            return [logits[:num], features[:num].to(logits)]

    def scores_through(self, network: nn.Module, images: Tensor) -> Tensor:
        """Scores of another network of the same kind, in the mode that it is in, with gradients for its weights.

        Args:
            network: Takes and gives what the adapted one does, such as a copy of it with fresh weights.
            images: (N, C, H, W) in [0, 1]; the other network is given them in its own precision.

        Returns:
            (N, K), or (N, 1) for a single score.

        Raises:
            InputError: It is not clear which of what it gives are the scores, as beside those of auxiliary heads.
        """
        inputs = self._inputs(images).to(precision(network, self.dtype))
        return self._scores(network(inputs), self.num_classes, inputs)

    def _scores(self, output: Any, num_classes: int | None, inputs: Tensor) -> Tensor:
        """The scores in what the network gave for inputs, one row for each, on their device."""
        single = self.config.output == "sigmoid"
        return find_scores(output, self.config.output_entry, num_classes, single, inputs.shape).to(inputs.device)

    def kind_of(self, scores: Tensor) -> OutputKind:
        """What scores (N, K) of such a network in another mode are: the same as always, unless they look otherwise."""
        if self.output == "sigmoid":
            return "sigmoid" if bool(((scores >= 0) & (scores <= 1)).all()) else "logits"
        shown = detect_output(scores, self.dtype)
        return self.output if shown == self.detected_output else shown

    def _inputs(self, images: Tensor) -> Tensor:
        """What the network takes, as its author's loader would give it.

        It is a tensor of its own, so that in-place operations harm nobody, and laid out in memory row by row, whatever
        the images are: many networks flatten by ``view``.
        """
        channels, height, width = self.input_shape
        if images.shape[1] != channels:
            images = images.expand(-1, 3, -1, -1) if channels == 3 else to_grey(images)
        if images.shape[2:] != (height, width):
            images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
        images = (images - self.mean) / self.std
        if self.config.channel_order == "bgr":
            images = images.flip(1)
        if self.config.input_shape is not None and len(self.config.input_shape) == 1:
            images = images.flatten(1)
        return images.to(self.dtype).clone(memory_format=torch.contiguous_format)

    @contextmanager
    def _capture(self, captured: list[Tensor] | None) -> Iterator[None]:
        """Collect the inputs of the feature layer for as long as the block lasts."""
        if captured is None or self.feature_layer is None:
            yield
            return
        layer = dict(self.network.named_modules())[self.feature_layer]  # scripts have no get_submodule
        if isinstance(layer, torch.jit.ScriptModule):
            raise InputError(f"feature_layer {self.feature_layer!r} is a script, which cannot be read: leave it out.")
        handle = layer.register_forward_pre_hook(
            lambda _, *call: captured.extend(x.clone() for x in first_tensor(*call)), with_kwargs=True
        )
        try:
            yield
        finally:
            handle.remove()

    def _features(self, captured: list[Tensor], num: int) -> Tensor:
        """Features (N, D): averaged over tokens or pixels where the layer sees those."""
        if not captured:
            raise InputError(f"The feature layer {self.feature_layer!r} is not used: name another one.")
        rows = [len(features) for features in captured]
        if not self._one_each(rows, num):
            raise InputError(
                f"The feature layer {self.feature_layer!r} sees {sum(rows)} rows of {num} images: name another one."
            )
        features = captured[0] if len(captured[0]) == num else torch.cat(captured)[:num]
        if features.ndim == 3:
            features = features.mean(dim=1)  # (N, tokens, D)
        elif features.ndim > 3:
            features = features.flatten(2).mean(dim=2)  # (N, D, H, W)
        return features.float()

    def _one_each(self, rows: list[int], num: int) -> bool:
        """Whether so many rows, in each call of a layer, are one for each image: at once, or part by part."""
        return rows[0] == num or sum(rows) == (self.network.rows(num) if isinstance(self.network, InParts) else num)

    def _trace(self, images: Tensor, num_classes: int | None) -> tuple[list[tuple[str, Tensor]], Tensor]:
        """Linear and convolutional layers in the order of their use, with their outputs, and the network's scores.

        Only those with one row for each image. Of outputs that are no rows of numbers only the shape is kept.
        """
        used: list[tuple[str, Tensor]] = []

        def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def record(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim:
                    # A copy, since what follows may change it in place.
                    used.append((name, output.detach().clone() if output.ndim == 2 else output.detach().to("meta")))

            return record

        inputs = self._inputs(images)
        handles: list[RemovableHandle] = []
        try:
            for name, module in self.network.named_modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    handles.append(module.register_forward_hook(recorder(name)))
            output = call(self.network, inputs)
        finally:
            for handle in handles:
                handle.remove()
        scores = self._scores(output, num_classes, inputs).detach()
        rows = {name: [len(output) for used_name, output in used if used_name == name] for name, _ in used}
        return [(name, output) for name, output in used if self._one_each(rows[name], len(inputs))], scores

    @torch.enable_grad()  # a network may hook into its own gradients, and fails where there are none
    def sigmoid_or_logits(self, scores: Tensor) -> OutputKind:
        """Whether scores come after their sigmoid: then they stay in [0, 1] whatever the network is given."""
        strong = 100 * (probe_images(self.image_shape).to(self.device) - 0.5)
        try:
            inputs = self._inputs(torch.cat([strong, -strong]).requires_grad_())
            output = call(self.network, inputs)
            more = find_scores(output, self.config.output_entry, None, single=True, shape=inputs.shape).detach()
        except InputError:  # it fails on images outside of [0, 1]
            more = scores
        return "sigmoid" if all(bool(((x >= 0) & (x <= 1)).all()) for x in (scores, more)) else "logits"


def adapt(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    config: AdapterConfig | None = None,
) -> AdaptedClassifier:
    """A network behind an adapter, ``None`` is the default one; adapted already it is taken as it is, if that is so.

    Raises:
        InputError: As :class:`AdaptedClassifier`, or the adapter that is there contradicts the arguments.
    """
    config = DEFAULT if config is None else config
    expect_default_device()
    if not isinstance(network, AdaptedClassifier):
        return AdaptedClassifier(network, image_shape, num_classes, config)
    for name, given, known in (
        ("image_shape", expect_shape(image_shape), network.image_shape),
        ("num_classes", num_classes or network.num_classes, network.num_classes),
        ("adapter", network.config if config == DEFAULT else config, network.config),
    ):
        if given != known:
            raise InputError(
                f"The classifier is adapted already, with {name} {known}, not {given}: give that, or adapt the network "
                "anew."
            )
    return network


def _feature_layer(layers: list[tuple[str, Tensor]], scores: Tensor) -> str | None:
    """The layer that makes the scores: the last that gives them as they are, else K values, else any linear one."""
    for name, output in reversed(layers):
        if output.shape == scores.shape and torch.equal(output.to(scores), scores):
            return name
    for name, output in reversed(layers):
        if output.shape[1 if output.ndim == 4 else -1] == scores.shape[1]:
            return name
    return next((name for name, output in reversed(layers) if output.ndim == 2), None)
