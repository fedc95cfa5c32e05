"""Audits of networks and samples that are known to leak, and of such as do not: small versions of the controls."""

import hashlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from draws import numpy_rng, seed_torch
from torch import Tensor, nn

from netinv.audit import (
    AgreementPolicy,
    AuditRecord,
    Check,
    LeakPolicy,
    MembershipPolicy,
    Policy,
    RobustnessPolicy,
    ShadowConfig,
    audit,
)
from netinv.audit.shadows import train_shadows
from netinv.audit.subject import digest
from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    adapt,
    build_classifier,
    freeze,
    train_classifier,
)
from netinv.core import InputError
from netinv.data import LabelledImages, channel_statistics, load_digits, to_float

TINY = ConvClassifierConfig(channels=(4, 8), feature_dim=32, dropout=0)
QUICK = ShadowConfig(models=4, steps=60)
SAMPLES_ONLY = Policy(membership=None, robustness=None, agreement=None)
CLASSIFIER_ONLY = Policy(membership=MembershipPolicy(shadows=QUICK), agreement=None)


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    """All of them, in random order."""
    data = load_digits()
    order = torch.from_numpy(numpy_rng(0).permutation(len(data.train.labels) + len(data.test.labels)))
    images = torch.cat([data.train.images, data.test.images])[order]
    return LabelledImages(images, torch.cat([data.train.labels, data.test.labels])[order])


def part(data: LabelledImages, low: int, high: int) -> LabelledImages:
    return LabelledImages(data.images[low:high], data.labels[low:high])


def trained(data: LabelledImages, epochs: int, **changes: Any) -> Classifier:
    seed_torch(0)
    architecture = TINY.model_copy(update=changes)
    classifier = build_classifier(architecture, 10, (1, 16, 16), *channel_statistics(data.images))
    assert list(train_classifier(classifier, data, ClassifierTrainingConfig(epochs=epochs, batch_size=64), 0))
    freeze(classifier)
    return classifier


@pytest.fixture(scope="module")
def honest(digits: LabelledImages) -> Classifier:
    return trained(part(digits, 0, 1000), 6)


def check(record: AuditRecord, name: str) -> Check:
    return next(check for check in record.checks if check.name == name)


def of_samples(digits: LabelledImages, classifier: Classifier, images: Tensor, **policy: Any) -> AuditRecord:
    changed = SAMPLES_ONLY.model_copy(update=policy)
    return audit(classifier, part(digits, 0, 700), part(digits, 700, 1400), changed, {"set": images})


def test_replayed_training_images_fail_and_are_named(digits: LabelledImages, honest: Classifier) -> None:
    record = of_samples(digits, honest, to_float(digits.images[:300]))
    assert record.verdict == "fail"
    assert check(record, "leak").outcome == "fail"
    assert check(record, "reconstruction").outcome == "investigate"
    assert record.num_recognised >= 300
    for pair in record.recognised:
        if pair.flagged:
            assert pair.train == pair.sample  # each shows itself
            assert pair.distance == pytest.approx(0, abs=1e-9)
            assert pair.control_distance > pair.distance
    assert "Not checked" not in record.summary


def test_40_of_300_replayed_are_caught_and_named(digits: LabelledImages, honest: Classifier) -> None:
    images = to_float(torch.cat([digits.images[1400:1660], digits.images[:40]]))
    record = of_samples(digits, honest, images)
    assert record.verdict == "fail"
    named = {pair.train for pair in record.recognised if pair.flagged}
    assert len(named & set(range(40))) >= 10  # of the twelve that are listed


def test_real_strangers_pass(digits: LabelledImages, honest: Classifier) -> None:
    limits = LeakPolicy(max_copies=0.1)  # of 300 images, whose surplus is known to 0.04: 0.05 is open in 2 of 25 draws
    record = of_samples(digits, honest, to_float(digits.images[1400:1700]), leak=limits)
    assert check(record, "leak").outcome == "pass"
    assert check(record, "reconstruction").outcome == "pass"
    assert record.verdict == "pass"
    assert record.num_recognised == 0
    assert all(not pair.flagged for pair in record.recognised)
    assert len(record.recognised) == 3


def test_too_few_samples_are_no_pass(digits: LabelledImages, honest: Classifier) -> None:
    record = of_samples(digits, honest, to_float(digits.images[1400:1500]))
    assert record.verdict == "investigate"
    assert check(record, "leak").finding.startswith("Too few samples for a pass: 100 samples, where 200 are wanted.")
    replayed = of_samples(digits, honest, to_float(digits.images[:100]))
    assert check(replayed, "leak").outcome == "fail"  # which few are enough to see
    small = audit(
        honest, part(digits, 0, 40), part(digits, 40, 80), SAMPLES_ONLY, {"set": to_float(digits.images[1400:1700])}
    )
    assert [check.outcome for check in small.checks] == ["pass", "investigate", "investigate"]
    assert "40 real images on one side, where 200 are wanted" in check(small, "reconstruction").finding


