"""Other people's classifiers, made to take images in [0, 1] and to give logits and penultimate features.

The wrapped network is touched only while a call lasts: evaluation mode, frozen parameters and the hook that reads its
features are taken back before the call returns, also when it fails. Between calls the network is as its owner left it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self, overload

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from netinv.core import Config, InputError

OutputKind = Literal["logits", "probabilities", "log_probabilities"]

GREY = (0.299, 0.587, 0.114)
"""Luminance weights of red, green and blue (ITU-R BT.601)."""
PROBES = 8
"""Images on which a network is tried out."""


class AdapterConfig(Config):
    """What a classifier takes and gives, where that is not images in [0, 1] and logits."""

    mean: tuple[float, ...] | None = None
    """Per-channel mean that its inputs are normalised by, in [0, 1] units; ``None`` where it does so itself."""
    std: tuple[PositiveFloat, ...] | None = None
    """Per-channel standard deviation, likewise. A network that takes pixels in 0..255 has mean 0 and std 1/255."""
    input_shape: tuple[PositiveInt, ...] | None = None
    """(C, H, W) that the network takes, or (pixels,) for flat rows, where that is not the shape of the images."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    output: Literal["auto"] | OutputKind = "auto"
    """What the network gives; ``auto`` finds out."""
    output_entry: int | str | None = None
    """Place or key of the logits in a tuple or a mapping; ``None`` is the only entry of shape (N, K)."""
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
        return self


