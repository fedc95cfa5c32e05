"""What the batch norms of a frozen classifier see of a batch: they know from its training what they should see."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from netinv.classifiers.adapters import AdaptedClassifier
from netinv.classifiers.networks import InvertibleClassifier
from netinv.core import InputError


class BatchNormInputs(TorchFunctionMode):
    """A context that notes the inputs of batch norms in evaluation mode, normalised by their running statistics.

    It needs no hooks, so it sees those of any network that calls ``torch.nn.functional.batch_norm``; a program that
    was exported from one calls something else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moments: list[Tensor] = []
        self.shapes: list[torch.Size] = []
        """Of the input of each batch norm."""

    def moments(self, images: Tensor) -> Tensor:
        """Mean over the pixels of each input channel, and of its square, (N, 2, S); S is 0 where nothing was noted.

        Where a batch norm sees several rows of each image, such as its patches, they stand together, and the moments
        are those of them all. One that sees no whole number of rows of each, such as a part of the batch, is left out.

        Args:
            images: The batch that was classified, (N, C, H, W).
        """
        num = len(images)
        found = [block.view(num, -1, *block.shape[1:]).mean(dim=1) for block in self._moments if len(block) % num == 0]
        return torch.cat(found, dim=2) if found else images.new_zeros(num, 2, 0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            self._note(*args, **kwargs)
        return func(*args, **kwargs)

    def _note(
        self,
        input: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        if training:  # it has no statistics to compare with
            return
        self.shapes.append(input.shape)
        values = input.to(running_mean.dtype).flatten(2) if input.ndim > 2 else input.to(running_mean.dtype)[:, :, None]
        values = (values - running_mean[:, None]) * torch.rsqrt(running_var + eps)[:, None]  # (N, S, pixels)
        self._moments.append(torch.stack([values.mean(dim=2), values.square().mean(dim=2)], dim=1))


@torch.no_grad()
def _watched(classifier: InvertibleClassifier) -> tuple[Tensor, BatchNormInputs]:
    """Images, and what the batch norms of a frozen classifier see of them."""
    images = torch.zeros(2, *classifier.image_shape, device=classifier.device)
    inputs = BatchNormInputs()
    with inputs:
        classifier(images)
    return images, inputs


def has_batch_norm(classifier: InvertibleClassifier) -> bool:
    """Whether a frozen classifier has batch norms that can be watched."""
    images, inputs = _watched(classifier)
    return inputs.moments(images).shape[2] > 0


def norms_see_vectors(classifier: InvertibleClassifier) -> bool:
    """Whether a frozen classifier has batch norms, and all of them see one vector an image, as a perceptron's do."""
    images, inputs = _watched(classifier)
    return bool(inputs.shapes) and all(len(shape) == 2 and shape[0] == len(images) for shape in inputs.shapes)


def has_pixel_statistics(classifier: InvertibleClassifier) -> bool:
    """Whether it is known which mean and deviation a classifier's training images had.

    A mean of 0 or of 0.5 in every channel is a scale, such as that of pixels in 0..255 or -1..1, and nobody's images.
    """
    return not isinstance(classifier, AdaptedClassifier) or any(
        mean not in (0, 0.5) for mean in classifier.config.mean or ()
    )


def check_statistics(
    pixel_statistics: float, layer_statistics: float, classifier: InvertibleClassifier, where: str = ""
) -> None:
    """Make sure that a classifier has the statistics that the loss compares images with.

    Args:
        pixel_statistics: Weight of the term on mean and deviation of the pixels; 0 is off.
        layer_statistics: Weight of the term on the inputs of batch norms; 0 is off.
        classifier: The one to be inverted.
        where: What stands before the names of the weights in messages, such as ``invert.robust.``.

    Raises:
        InputError: It has not; says which weight asks for what.
    """
    if pixel_statistics and not has_pixel_statistics(classifier):
        raise InputError(
            f"{where}pixel_statistics needs the mean and std of the training images: set it to 0, or normalise the "
            "classifier's inputs by them (a mean of 0 or 0.5 is a scale, and tells nothing of images)."
        )
    if layer_statistics and not has_batch_norm(classifier):
        raise InputError(
            f"{where}layer_statistics needs a classifier with batch norm layers that see all images of a batch at "
            "once: set it to 0."
        )
