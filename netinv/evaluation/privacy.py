"""Privacy audit: do generated images lie closer to the training images than to images the classifier never saw?

A nearest distance alone says nothing, since it shrinks as the pool grows. So the pools are of equal size, training
images against test images, and the difference of the two distances is judged by a permutation test: if nothing was
memorised, the names "train" and "test" are exchangeable, and permuting them shows what chance can do. That
holds however alike the generated images are, where resampling them alone would take a lucky neighbour for evidence.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from netinv.evaluation.judging import COPY_QUANTILE, DECISIVE, MAX_COPIES, SIGNIFICANCE, Different, bound, judged
from netinv.evaluation.metrics import nearest_neighbours, ssim
from netinv.results import (
    LEVEL,
    MIN_SAMPLES,
    Audit,
    Bootstrap,
    Comparison,
    Estimate,
    Measure,
    NotMeasured,
    Pair,
    spread_within,
)

MIN_POOL = 50
"""Fewer images than this on either side prove nothing."""
NEIGHBOURS = 12
"""Nearest real images that are kept of each generated one.

That all of them lie in one pool happens by chance once in 2,000 images; the distance to the other pool is then taken
as that to the last of them."""
BLOCK = 50
"""Permutations at a time."""
MEMBERSHIP_ALARM = 0.6
"""An area under the ROC curve that lies above this, interval and all, is a leak. Any classifier is a little surer of
what it was trained on: with enough images to measure it, 0.5 is always exceeded."""

Distance = Literal["pixel", "ssim", "feature"]


class Neighbours(NamedTuple):
    """The nearest real images of N queries, nearest first."""

    distance: NDArray[np.float64]
    """(N, NEIGHBOURS)."""
    member: NDArray[np.int64]
    """Indices into the joint pool, (N, NEIGHBOURS)."""


class Pools:
    """Training and test images in equal numbers, joined: the training images first.

    Args:
        train: Training images, (N, C, H, W) in [0, 1], as many as test images.
        test: Test images, likewise.
        train_features: Features of the training images, (N, D), or ``None``.
        test_features: Features of the test images.
        train_index: Index of each training image in its split.
        test_index: Index of each test image in its split.

    Raises:
        ValueError: The pools differ in size or are too small.
    """

    def __init__(
        self,
        train: Tensor,
        test: Tensor,
        train_features: Tensor | None,
        test_features: Tensor | None,
        train_index: NDArray[np.int64],
        test_index: NDArray[np.int64],
    ) -> None:
        if len(train) != len(test) or len(train) < MIN_POOL:
            raise ValueError(f"Expected pools of one size of at least {MIN_POOL}, got {len(train)} and {len(test)}")
        self.size = len(train)
        self.images = torch.cat([train, test])
        self.features: Tensor | None = None
        if train_features is not None and test_features is not None:
            self.features = F.normalize(torch.cat([train_features, test_features]), dim=1)
        self.index = np.concatenate([train_index, test_index])
        self.is_train = np.arange(2 * self.size) < self.size
        control = slice(self.size, self.size + 1000)  # test images, searched for among the training images
        features = self.features[control] if self.features is not None else None
        controls = self.neighbours(self.images[control], features, size=self.size)
        self.copy_distance = {
            kind: float(np.quantile(found.distance[:, 0], COPY_QUANTILE)) for kind, found in controls.items()
        }

    def neighbours(
        self, images: Tensor, features: Tensor | None, size: int | None = None
    ) -> dict[Distance, Neighbours]:
        """Nearest members of the joint pool, or of its first ``size`` members, by each kind of distance."""
        pixel = _nearest(images.flatten(1), self.images.flatten(1)[:size])
        found: dict[Distance, Neighbours] = {"pixel": pixel}
        if min(images.shape[-2:]) >= 7:
            # Structural similarity to all of the pool is out of reach: to the nearest by pixels.
            dissimilarity = np.stack([1 - ssim(images, self.images[near]).numpy() for near in pixel.member.T], axis=1)
            order = dissimilarity.argsort(axis=1, kind="stable")
            found["ssim"] = Neighbours(
                np.take_along_axis(dissimilarity, order, axis=1), np.take_along_axis(pixel.member, order, axis=1)
            )
        if features is not None and self.features is not None:
            found["feature"] = _nearest(F.normalize(features, dim=1), self.features[:size])
        return found


def _nearest(queries: Tensor, pool: Tensor) -> Neighbours:
    distance, index = nearest_neighbours(queries, pool, NEIGHBOURS)
    return Neighbours(distance.numpy(), index.numpy())


def memorisation_test(
    pools: Pools,
    images: Tensor,
    features: Tensor | None,
    label: Tensor,
    num_classes: int,
    seed: int,
    permutations: int = 1000,
    sets: int = 1,
    significance: float = SIGNIFICANCE,
    max_copies: float = MAX_COPIES,
) -> Audit:
    """Audit generated images.

    Args:
        pools: The real images.
        images: (N, C, H, W) in [0, 1].
        features: Features of the images under the network that gave the pools' features, (N, D).
        label: Wanted label, (N,), int64.
        num_classes: K.
        seed: Seed of the permutations.
        permutations: How often the names "train" and "test" are permuted at least; more often where that leaves open
            whether a p-value of a distance that decides lies below its bound.
        sets: Sets of samples that are audited together: their chance of a false alarm is that of one.
        significance: That chance.
        max_copies: Near copies of training images beyond those of test images, as a share of the images, above which
            the different ones among them are counted.
    """
    if len(images) < MIN_SAMPLES:
        return not_audited(f"{len(images)} samples, at least {MIN_SAMPLES} are needed")
    labels, neighbours = label.numpy(), pools.neighbours(images, features)

    def compared(num: int) -> dict[Distance, Comparison]:
        return {
            kind: _compare(
                found,
                pools.is_train,
                _permuted(pools.is_train, num, seed),
                pools.copy_distance[kind],
                labels,
                num_classes,
                seed,
            )
            for kind, found in neighbours.items()
        }

    made, enough = compared(permutations), math.ceil(3 / bound(len(DECISIVE), sets, significance))
    deciding = [made[kind] for kind in made if kind in DECISIVE]
    doubtful = max(significance, 1 / (1 + permutations))  # the least p-value there can be stands for any below
    if permutations < enough and any(min(c.p_value, c.copies_p_value) <= doubtful for c in deciding):
        made = compared(enough)
    comparisons: dict[str, Comparison | NotMeasured] = {
        "ssim": NotMeasured(not_measured="the images are smaller than the 7 x 7 window"),
        "feature": NotMeasured(not_measured="no evaluator was given"),
    }
    different: dict[str, Different] = {}
    pairs: list[Pair] = []
    for kind, found in neighbours.items():
        comparisons[kind] = made[kind]
        different[kind] = _different(found, pools.is_train, pools.copy_distance[kind])
        pairs += _closest_pairs(kind, found, pools, labels, images)
    memorised, verdict = judged(comparisons, different, sets, significance, max_copies)
    return Audit(verdict=verdict, memorised=memorised, pool=pools.size, comparisons=comparisons, pairs=tuple(pairs))


def membership(
    train_logits: Tensor, train_label: Tensor, test_logits: Tensor, test_label: Tensor, bootstrap: Bootstrap
) -> Measure:
    """How well the classifier's loss tells its training images from others: the area under the ROC curve, AUC.

    0.5 is chance, 1 is certainty. The simplest membership inference attack: what the classifier is surer of, it has
    seen. It asks the classifier itself, so it finds a memory that the generated images do not show.

    Args:
        train_logits: Of the classifier on training images, (N, K).
        train_label: (N,), int64.
        test_logits: On images that it never saw, (M, K).
        test_label: (M,), int64.
        bootstrap: Gives the interval.

    Source: Yeom and others, Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting (2018).
    """
    fewest = min(len(train_label), len(test_label))
    if fewest < MIN_POOL:
        return NotMeasured(not_measured=f"{fewest} real images on one side, at least {MIN_POOL} are needed")
    train = -F.cross_entropy(train_logits.double(), train_label, reduction="none").numpy()
    test = -F.cross_entropy(test_logits.double(), test_label, reduction="none").numpy()
    return roc_auc(train, test, bootstrap)


def roc_auc(positive: NDArray[np.float64], negative: NDArray[np.float64], bootstrap: Bootstrap) -> Measure:
    """Area under the ROC curve of scores (N,) and (M,), with an interval from resampling both sides."""
    draws = zip(bootstrap.draws(len(positive), 0), bootstrap.draws(len(negative), 1), strict=True)
    replicates = [_auc(positive[i], negative[j]) for i, j in draws]
    return spread_within(_auc(positive, negative), replicates, min(len(positive), len(negative)))


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Chance that a positive score exceeds a negative one, ties counted half."""
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))