def test_few_exact_copies_are_named_wherever_they_stand_in_the_training_split(
    digits: LabelledImages, honest: Classifier
) -> None:
    """Of 700 training images 200 are compared with; a test image that is drawn is none that was copied."""
    places = [3, 250, 690]
    samples = to_float(torch.cat([digits.images[1400:1690], digits.images[[*places, *places, 900]]]))
    record = of_samples(digits, honest, samples, leak=LeakPolicy(pool=200))
    assert check(record, "reconstruction").outcome == "investigate"
    assert check(record, "reconstruction").finding.startswith(
        "3 of all 700 training images are among the samples, pixel"
    )
    assert {pair.train for pair in record.recognised if pair.flagged} >= {*places}
    assert all(pair.distance == pytest.approx(0, abs=1e-6) for pair in record.recognised[:3])


@pytest.mark.parametrize("place", [0, 1400])
def test_one_image_time_and_again_is_for_a_person(digits: LabelledImages, honest: Classifier, place: int) -> None:
    """Whether it is a training image, or one that no network saw: so says an evaluation, too."""
    ends = ((place, place + 50), (0, 700), (700, 1400))
    some, train, test = (to_float(digits.images[low:high]).flatten(1) for low, high in ends)
    gaps = [(some.unsqueeze(1) - split).norm(dim=2) for split in (train, test)]
    near = [gap.masked_fill(gap == 0, torch.inf).amin(dim=1) for gap in gaps]
    image = some[(near[0] - near[1]).abs().argmin()]  # chance accuses some images that are far from one split alone
    record = of_samples(digits, honest, image.view(1, 1, 16, 16).expand(300, 1, 16, 16))
    assert check(record, "leak").outcome == "investigate"
    assert "In set: Too few different images to tell whether training images leak" in check(record, "leak").finding


def test_a_network_that_knows_its_images_by_heart_fails(digits: LabelledImages) -> None:
    """Labels at random can only be learnt by heart."""
    train = LabelledImages(digits.images[:200], torch.from_numpy(numpy_rng(1).integers(0, 10, 200)))
    classifier = trained(train, 150, channels=(16, 32))
    record = audit(classifier, train, part(digits, 200, 600), CLASSIFIER_ONLY)
    membership = check(record, "membership")
    assert membership.outcome == "fail"
    assert record.verdict == "fail"
    assert "is above the limit" in membership.finding
    assert record.shadow_models.startswith("ConvClassifier, the audited architecture, right on ")
    assert any("ConvClassifier" in limit for limit in record.limits)


def test_an_honest_network_passes(digits: LabelledImages, honest: Classifier) -> None:
    record = audit(honest, part(digits, 0, 1000), part(digits, 1000, 1797), CLASSIFIER_ONLY, name="honest")
    assert check(record, "membership").outcome == "pass"
    assert check(record, "robustness").outcome == "pass"
    assert record.verdict == "pass"
    assert (
        record.summary == "It passes the policy: strangers, membership, robustness. Not checked: leak, reconstruction."
    )
    names = [number.name for number in check(record, "membership").numbers]
    assert {"loss_auc", "likelihood_ratio_auc", "true_positive_rate_at_0.001", "true_positive_rate_at_0.01"} <= {*names}
    again = audit(honest, part(digits, 0, 1000), part(digits, 1000, 1797), CLASSIFIER_ONLY, name="honest")
    assert again.checks == record.checks


def test_robustness_and_agreement_have_limits(digits: LabelledImages, honest: Classifier) -> None:
    policy = Policy(
        leak=None,
        reconstruction=None,
        membership=None,
        robustness=RobustnessPolicy(epsilon=0.5),
        agreement=AgreementPolicy(min_on_test=0.6, min_on_samples=0.95),
    )
    train, test = part(digits, 0, 700), part(digits, 700, 1400)
    noise = torch.from_numpy(numpy_rng(2).random((300, 1, 16, 16), dtype=np.float32))
    other = trained(part(digits, 0, 1000), 6, channels=(8,))
    record = audit(honest, train, test, policy, {"noise": noise}, other)
    assert check(record, "robustness").outcome == "fail"
    agreement = check(record, "agreement")
    assert agreement.outcome == "fail"
    assert "noise" in agreement.finding
    assert "test images" not in agreement.finding
    twin = audit(honest, train, test, policy, {"noise": noise}, honest)
    assert check(twin, "agreement").outcome == "pass"
    assert twin.evaluator is not None
    assert record.evaluator is not None
    assert twin.evaluator.sha256 == twin.model.sha256 != record.evaluator.sha256


