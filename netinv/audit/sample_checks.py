"""The questions of an audit about generated images: do they leak, and which training images can be recognised?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netinv.audit.checks import concluded, few
from netinv.audit.policy import LeakPolicy, ReconstructionPolicy
from netinv.audit.reconstruction import Nearest, nearest_samples, p_values, recognised
from netinv.audit.record import Check, Number, Outcome, Recognised
from netinv.audit.subject import Subject, answers
from netinv.data import shared, to_float, to_uint8
from netinv.evaluation import DECISIVE, Pools, memorisation_test, surplus
from netinv.results import Audit, Comparison

NO_LEAK = "Samples lie no closer to training images than to test images, and hold no surplus of near copies."
NO_SAMPLES = "Not asked: no generated images were given."
SHOWN = 12
"""Training images that are listed at most, and shown."""
CLOSEST = 3
"""Closest training images that are listed beside, although they are not named."""


def check_leak(subject: Subject, policy: LeakPolicy, pools: Pools | None, size: int) -> Check:
    """Whether generated images lie closer to training images than to test images."""
    if not subject.samples:
        return Check(name="leak", outcome="skipped", finding=NO_SAMPLES)
    shortage = few(policy.min_pool, real_images_on_one_side=size) or few(
        policy.min_samples, samples=min(map(len, subject.samples.values()))
    )
    seen = subject.looked_at()
    if pools is None:
        return Check(name="leak", outcome="investigate", finding=f"Too few samples for a pass: {shortage}.{seen}")
    numbers: list[Number] = []
    audits: dict[str, Audit] = {}
    for name, images in subject.samples.items():
        label = answers(subject.classifier, images).argmax(dim=1)
        found = audits[name] = memorisation_test(
            pools,
            images,
            None,
            label,
            subject.classifier.num_classes,
            subject.policy.seed,
            sets=len(subject.samples),
            significance=policy.significance,
            max_copies=policy.max_copies,
        )
        made = {kind: c for kind in DECISIVE if isinstance(c := found.comparisons.get(kind), Comparison)}
        numbers += [number for kind, c in made.items() for number in _numbers(name, kind, c, policy.max_copies)]
    # What lies beyond its limit has been judged already: samples that repeat one image are no independent ones.
    outcome, why = concluded([number for number in numbers if number.outcome != "fail"], shortage)
    if any(found.memorised for found in audits.values()):
        outcome, why = "fail", ""
    elif any(found.memorised is None for found in audits.values()):
        outcome = "investigate"
    told = [f"In {name}: {found.verdict}" for name, found in audits.items() if found.memorised is not False]
    finding = " ".join(filter(None, [why, *told])) or NO_LEAK
    return Check(name="leak", outcome=outcome, finding=finding + seen, numbers=tuple(numbers))


def _numbers(name: str, kind: str, found: Comparison, max_copies: float) -> list[Number]:
    """Of one set of samples and one distance."""
    return [
        Number(
            name=f"{name}: train_minus_test, {kind}",
            meaning=f"Distance of {name} to the nearest training image less that to the nearest test image ({kind})",
            measure=found.train_minus_test,
        ),
        Number(
            name=f"{name}: surplus of near copies, {kind}",
            meaning=f"Near copies of training images in {name}, less those of test images ({kind})",
            measure=surplus(found),
            at_most=max_copies,
        ),
    ]


class _Found(NamedTuple):
    """What is known of every real image that was searched for."""

    train: Nearest
    test: Nearest
    flagged: NDArray[np.int64]


def check_reconstruction(
    subject: Subject, policy: ReconstructionPolicy, pools: Pools | None, size: int
) -> tuple[Check, tuple[Recognised, ...], int]:
    """Which training images can be recognised: the check, the pairs, and how many training images are named."""

    def check(outcome: Outcome, finding: str) -> Check:
        return Check(name="reconstruction", outcome=outcome, finding=finding + subject.looked_at())

    if not subject.samples:
        return check("skipped", NO_SAMPLES), (), 0
    wanted = subject.policy.leak.min_pool if subject.policy.leak is not None else 0
    reason = few(max(wanted, math.ceil(1 / policy.false_alarms)), real_images_on_one_side=size) or few(
        policy.min_samples, samples=min(map(len, subject.samples.values()))
    )
    shortage = f"Too few samples for a pass: {reason}." if reason else ""
    if pools is None:
        return check("investigate", shortage), (), 0
    together = torch.cat(list(subject.samples.values()))
    copied = _copied(subject, together)
    further = np.setdiff1d(copied, pools.index[:size])
    index = np.concatenate([pools.index[:size], further])
    searched = torch.cat([pools.images[:size], to_float(subject.train.images[torch.from_numpy(further)])])
    train, test = nearest_samples(searched, together), nearest_samples(pools.images[size:], together)
    near = pools.copy_distance["ssim" if "ssim" in pools.copy_distance else "pixel"]
    # What is no nearer than two real images are is not recognised, however significant it may be.
    p = np.where(train.distance < near, p_values(train.distance, test.distance), 1.0)
    likely = recognised(p[:size], policy.false_alarms)
    flagged = np.union1d(likely, np.flatnonzero(np.isin(index, copied)))
    pairs = _pairs(subject, index, pools.index[size:], _Found(train, test, flagged))
    told = []
    if len(copied):
        told.append(
            f"{len(copied):,} of all {len(subject.train.labels):,} training images are among the samples, pixel for "
            "pixel: look at the pairs."
        )
    if len(likely):
        told.append(
            f"{len(likely)} of {size} training images can be recognised in the samples, of which about "
            f"{100 * policy.false_alarms:.4g}% are expected to be false alarms: look at the pairs."
        )
    if told:
        return check("investigate", " ".join(told)), pairs, len(flagged)
    finding = (
        f"The samples show none of {size} training images more closely than chance explains, at a rate of "
        f"{100 * policy.false_alarms:.4g}% of false alarms. {shortage}"
    ).strip()
    return check("investigate" if shortage else "pass", finding), pairs, 0


def _copied(subject: Subject, samples: Tensor) -> NDArray[np.int64]:
    """Indices of the training images that are samples, too, pixel for pixel in 8 bits, and that are no test images."""
    train, test = to_uint8(subject.train.images), to_uint8(subject.test.images)
    return np.setdiff1d(shared(to_uint8(samples), train), shared(test, train)).astype(np.int64)


def _pairs(
    subject: Subject, train_index: NDArray[np.int64], test_index: NDArray[np.int64], found: _Found
) -> tuple[Recognised, ...]:
    """The training images that are named, and the closest others, each beside the test image of the same rank."""
    names: Sequence[str] = list(subject.samples)
    ends = np.cumsum([len(images) for images in subject.samples.values()])

    def place(sample: int) -> tuple[str, int]:
        """Set, and index in the whole of it, of a sample among all that are looked at."""
        i = int(np.searchsorted(ends, sample, side="right"))
        return names[i], int(subject.origins[names[i]].places[sample - (ends[i - 1] if i else 0)])

    flagged = set(found.flagged.tolist())
    order = found.train.distance.argsort(kind="stable")
    controls = found.test.distance.argsort(kind="stable")
    ranked = list(enumerate(order))
    rows = [each for each in ranked if each[1] in flagged][:SHOWN]
    rows += [each for each in ranked if each[1] not in flagged][:CLOSEST]
    pairs = []
    for rank, i in rows:
        # Copies are searched for among all training images: the last ranks may have no test image.
        (samples, sample), control = place(int(found.train.sample[i])), controls[min(rank, len(controls) - 1)]
        control_samples, control_sample = place(int(found.test.sample[control]))
        pairs.append(
            Recognised(
                flagged=i in flagged,
                train=int(train_index[i]),
                samples=samples,
                sample=sample,
                distance=float(found.train.distance[i]),
                p_value=float(p_values(found.train.distance[i : i + 1], found.test.distance)[0]),
                control=int(test_index[control]),
                control_samples=control_samples,
                control_sample=control_sample,
                control_distance=float(found.test.distance[control]),
            )
        )
    return tuple(pairs)
