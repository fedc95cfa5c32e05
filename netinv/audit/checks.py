"""The questions of an audit about a classifier and its data: strangers, membership, robustness, agreement.

Each gives a check.
"""

from collections.abc import Sequence

import numpy as np
import torch

from netinv.audit.intervals import share, true_positive_rate
from netinv.audit.lira import confidence, scores
from netinv.audit.policy import AgreementPolicy, MembershipPolicy, RobustnessPolicy, ShadowConfig, StrangersPolicy
from netinv.audit.record import Check, Number, Outcome, gravest
from netinv.audit.shadows import train_shadows
from netinv.audit.subject import Subject, answers, taken
from netinv.classifiers import frozen
from netinv.data import LabelledImages, shared, to_float
from netinv.evaluation import MIN_POOL, membership, roc_auc
from netinv.perturbations import robust_mask
from netinv.results import Bootstrap, Estimate, Measure, NotMeasured

RATES = (0.001, 0.01)
"""False positive rates that are reported whatever the policy."""

NO_SHARED = "No test image is a training image."
DIVERGED = NotMeasured(
    not_measured="the training of a shadow model diverged; lower membership.shadows.lr in the policy, or take "
    "architecture: stand_in"
)


def concluded(numbers: Sequence[Number], shortage: str = "") -> tuple[Outcome, str]:
    """The outcome that numbers lead to, and a sentence on those that hold up a pass.

    Args:
        numbers: All of a check.
        shortage: Why there are too few samples for a pass; empty if there are enough.
    """
    outcome = gravest(number.outcome for number in numbers)
    sentences = []
    for number in numbers:
        if number.outcome in ("fail", "investigate"):
            side, limit = ("above", number.at_most) if number.at_most is not None else ("below", number.at_least)
            how = f"is {side}" if number.outcome == "fail" else f"may be {side}"
            if isinstance(number.measure, NotMeasured):
                sentences.append(f"{number.meaning} was {number.measure}.")
            else:
                sentences.append(f"{number.meaning} {how} the limit of {limit:.3g}: {number.measure}.")
    if shortage and outcome != "fail":
        return "investigate", " ".join([f"Too few samples for a pass: {shortage}.", *sentences])
    return outcome, " ".join(sentences)


def few(wanted: int, **counts: int) -> str:
    """Which counts are below what is wanted, as a clause; empty if none is."""
    short = [f"{num} {name.replace('_', ' ')}" for name, num in counts.items() if num < wanted]
    return f"{' and '.join(short)}, where {wanted} are wanted" if short else ""


def check_strangers(subject: Subject, policy: StrangersPolicy) -> Check:
    """Whether test images are none of the training images. All of them are compared: nothing is uncertain."""
    count, num = len(shared(subject.train.images, subject.test.images)), len(subject.test.labels)
    part = count / num
    number = Number(
        name="shared",
        meaning="Share of test images that are training images too",
        measure=Estimate(value=part, low=part, high=part, n=num),
        at_most=policy.max_shared,
    )
    outcome, why = concluded([number])
    finding = f"{count:,} of {num:,} test images are training images too, pixel for pixel."
    if why:
        finding += " Accuracies are too high, and what other checks find between training and test images means little."
    return Check(name="strangers", outcome=outcome, finding=finding if count else NO_SHARED, numbers=(number,))


def check_membership(subject: Subject, policy: MembershipPolicy) -> tuple[Check, str]:
    """Whether answers tell training images from others; and what the shadow models were."""
    splits = (subject.train, subject.test)
    # Of unequal sizes where they are: every stranger makes the intervals narrower.
    parts = [taken(split, subject.chosen(split, policy.images, i + 3)) for i, split in enumerate(splits)]
    size = min(len(part.labels) for part in parts)
    if size < MIN_POOL:
        reason = few(policy.min_images, real_images_on_one_side=size)
        return Check(name="membership", outcome="investigate", finding=f"Too few samples for a pass: {reason}."), ""
    logits = [answers(subject.classifier, part.images) for part in parts]
    labels = [part.labels for part in parts]
    read = [x.argmax(dim=1) == y for x, y in zip(logits, labels, strict=True)]
    numbers = [
        Number(
            name=f"{split}_accuracy",
            meaning=f"Accuracy on {name} images",
            measure=share(int(right.sum()), len(right)),
        )
        for split, name, right in zip(("train", "test"), ("training", "test"), read, strict=True)
    ]
    numbers.append(
        Number(
            name="loss_auc",
            meaning="How well the loss tells training images from others (area under the ROC curve)",
            measure=membership(logits[0], labels[0], logits[1], labels[1], Bootstrap(subject.policy.seed)),
            at_most=policy.max_auc,
        )
    )
    shadows = ""
    if policy.shadows is not None:
        found, shadows = _likelihood_ratio(subject, policy, policy.shadows, parts, logits)
        numbers += found
    outcome, why = concluded(numbers, few(policy.min_images, real_images_on_one_side=size))
    finding = why or "Its answers do not tell its training images from others beyond the policy's limits."
    return Check(name="membership", outcome=outcome, finding=finding, numbers=tuple(numbers)), shadows