def test_shadow_models_come_in_pairs_that_share_the_images(digits: LabelledImages, honest: Classifier) -> None:
    state = torch.random.get_rng_state()
    shadows = train_shadows(honest, part(digits, 0, 129), ShadowConfig(models=4, steps=2), 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert shadows.confidence.shape == shadows.is_out.shape == (4, 129)
    assert (shadows.is_out.sum(axis=0) == 2).all()
    assert np.array_equal(shadows.is_out[0], ~shadows.is_out[1])
    assert not np.array_equal(shadows.is_out[0], shadows.is_out[2])
    assert np.isfinite(shadows.confidence).all()
    assert shadows.accuracy.shape == (4,)


def test_digests_tell_values_and_nothing_else() -> None:
    values = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(())}
    assert digest(values) == digest(dict(reversed(values.items())))
    assert digest(values) == digest(values | {"a": torch.arange(6.0).view(3, 2).t().contiguous().t().reshape(2, 3)})
    for changed in ({"a": torch.arange(6.0)}, {"a": torch.arange(6.0).view(2, 3).double()}, {"c": torch.ones(1)}):
        assert digest(values) != digest(values | changed)


def test_a_digest_is_of_names_types_shapes_and_bytes_that_are_not_copied() -> None:
    values = {"b": torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8), "a": torch.zeros(0, 2)}
    text = b"a torch.float32 (0, 2)\nb torch.uint8 (2, 3)\n\x01\x02\x03\x04\x05\x06"
    assert digest(values) == hashlib.sha256(text).hexdigest()
    turned = b"c torch.uint8 (3, 2)\n\x01\x04\x02\x05\x03\x06"
    assert digest({"c": values["b"].T}) == hashlib.sha256(turned).hexdigest()
    large = {"images": torch.zeros(2_000_000, dtype=torch.uint8)}
    tracemalloc.start()
    try:
        digest(large)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_is_refused(digits: LabelledImages, honest: Classifier) -> None:
    train, test = part(digits, 0, 100), part(digits, 100, 200)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"samples": {"set": torch.zeros(9, 1, 8, 8)}}, r"the set of samples set has \(1, 8, 8\)"),
        ({"samples": {"set": torch.full((9, 1, 16, 16), 2.0)}}, "The samples set reach from 2 to 2: give uint8"),
        ({"samples": {"set": torch.zeros(0, 1, 16, 16)}}, "no images in the set of samples set"),
        ({"policy": SAMPLES_ONLY}, "nothing to be checked"),
        ({"test": LabelledImages(test.images, test.labels + 10)}, "the classifier knows 10"),
    ]
    for changes, told in wrong:
        with pytest.raises(InputError, match=told):
            audit(honest, **({"train": train, "test": test, "policy": SAMPLES_ONLY} | changes))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_of_every_precision_are_audited(digits: LabelledImages, dtype: torch.dtype) -> None:
    seed_torch(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10)).to(dtype)
    classifier = adapt(network, (1, 16, 16))
    policy = Policy(membership=MembershipPolicy(shadows=ShadowConfig(models=2, steps=2)))
    samples = {"set": to_float(digits.images[1400:1700])}
    record = audit(classifier, part(digits, 0, 300), part(digits, 700, 1000), policy, samples, classifier)
    assert record.shadow_models.startswith("Sequential, the audited architecture")
    assert [check.outcome for check in record.checks if check.outcome == "skipped"] == []


def test_copies_are_found_wherever_they_stand_in_a_set(digits: LabelledImages, honest: Classifier) -> None:
    """300 strangers, and then 300 training images, of which the policy looks at 300 in all."""
    images = to_float(torch.cat([digits.images[1400:1700], digits.images[:300]]))
    record = of_samples(digits, honest, images, samples=300)
    assert check(record, "leak").outcome == "fail"
    assert [files.num for files in record.samples] == [300]
    for name in ("leak", "reconstruction"):
        assert check(record, name).finding.endswith(" Looked at, chosen at random: 300 of the 600 images of set.")
    flagged = [pair for pair in record.recognised if pair.flagged]
    assert flagged
    assert all(pair.sample == 300 + pair.train for pair in flagged)  # its place in the whole set
    whole = of_samples(digits, honest, images)
    assert not any("Looked at" in check.finding for check in whole.checks)