def not_audited(why: str) -> Audit:
    """The audit of what cannot be audited."""
    return Audit(verdict=f"Not audited: {why}.", memorised=None, pool=0, comparisons={}, pairs=())


def _split(found: Neighbours, is_train: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Place among the neighbours of the nearest training and of the nearest test image.

    Args:
        found: Neighbours of N queries.
        is_train: The names as they are, or permuted, (..., P) for a joint pool of P.

    Returns:
        Both (..., N). Where all neighbours are of one name, the last one stands in for the other.
    """
    inside = is_train[..., found.member]  # (..., N, NEIGHBOURS)
    last = NEIGHBOURS - 1
    train = np.where(inside.any(axis=-1), inside.argmax(axis=-1), last)
    test = np.where(inside.all(axis=-1), last, inside.argmin(axis=-1))
    return train, test


def _distances(found: Neighbours, is_train: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance to the nearest training and to the nearest test image, (..., N) each."""
    rows = np.arange(len(found.distance))
    train, test = _split(found, is_train)
    return found.distance[rows, train], found.distance[rows, test]


def _permuted(is_train: NDArray[np.bool_], num: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """The names dealt out anew, so often, (num, P), a block at a time: all at once may take gigabytes."""
    rng = np.random.default_rng(seed)
    for begin in range(0, num, BLOCK):
        yield rng.permuted(np.tile(is_train, (min(BLOCK, num - begin), 1)), axis=1)


def _different(found: Neighbours, is_train: NDArray[np.bool_], copy_distance: float) -> Different:
    nearest, near = found.member[:, 0], found.distance[:, 0] < copy_distance
    return Different(len(np.unique(nearest)), len(np.unique(nearest[near & is_train[nearest]])))


def _compare(
    found: Neighbours,
    is_train: NDArray[np.bool_],
    permuted: Iterable[NDArray[np.bool_]],
    copy_distance: float,
    labels: NDArray[np.int64],
    num_classes: int,
    seed: int,
) -> Comparison:
    member = labels[:, None] == np.arange(num_classes)  # (N, K)
    counts = member.sum(axis=0)

    def statistics(is_train: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Mean difference, surplus of near copies, and mean difference of each class, (..., 2 + K)."""
        train, test = _distances(found, is_train)
        difference = train - test
        surplus = (train < copy_distance).mean(axis=-1) - (test < copy_distance).mean(axis=-1)
        by_class = difference @ member / np.maximum(1, counts)
        return np.concatenate([difference.mean(axis=-1)[..., None], surplus[..., None], by_class], axis=-1)

    observed = statistics(is_train)
    chance = np.concatenate([statistics(block) for block in permuted])  # (R, 2 + K)
    low, high = np.quantile(chance, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)

    def estimate(i: int, n: int) -> Measure:
        if n < MIN_SAMPLES:
            return NotMeasured(not_measured=f"{n} samples, at least {MIN_SAMPLES} are needed")
        value = float(observed[i])
        return Estimate(value=value, low=value - float(high[i]), high=value - float(low[i]), n=n)

    bootstrap = Bootstrap(seed)
    train, test = _distances(found, is_train)
    return Comparison(
        train=bootstrap.mean(train),
        test=bootstrap.mean(test),
        train_minus_test=estimate(0, len(labels)),
        p_value=_p_value(chance[:, 0] <= observed[0]),
        copies_train=bootstrap.mean(train < copy_distance),
        copies_test=bootstrap.mean(test < copy_distance),
        copies_p_value=_p_value(chance[:, 1] >= observed[1]),
        copy_distance=copy_distance,
        by_class=tuple(estimate(2 + k, int(count)) for k, count in enumerate(counts)),
    )


def _p_value(as_extreme: NDArray[np.bool_]) -> float:
    """Share of the permutations, the real names counted among them, so that it is never 0."""
    return float((1 + as_extreme.sum()) / (1 + len(as_extreme)))


def _closest_pairs(
    kind: Distance, found: Neighbours, pools: Pools, labels: NDArray[np.int64], images: Tensor
) -> list[Pair]:
    """For each class that appears, the sample with the smallest distance to a training image."""
    first_train, first_test = _split(found, pools.is_train)
    train_distance, test_distance = _distances(found, pools.is_train)
    pairs = []
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k)
        sample = members[train_distance[members].argmin()]
        pairs.append(
            Pair(
                distance=kind,
                label=int(k),
                sample=int(sample),
                train=_shown(pools, found.member[sample, first_train[sample]], images[sample], train=True),
                test=_shown(pools, found.member[sample, first_test[sample]], images[sample], train=False),
                train_distance=float(train_distance[sample]),
                test_distance=float(test_distance[sample]),
            )
        )
    return pairs


def _shown(pools: Pools, member: int, image: Tensor, train: bool) -> int:
    """Index in its split of the real image beside a sample; by pixels, where no neighbour is of that split."""
    if pools.is_train[member] != train:
        pool = pools.images.flatten(1)[pools.is_train == train]
        member = int(_nearest(image.flatten()[None], pool).member[0, 0]) + (0 if train else pools.size)
    return int(pools.index[member])