def _likelihood_ratio(
    subject: Subject,
    policy: MembershipPolicy,
    training: ShadowConfig,
    parts: list[LabelledImages],
    logits: list[torch.Tensor],
) -> tuple[list[Number], str]:
    """The numbers of LiRA, and what its shadow models were; empty words where they could not be trained."""
    rates = sorted({*RATES, policy.false_positive_rate})
    images = [part.images for part in parts]
    if len({x.dtype for x in images}) > 1:  # joined as they are, some would reach to 255
        images = [to_float(x) for x in images]
    both = LabelledImages(torch.cat(images), torch.cat([part.labels for part in parts]))
    try:
        shadows = train_shadows(subject.classifier, both, training, subject.policy.seed)
    except FloatingPointError:
        return _ratio_numbers(policy, DIVERGED, dict.fromkeys(rates, DIVERGED)), ""
    target = confidence(torch.cat(logits), both.labels)
    score = scores(target, shadows.confidence, shadows.is_out)
    members, others = np.split(score, [len(parts[0].labels)])
    found = {rate: true_positive_rate(members, others, rate) for rate in rates}
    numbers = _ratio_numbers(policy, roc_auc(members, others, Bootstrap(subject.policy.seed)), found)
    return numbers, f"{shadows.architecture}, right on {shadows.accuracy.mean():.1%} of the images that they never saw"


def _ratio_numbers(policy: MembershipPolicy, auc: Measure, found: dict[float, Measure]) -> list[Number]:
    """The numbers of LiRA: the area under its ROC curve, and what it finds by the rate of false positives."""
    whole = Number(
        name="likelihood_ratio_auc",
        meaning="How well the likelihood ratio tells training images from others (area under the ROC curve)",
        measure=auc,
        at_most=policy.max_auc,
    )
    shares = [
        Number(
            name=f"true_positive_rate_at_{rate:g}",
            meaning=f"Share of training images that the likelihood ratio finds at {100 * rate:.4g}% false positives",
            measure=measure,
            at_most=policy.max_true_positive_rate if rate == policy.false_positive_rate else None,
        )
        for rate, measure in found.items()
    ]
    return [whole, *shares]


def check_robustness(subject: Subject, policy: RobustnessPolicy) -> Check:
    """Whether answers survive a change too small to be seen."""
    part = taken(subject.test, subject.chosen(subject.test, policy.images, 5))
    device = subject.classifier.device
    images, label = to_float(part.images).to(device), part.labels.to(device)
    with frozen(subject.classifier):
        kept = robust_mask(
            subject.classifier, images, label, policy.epsilon, policy.attack_steps, seed=subject.policy.seed
        )
    number = Number(
        name=f"accuracy_at_{policy.epsilon:.3g}",
        meaning=f"Accuracy on test images under an attack of at most {policy.epsilon:.3g}",
        measure=share(int(kept.sum()), len(kept)),
        at_least=policy.min_accuracy,
    )
    outcome, why = concluded([number], few(policy.min_images, test_images=len(kept)))
    finding = why or f"It keeps enough of its answers under changes of at most {policy.epsilon:.3g} a pixel."
    return Check(name="robustness", outcome=outcome, finding=finding, numbers=(number,))


def check_agreement(subject: Subject, policy: AgreementPolicy) -> Check:
    """Whether an independent classifier gives the same answers."""
    if subject.evaluator is None:
        return Check(name="agreement", outcome="skipped", finding="Not asked: no independent classifier was given.")
    part = taken(subject.test, subject.chosen(subject.test, policy.images, 6))
    sets = {"test images": part.images} | {name: subject.some(name, policy.images) for name in subject.samples}
    numbers = []
    for name, images in sets.items():
        same = answers(subject.classifier, images).argmax(dim=1) == answers(subject.evaluator, images).argmax(dim=1)
        numbers.append(
            Number(
                name=f"agreement_on_{name.replace(' ', '_')}",
                meaning=f"Share of {name} that both classifiers read alike",
                measure=share(int(same.sum()), len(same)),
                at_least=policy.min_on_test if name == "test images" else policy.min_on_samples,
            )
        )
    asked = [len(images) for images, number in zip(sets.values(), numbers, strict=True) if number.at_least is not None]
    outcome, why = concluded(numbers, few(policy.min_images, images_of_a_set=min(asked)) if asked else "")
    finding = why or "An independent classifier gives the same answers as often as the policy asks."
    if not asked:
        finding = "Not asked: the policy has no limit on agreement, which is only reported."
    finding += subject.looked_at(policy.images)
    return Check(name="agreement", outcome=outcome, finding=finding, numbers=tuple(numbers))
