"""An audit: every check of a policy, the verdict, and a record of what it was made of."""

import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor, nn

from netinv.audit.checks import check_agreement, check_membership, check_robustness, check_strangers
from netinv.audit.policy import Policy
from netinv.audit.record import AuditRecord, Check, Recognised, Verdict, gravest
from netinv.audit.sample_checks import check_leak, check_reconstruction
from netinv.audit.subject import (
    Subject,
    chosen_samples,
    expect_fitting,
    image_files,
    invertible,
    model_files,
    module_of,
    sample_sets,
)
from netinv.classifiers import AdaptedClassifier, AdapterConfig
from netinv.core import InputError, __version__
from netinv.data import LabelledImages, labelled

LIMITS = (
    "A pass bounds the risk for these images, this model and these attacks; it proves no absence of a leak.",
    "Generated images show what the generators found. A memory that none of them draws is not seen in them; the "
    "membership test asks the model itself.",
    "Distances are of pixels and structure: a training image that is drawn moved, mirrored or in another colour may "
    "not be recognised.",
    "Few training images that are copied, but not pixel for pixel, cannot be told from chance at a stated rate of "
    "false alarms: at one of 10 % it takes ten.",
    "Intervals hold for test images that are drawn like the training images and are strangers to the model. If they "
    "differ in kind, membership looks easier than it is, and if the model saw them, harder.",
    "The attack on robustness is one that is known; a stronger one can only lower the accuracy.",
)
"""What no audit of this kind can tell."""


def audit(
    classifier: nn.Module,
    train: LabelledImages,
    test: LabelledImages,
    policy: Policy | None = None,
    samples: Mapping[str, Tensor] | Tensor | None = None,
    evaluator: nn.Module | None = None,
    name: str = "",
    *,
    adapter: AdapterConfig | None = None,
) -> AuditRecord:
    """Audit a classifier, and images that were drawn from it: pass, investigate or fail.

    Args:
        classifier: Any network that maps a batch of images to one score for each class; one of this library's own in
            evaluation mode.
        train: The images that it was trained on.
        test: Images of the same kind that it never saw.
        policy: The limits; ``None`` is the default policy.
        samples: Generated images by the name of their set, or of one set alone, (N, C, H, W), uint8 or float in
            [0, 1]; of a set of more than the policy's ``samples``, as many are chosen at random. Without any, the
            checks of samples are skipped, and say so.
        evaluator: An independent network on the same device, adapted already where it does not take images in [0, 1];
            without it, its check is skipped.
        name: What the record calls the classifier.
        adapter: What the classifier takes and gives, where that is not images in [0, 1] and one tensor of scores.

    Raises:
        InputError: The networks, data and samples do not fit together, or nothing is left to be checked.
    """
    began = time.monotonic()
    policy = Policy() if policy is None else Policy.expect(policy, "policy")
    train, test = labelled(train, "The training images"), labelled(test, "The test images")
    drawn, origins = chosen_samples(sample_sets(samples), policy)
    asked = invertible(classifier, test.images, None, adapter)
    judge = None if evaluator is None else invertible(evaluator, test.images, asked.num_classes)
    expect_fitting(asked, judge, train, test, drawn)
    subject = Subject(asked, judge, train, test, drawn, policy, origins)
    checks, pairs, num_recognised, shadows = _checked(subject)
    outcome = gravest(check.outcome for check in checks)
    others = gravest(check.outcome for check in checks if check.name != "strangers")
    if outcome == "skipped" or others == "skipped":
        raise InputError("The policy leaves nothing to be checked of what was given: give samples or another policy.")
    return AuditRecord(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=outcome,
        summary=_summary(outcome, checks),
        checks=tuple(checks),
        recognised=pairs,
        num_recognised=num_recognised,
        model=model_files(name, asked),
        architecture=type(module_of(asked)).__name__,
        adapter=asked.config.model_dump(mode="json") if isinstance(asked, AdaptedClassifier) else {},
        evaluator=None if judge is None else model_files("evaluator", judge),
        train=image_files("train", train.images, train.labels),
        test=image_files("test", test.images, test.labels),
        samples=tuple(image_files(key, images) for key, images in drawn.items()),
        policy=policy.model_dump(mode="json"),
        shadow_models=shadows,
        versions={
            "netinv": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        limits=_limits(shadows),
        seconds=round(time.monotonic() - began, 1),
        threads=torch.get_num_threads(),
    )


def _checked(subject: Subject) -> tuple[list[Check], tuple[Recognised, ...], int, str]:
    """Every check that the policy asks for; the pairs; how many training images are named; the shadow models."""
    policy = subject.policy
    checks: list[Check] = []
    pairs: tuple[Recognised, ...] = ()
    num_recognised, shadows = 0, ""
    if policy.strangers is not None:
        checks.append(check_strangers(subject, policy.strangers))
    pools, size = subject.pools()
    if policy.leak is not None:
        checks.append(check_leak(subject, policy.leak, pools, size))
    if policy.reconstruction is not None:
        check, pairs, num_recognised = check_reconstruction(subject, policy.reconstruction, pools, size)
        checks.append(check)
    if policy.membership is not None:
        check, shadows = check_membership(subject, policy.membership)
        checks.append(check)
    if policy.robustness is not None:
        checks.append(check_robustness(subject, policy.robustness))
    if policy.agreement is not None:
        checks.append(check_agreement(subject, policy.agreement))
    return checks, pairs, num_recognised, shadows


def _summary(verdict: Verdict, checks: list[Check]) -> str:
    """The verdict in a sentence: what it rests on, and what was not asked."""
    decisive = [check.name for check in checks if check.outcome == verdict]
    skipped = [check.name for check in checks if check.outcome == "skipped"]
    listed = ", ".join(decisive)
    words = {
        "fail": f"It fails the policy by {listed}.",
        "investigate": f"A person must look into {listed} before it passes.",
        "pass": f"It passes the policy: {listed}.",
    }
    return words[verdict] + (f" Not checked: {', '.join(skipped)}." if skipped else "")


def _limits(shadows: str) -> tuple[str, ...]:
    if not shadows:
        return LIMITS
    return (
        *LIMITS,
        f"The shadow models are {shadows}, trained on fewer images and in another way than the audited one. An "
        "attacker with better ones finds more.",
    )