DEFAULT = AdapterConfig()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters inside the block; every flag as it was after it.

    The flags are set one by one and not through ``eval()``, which some networks refuse or overrule.
    """
    training = {module: module.training for module in network.modules()}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for module in training:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
        for parameter in trainable:
            parameter.requires_grad_(True)


def detect_output(output: Tensor) -> OutputKind:
    """What rows of numbers (N, K) are, by their sign and their sum.

    Example:
        >>> detect_output(torch.tensor([[0.2, 0.8]])), detect_output(torch.tensor([[0.2, 1.8]]))
        ('probabilities', 'logits')
    """
    if bool((output >= 0).all()) and torch.allclose(output.sum(dim=1), torch.ones(()).to(output), atol=1e-3):
        return "probabilities"
    if bool((output <= 1e-6).all()) and torch.allclose(output.exp().sum(dim=1), torch.ones(()).to(output), atol=1e-3):
        return "log_probabilities"
    return "logits"


def probe_images(image_shape: tuple[int, int, int], num: int = PROBES) -> Tensor:
    """The images on which a network is tried out, (N, C, H, W): noise of growing contrast about growing grey levels."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(num, *image_shape, generator=rng) - 0.5
    contrast = torch.linspace(0.2, 1, num)[:, None, None, None]
    level = torch.linspace(0.2, 0.8, num)[:, None, None, None]
    return (level + contrast * noise).clamp(0, 1)


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
        self.network = network
        self.image_shape = image_shape
        self.config = config
        like = next(network.parameters(), next(network.buffers(), torch.zeros(())))
        self.dtype = like.dtype if like.is_floating_point() else torch.float32
        input_shape = config.input_shape if config.input_shape and len(config.input_shape) == 3 else image_shape
        self.input_shape: tuple[int, ...] = input_shape
        channels = input_shape[0]
        if config.mean is not None and len(config.mean) != channels:
            raise InputError(
                f"mean and std have {len(config.mean)} values, but the classifier takes {channels} channels."
            )
        if image_shape[0] != channels and {image_shape[0], channels} != {1, 3}:
            raise InputError(f"Images of {image_shape[0]} channels cannot be converted to {channels} channels.")
        if config.channel_order == "bgr" and channels != 3:
            raise InputError(f"channel_order bgr needs 3 channels, but the classifier takes {channels}.")
        self.mean: Tensor
        self.std: Tensor
        mean, std = config.mean or (0.0,), config.std or (1.0,)
        if config.channel_order == "bgr":
            mean, std = mean[::-1], std[::-1]  # images are normalised in their own order, and then turned round
        self.register_buffer("mean", torch.tensor(mean, device=like.device).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device=like.device).view(1, -1, 1, 1), persistent=False)

        layers, output = self._trace(probe_images(image_shape).to(like.device))
        scores = self._scores(output, num_classes)
        if not bool(torch.isfinite(scores).all()):
            raise InputError("The classifier's outputs are not finite: check its weights and its normalisation.")
        if scores.shape[1] < 2:
            raise InputError(
                "The classifier gives one score for each image; wrap it so that it gives one for each class, "
                "such as torch.cat([-score, score], dim=1)."
            )
        self.num_classes = scores.shape[1]
        self.detected_output: OutputKind = detect_output(scores)
        self.output: OutputKind = self.detected_output if config.output == "auto" else config.output
        self.output_range = float(scores.min()), float(scores.max())
        self.feature_layer: str | None = config.feature_layer or _feature_layer(layers, scores)
        """Name of the module whose input is the features; ``None`` where the logits stand in for them."""
        if self.feature_layer is not None and self.feature_layer not in dict(network.named_modules()):
            known = ", ".join(name for name, _ in layers[-3:])
            raise InputError(f"The classifier has no module {self.feature_layer!r}; the last ones in use are: {known}.")
        with torch.no_grad():
            _, features = self(probe_images(image_shape, 2).to(like.device), return_features=True)
        self.feature_dim: int = features.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mean.device

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
        num = images.shape[0]  # not len(), which tracing for an export would fix
        captured: list[Tensor] = []
        # In the network's own precision, whatever the caller's: it may not bear another.
        with torch.autocast(images.device.type, enabled=False):
            inputs = self._inputs(images.repeat(2, 1, 1, 1) if num == 1 else images)
            with frozen(self.network), self._capture(captured if return_features else None):
                output = self.network(inputs)
        scores = self._scores(output, self.num_classes)
        logits = scores.clamp(min=torch.finfo(scores.dtype).tiny).log() if self.output == "probabilities" else scores
        if not return_features:
            return logits[:num]
        if self.feature_layer is None:
            return logits[:num], logits[:num]
        return logits[:num], self._features(captured, len(inputs))[:num]

    def _inputs(self, images: Tensor) -> Tensor:
        """What the network takes, always a tensor of its own, so that in-place operations harm nobody."""
        channels, height, width = self.input_shape
        if images.shape[1] != channels:
            grey = torch.tensor(GREY, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
            images = images.expand(-1, 3, -1, -1) if channels == 3 else (images * grey).sum(dim=1, keepdim=True)
        if images.shape[2:] != (height, width):
            images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
        images = (images - self.mean) / self.std
        if self.config.channel_order == "bgr":
            images = images.flip(1)
        if self.config.input_shape is not None and len(self.config.input_shape) == 1:
            images = images.flatten(1)
        return images.to(self.dtype)

    def _scores(self, output: Any, num_classes: int | None) -> Tensor:
        """The classifier's scores in what it gave, (N, K), float32."""
        scores = output
        if isinstance(output, Mapping):
            scores = self._entry(output, num_classes)
        elif isinstance(output, (tuple, list)):
            scores = self._entry(dict(enumerate(output)), num_classes)
        if not isinstance(scores, Tensor) or scores.ndim != 2 or not scores.is_floating_point():
            shape = f"a tensor of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(f"Expected one row of scores for each image, (N, K), but the classifier gives {shape}.")
        if num_classes is not None and scores.shape[1] != num_classes:
            raise InputError(
                f"The classifier gives {scores.shape[1]} scores for each image, but num_classes is {num_classes}."
            )
        return scores.float()

    def _entry(self, entries: Mapping[Any, Any], num_classes: int | None) -> Any:
        """The entry of a tuple or a mapping that holds the scores."""
        names = ", ".join(map(str, entries))
        wanted = self.config.output_entry
        if wanted is not None:
            if wanted not in entries:
                raise InputError(f"The output has no entry {wanted!r}; it has: {names}.")
            return entries[wanted]
        tables = [value for value in entries.values() if isinstance(value, Tensor) and value.ndim == 2]
        fitting = [value for value in tables if num_classes in (None, value.shape[1])]
        if len(fitting) != 1:
            raise InputError(
                f"{len(fitting)} entries of the output could be the logits, of {names}: name one with output_entry."
            )
        return fitting[0]

    @contextmanager
    def _capture(self, captured: list[Tensor] | None) -> Iterator[None]:
        """Collect the inputs of the feature layer for as long as the block lasts."""
        if captured is None or self.feature_layer is None:
            yield
            return
        layer = self.network.get_submodule(self.feature_layer)
        handle = layer.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
        try:
            yield
        finally:
            handle.remove()

    def _features(self, captured: list[Tensor], num: int) -> Tensor:
        """Features (N, D): averaged over tokens or pixels where the layer sees those."""
        if not captured:
            raise InputError(f"The feature layer {self.feature_layer!r} is not used: name another one.")
        # A network that works through the batch in parts calls its layer once for each part, the last one filled up.
        features = torch.cat(captured)[:num]
        if len(features) != num:
            raise InputError(
                f"The feature layer {self.feature_layer!r} sees {len(features)} rows of {num} images: name another one."
            )
        if features.ndim == 3:
            features = features.mean(dim=1)  # (N, tokens, D)
        elif features.ndim > 3:
            features = features.flatten(2).mean(dim=2)  # (N, D, H, W)
        return features.float()

    def _trace(self, images: Tensor) -> tuple[list[tuple[str, Tensor]], Any]:
        """Linear and convolutional layers in the order of their use, with their outputs, and the network's output.

        Of outputs that are no rows of numbers only the shape is kept.
        """
        used: list[tuple[str, Tensor]] = []

        def recorder(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: used.append((name, output if output.ndim == 2 else output.to("meta")))

        inputs = self._inputs(images)
        handles: list[RemovableHandle] = []
        try:
            for name, module in self.network.named_modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    handles.append(module.register_forward_hook(recorder(name)))
            with frozen(self.network), torch.no_grad():
                return used, self.network(inputs)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"The classifier fails on a batch of shape {tuple(inputs.shape)} ({reason}): "
                "check image_shape, or give the input_shape that it takes."
            ) from error
        finally:
            for handle in handles:
                handle.remove()


def adapt(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    config: AdapterConfig = DEFAULT,
) -> AdaptedClassifier:
    """A network behind an adapter; one that is adapted already as it is, if what is said of it is so.

    Raises:
        InputError: As :class:`AdaptedClassifier`, or the adapter that is there contradicts the arguments.
    """
    if not isinstance(network, AdaptedClassifier):
        return AdaptedClassifier(network, image_shape, num_classes, config)
    for name, given, known in (
        ("image_shape", tuple(image_shape), tuple(network.image_shape)),
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
        if output.shape == scores.shape and torch.equal(output.float(), scores):
            return name
    for name, output in reversed(layers):
        if output.shape[1 if output.ndim == 4 else -1] == scores.shape[1]:
            return name
    return next((name for name, output in reversed(layers) if output.ndim == 2), None)
