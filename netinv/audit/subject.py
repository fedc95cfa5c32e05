"""What is audited: the networks, the real images, the samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netinv.audit.policy import LeakPolicy, Policy
from netinv.audit.record import Files
from netinv.classifiers import (
    AdaptedClassifier,
    AdapterConfig,
    Classifier,
    InvertibleClassifier,
    adapt,
    predict,
)
from netinv.core import InputError, digest, network_digest
from netinv.data import LabelledImages, pixels, to_float
from netinv.evaluation import MIN_POOL, Pools


class Origin(NamedTuple):
    """Where the samples that are looked at stand in the set that was given."""

    places: NDArray[np.int64]
    """Of each of N samples, rising, (N,)."""
    num: int
    """Images of the whole set."""


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
    origins: dict[str, Origin]
    """Of the samples, by the name of the set."""

    def chosen(self, split: LabelledImages, num: int, stream: int) -> NDArray[np.int64]:
        """Indices of at most ``num`` random images of a split, in random order; streams are independent."""
        return np.random.default_rng([self.policy.seed, stream]).permutation(len(split.labels))[:num]

    def some(self, name: str, most: int) -> Tensor:
        """At most so many random samples (N, C, H, W) of a set."""
        images = self.samples[name]
        return images[_places(len(images), most, [self.policy.seed, 8, list(self.samples).index(name)])]

    def looked_at(self, most: int | None = None) -> str:
        """Of which sets only a part was looked at, as a sentence behind a space; empty if of none.

        Args:
            most: Samples that a check takes of each set; ``None`` is all that were chosen.
        """
        parts = []
        for name, origin in self.origins.items():
            num = len(origin.places) if most is None else min(most, len(origin.places))
            if num < origin.num:
                parts.append(f"{num:,} of the {origin.num:,} images of {name}")
        return f" Looked at, chosen at random: {' and '.join(parts)}." if parts else ""

    def pools(self) -> tuple[Pools | None, int]:
        """Training and test images in equal numbers, if there are enough to compare with; and how many."""
        most = (self.policy.leak or LeakPolicy()).pool
        size = min(most, len(self.train.labels), len(self.test.labels))
        if size < MIN_POOL or not self.samples:
            return None, size
        train, test = self.chosen(self.train, size, 0), self.chosen(self.test, size, 1)
        images = [to_float(split.images[i]) for split, i in ((self.train, train), (self.test, test))]
        return Pools(images[0], images[1], None, None, train, test), size


def sample_sets(samples: Any) -> dict[str, Tensor]:
    """Sets of samples by their names, as they are given: one alone is a set, too, and arrays are tensors.

    Raises:
        InputError: One of them is something else, or has no images in it, uint8 or floats in [0, 1].
    """
    sets = samples if isinstance(samples, Mapping) else {} if samples is None else {"samples": samples}
    for name, images in sets.items():
        if not isinstance(images, (Tensor, np.ndarray)):
            raise InputError(
                f"The set of samples {name} is of the type {type(images).__name__}: give images (N, C, H, W), such as "
                "inversion.sample(1000)."
            )
    return {name: pixels(torch.as_tensor(images), f"The samples {name}") for name, images in sets.items()}


def chosen_samples(samples: Mapping[str, Tensor], policy: Policy) -> tuple[dict[str, Tensor], dict[str, Origin]]:
    """Of each set the samples that are looked at, and where they stand in it: all, or as many as the policy bounds.

    They are chosen at random from the whole set, so that nothing is passed over for its place, and keep its order.

    Args:
        samples: (N, C, H, W), uint8 or float in [0, 1], by the name of the set.
        policy: Gives the bound and the seed.
    """
    chosen, origins = dict[str, Tensor](), dict[str, Origin]()
    for i, (name, images) in enumerate(samples.items()):
        places = _places(len(images), policy.samples, [policy.seed, 7, i])
        chosen[name] = to_float(images[places.to(images.device)]).cpu()
        origins[name] = Origin(places.numpy(), len(images))
    return chosen, origins


def _places(num: int, most: int, seeds: list[int]) -> Tensor:
    """At most so many random places of ``num``, rising, int64."""
    return torch.from_numpy(np.sort(np.random.default_rng(seeds).permutation(num)[:most]))


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
    if evaluator is not None and (evaluator.num_classes, evaluator.image_shape) != (
        classifier.num_classes,
        classifier.image_shape,
    ):
        raise InputError("The evaluator takes other images or knows other classes than the classifier: give another.")
    highest = int(max(train.labels.max(), test.labels.max()))
    if highest >= classifier.num_classes:
        raise InputError(f"The data have the class {highest}, but the classifier knows {classifier.num_classes}.")


def invertible(
    network: nn.Module, like: Tensor, num_classes: int | None = None, adapter: AdapterConfig | None = None
) -> InvertibleClassifier:
    """A network as it is asked: one of this library's own, or adapted already, as it is, any other behind an adapter.

    Args:
        network: It.
        like: Images (N, C, H, W) of the kind that it takes.
        num_classes: K; ``None`` takes the network's word for it.
        adapter: What it takes and gives.

    Raises:
        InputError: It fails on such images, or is adapted already in another way.
    """
    if isinstance(network, Classifier) and adapter is None:
        return network
    channels, height, width = like.shape[1:]
    known = network.image_shape if isinstance(network, AdaptedClassifier) else (channels, height, width)
    return adapt(network, known, num_classes, adapter)


def module_of(classifier: InvertibleClassifier) -> Any:
    """The network itself, without its adapter."""
    return classifier.network if isinstance(classifier, AdaptedClassifier) else classifier


def model_files(name: str, classifier: InvertibleClassifier) -> Files:
    """A classifier's name, the digest of its weights, and how many there are."""
    module = module_of(classifier)
    num = sum(parameter.numel() for parameter in module.parameters())
    return Files(name=name, sha256=network_digest(module), num=num)


def image_files(name: str, images: Tensor, labels: Tensor | None = None) -> Files:
    """A set of images: its name, digest and size."""
    tensors = {"images": images} | ({} if labels is None else {"labels": labels})
    return Files(name=name, sha256=digest(tensors), num=len(images))
