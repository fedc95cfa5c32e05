"""What is audited: the networks, the real images, the samples."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netinv.audit.policy import Policy
from netinv.audit.record import Files
from netinv.classifiers import AdaptedClassifier, InvertibleClassifier, predict
from netinv.core import InputError
from netinv.data import LabelledImages, to_float
from netinv.evaluation import MIN_POOL, Pools


@dataclass(frozen=True)
class Subject:
    """What is audited, and by which policy."""

    classifier: InvertibleClassifier
    evaluator: InvertibleClassifier | None
    train: LabelledImages
    test: LabelledImages
    samples: dict[str, Tensor]
    """(N, C, H, W) in [0, 1], by the name of the set; on the CPU."""
    policy: Policy

    def chosen(self, split: LabelledImages, num: int, stream: int) -> NDArray[np.int64]:
        """Indices of at most ``num`` random images of a split, in random order; streams are independent."""
        return np.random.default_rng([self.policy.seed, stream]).permutation(len(split.labels))[:num]

    def pools(self) -> tuple[Pools | None, int]:
        """Training and test images in equal numbers, if there are enough to compare with; and how many."""
        most = self.policy.leak.pool if self.policy.leak is not None else 5000
        size = min(most, len(self.train.labels), len(self.test.labels))
        if size < MIN_POOL or not self.samples:
            return None, size
        train, test = self.chosen(self.train, size, 0), self.chosen(self.test, size, 1)
        images = [to_float(split.images[i]) for split, i in ((self.train, train), (self.test, test))]
        return Pools(images[0], images[1], None, None, train, test), size


def taken(split: LabelledImages, index: NDArray[np.int64]) -> LabelledImages:
    """Some images of a split."""
    chosen = torch.from_numpy(index)
    return LabelledImages(split.images[chosen], split.labels[chosen])


def answers(classifier: InvertibleClassifier, images: Tensor) -> Tensor:
    """Logits (N, K) on the CPU of images, uint8 or float in [0, 1].

    Raises:
        InputError: They are not finite.
    """
    logits, _ = predict(classifier, images)
    if not torch.isfinite(logits).all():
        raise InputError("The classifier gives values that are not finite for these images: mend it before its audit.")
    return logits.cpu()


def expect_fitting(
    classifier: InvertibleClassifier,
    evaluator: InvertibleClassifier | None,
    train: LabelledImages,
    test: LabelledImages,
    samples: Mapping[str, Tensor],
) -> None:
    """Refuse what cannot be audited together.

    Raises:
        InputError: Names what does not fit.
    """
    shapes = {"the training split": train.images, "the test split": test.images}
    shapes |= {f"the set of samples {name}": images for name, images in samples.items()}
    for name, images in shapes.items():
        if tuple(images.shape[1:]) != tuple(classifier.image_shape):
            raise InputError(
                f"The classifier takes images of shape {tuple(classifier.image_shape)}, but {name} has "
                f"{tuple(images.shape[1:])}: give that shape to both."
            )
        if not len(images):
            raise InputError(f"There are no images in {name}: give some.")
    for name, images in samples.items():
        if not (bool(torch.isfinite(images).all()) and 0 <= float(images.min()) <= float(images.max()) <= 1):
            raise InputError(f"The set of samples {name} has values outside of [0, 1]: draw it again.")
    if evaluator is not None and (evaluator.num_classes, evaluator.image_shape) != (
        classifier.num_classes,
        classifier.image_shape,
    ):
        raise InputError("The evaluator takes other images or knows other classes than the classifier: give another.")
    highest = int(max(train.labels.max(), test.labels.max()))
    if highest >= classifier.num_classes:
        raise InputError(f"The data have the class {highest}, but the classifier knows {classifier.num_classes}.")


def module_of(classifier: InvertibleClassifier) -> Any:
    """The network itself, without its adapter."""
    return classifier.network if isinstance(classifier, AdaptedClassifier) else classifier


def model_files(name: str, classifier: InvertibleClassifier) -> Files:
    """A classifier's name, the digest of its weights, and how many there are."""
    module = module_of(classifier)
    num = sum(parameter.numel() for parameter in module.parameters())
    return Files(name=name, sha256=digest(module.state_dict()), num=num)


def image_files(name: str, images: Tensor, labels: Tensor | None = None) -> Files:
    """A set of images: its name, digest and size."""
    tensors = {"images": images} | ({} if labels is None else {"labels": labels})
    return Files(name=name, sha256=digest(tensors), num=len(images))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name, whatever their order, device and place in memory."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()
