"""Every setting of a policy reaches what it is for."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from draws import seed_torch, torch_rng
from torch import nn

from netinv.audit import (
    AgreementPolicy,
    AuditRecord,
    Check,
    LeakPolicy,
    MembershipPolicy,
    Number,
    Policy,
    ReconstructionPolicy,
    RobustnessPolicy,
    ShadowConfig,
    StrangersPolicy,
    audit,
    checks,
    sample_checks,
    shadows,
)
from netinv.audit.reconstruction import Nearest
from netinv.classifiers import Classifier, ConvClassifierConfig, adapt, build_classifier, freeze
from netinv.data import LabelledImages, to_float
from netinv.evaluation import privacy
from netinv.results import NotMeasured

NOTHING: dict[str, Any] = dict.fromkeys(
    ("strangers", "leak", "reconstruction", "membership", "robustness", "agreement")
)
NUM = 240


def real(num: int, seed: int) -> LabelledImages:
    rng = torch_rng(seed)
    images = torch.randint(0, 256, (num, 1, 8, 8), dtype=torch.uint8, generator=rng)
    return LabelledImages(images, torch.randint(0, 3, (num,), generator=rng))


TRAIN, TEST = real(NUM, 1), real(NUM, 2)


def network(seed: int = 0) -> Classifier:
    seed_torch(seed)
    architecture = ConvClassifierConfig(channels=(2,), feature_dim=4, batch_norm=False, dropout=0)
    classifier = build_classifier(architecture, 3, (1, 8, 8), (0.5,), (0.25,))
    freeze(classifier)
    return classifier


def found(evaluator: Classifier | None = None, num: int = NUM, **policy: Any) -> AuditRecord:
    """An audit of a network that learnt nothing, of noise, with the given settings of the policy alone."""
    samples = {"a": torch.rand(num, 1, 8, 8, generator=torch_rng(3)), "b": TEST.images / 255}
    return audit(network(), TRAIN, TEST, Policy(**(NOTHING | policy)), samples, evaluator)


def only(record: AuditRecord) -> Check:
    assert len(record.checks) == 1
    return record.checks[0]


def number(check: Check, name: str) -> Number:
    return next(number for number in check.numbers if number.name.startswith(name))


def size(check: Check, name: str) -> int:
    measure: Any = number(check, name).measure
    return int(measure.n)


# The policy


@pytest.mark.parametrize(("limit", "outcome"), [(0.25, "pass"), (0.2, "fail")])
def test_test_images_that_are_training_images_are_counted(limit: float, outcome: str) -> None:
    """54 of 240, which is 22.5 %: 50 taken over, and 4 of them twice."""
    images = TEST.images.clone()
    images[:50] = TRAIN.images[100:150]
    images[50:54] = TRAIN.images[100:104]
    other = {"robustness": RobustnessPolicy(min_accuracy=0)}
    policy = Policy(**(NOTHING | other | {"strangers": StrangersPolicy(max_shared=limit)}))
    check = audit(network(), TRAIN, LabelledImages(images, TEST.labels), policy).checks[0]
    assert check.outcome == outcome
    assert check.finding.startswith("54 of 240 test images are training images too, pixel for pixel.")
    assert ("means little" in check.finding) == (outcome == "fail")
    assert found(**other, strangers=StrangersPolicy()).checks[0].finding == "No test image is a training image."


def test_seed_fixes_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [Policy(seed=seed, agreement=None, membership=MembershipPolicy(shadows=None)) for seed in (0, 0, 1)]
    samples = {"a": torch.rand(300, 1, 8, 8, generator=torch_rng(3))}
    one, again, other = (audit(network(), TRAIN, TEST, policy, samples).checks for policy in policies)
    assert one == again
    assert one != other


def test_samples_bound_each_set() -> None:
    record = found(samples=60, reconstruction=ReconstructionPolicy())
    assert [files.num for files in record.samples] == [60, 60]


def test_a_section_that_is_null_is_left_out() -> None:
    record = found(leak=LeakPolicy(), robustness=RobustnessPolicy())
    assert [check.name for check in record.checks] == ["leak", "robustness"]
    record = found(reconstruction=ReconstructionPolicy(), membership=MembershipPolicy(shadows=None))
    assert [check.name for check in record.checks] == ["reconstruction", "membership"]
    assert only(found(network(), agreement=AgreementPolicy())).name == "agreement"


# Leak


def compared(monkeypatch: pytest.MonkeyPatch, p_value: float, copies: float = 0.5, **settings: Any) -> Check:
    """The check where the comparison of set a gives such p-values by pixels."""
    whole = privacy.judged

    def judged(comparisons: Any, *rest: Any) -> Any:
        of_pixels = comparisons["pixel"].model_copy(update={"p_value": p_value, "copies_p_value": copies})
        calm = {"p_value": 0.5, "copies_p_value": 0.5}
        of_structure = comparisons["ssim"].model_copy(update=calm)
        return whole({"pixel": of_pixels, "ssim": of_structure}, *rest)

    monkeypatch.setattr(privacy, "judged", judged)
    samples = {"a": torch.rand(NUM, 1, 8, 8, generator=torch_rng(3))}
    policy = Policy(**(NOTHING | {"leak": LeakPolicy(**settings)}))
    return only(audit(network(), TRAIN, TEST, policy, samples))


@pytest.mark.parametrize("significance", [0.01, 0.04])
def test_significance_is_shared_by_all_tests(monkeypatch: pytest.MonkeyPatch, significance: float) -> None:
    with monkeypatch.context() as patch:
        assert compared(patch, significance / 6, significance=significance).outcome == "fail"
    with monkeypatch.context() as patch:
        assert compared(patch, significance / 5.9, significance=significance).outcome != "fail"


@pytest.mark.parametrize(("p_value", "copies"), [(1e-5, 0.5), (0.5, 1e-5), (1e-5, 1e-6)])
def test_a_leak_says_what_it_is(monkeypatch: pytest.MonkeyPatch, p_value: float, copies: float) -> None:
    finding = compared(monkeypatch, p_value, copies).finding
    assert finding.startswith("In a: Training images leak: ")
    assert ("lie closer to training images than to test images (by pixel distance)" in finding) == (p_value < 0.5)
    assert ("near copies of training images outnumber those of test images (pixel: " in finding) == (copies < 0.5)


def test_max_copies_is_the_limit_of_their_surplus(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(privacy, "judged", lambda *given: asked.append(given[2:]) or (False, ""))
    for most in (0.2, 0.3):
        check = only(found(leak=LeakPolicy(max_copies=most)))
        assert {number.at_most for number in check.numbers if "copies" in number.name} == {most}
        assert asked[-1] == (2, 0.01, most)  # sets, significance


def test_min_samples_are_needed_for_a_pass() -> None:
    assert "240 samples, where 241 are wanted" in only(found(leak=LeakPolicy(min_samples=241))).finding
    assert "Too few" not in only(found(leak=LeakPolicy(min_samples=240))).finding


def test_min_pool_is_needed_for_a_pass() -> None:
    assert "240 real images on one side, where 241" in only(found(leak=LeakPolicy(min_pool=241))).finding
    assert "Too few" not in only(found(leak=LeakPolicy(min_pool=240))).finding


def test_pool_bounds_the_real_images() -> None:
    assert "60 real images on one side" in only(found(leak=LeakPolicy(pool=60))).finding


# Reconstruction


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_false_alarms_are_those_of_the_list(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    seen = []
    monkeypatch.setattr(sample_checks, "recognised", lambda p, share: seen.append(share) or np.zeros(0, np.int64))
    found(reconstruction=ReconstructionPolicy(false_alarms=rate))
    assert seen == [rate]


def test_samples_are_needed_to_recognise_nothing() -> None:
    short = only(found(reconstruction=ReconstructionPolicy(min_samples=241)))
    assert short.outcome == "investigate"
    assert "240 samples, where 241 are wanted" in short.finding
    assert "Too few" not in only(found(reconstruction=ReconstructionPolicy(min_samples=240))).finding
    assert only(found(num=1, reconstruction=ReconstructionPolicy())).outcome == "investigate"


# Membership


def membership(**settings: Any) -> Check:
    return only(found(membership=MembershipPolicy(**settings)))


QUICK = ShadowConfig(models=2, steps=1)


def test_false_positive_rate_is_where_it_decides() -> None:
    check = membership(false_positive_rate=0.05, max_true_positive_rate=0.7, shadows=QUICK)
    deciding = [number for number in check.numbers if number.name.startswith("true") and number.at_most is not None]
    assert [(number.name, number.at_most) for number in deciding] == [("true_positive_rate_at_0.05", 0.7)]


def test_max_auc_is_the_limit_of_both() -> None:
    check = membership(max_auc=0.55, shadows=QUICK)
    assert {n.at_most for n in check.numbers if n.name in ("loss_auc", "likelihood_ratio_auc")} == {0.55}
    assert number(check, "likelihood_ratio_auc").at_most == 0.55


def test_min_images_are_needed_for_a_pass() -> None:
    assert "240 real images on one side, where 241" in membership(min_images=241, shadows=None).finding
    assert "Too few" not in membership(min_images=240, shadows=None).finding


def test_images_bound_each_side() -> None:
    assert size(membership(images=60, shadows=None), "train_accuracy") == 60
    assert size(membership(images=60, shadows=None), "test_accuracy") == 60


def test_shadows_may_be_left_out() -> None:
    assert not [n for n in membership(shadows=None).numbers if n.name.startswith(("like", "true"))]
    assert [n for n in membership(shadows=QUICK).numbers if n.name.startswith("like")]


def test_a_rate_is_told_as_it_is() -> None:
    why = NotMeasured(not_measured="in this test")
    numbers = checks._ratio_numbers(MembershipPolicy(), why, dict.fromkeys((0.0004, 0.01), why))
    assert [number.meaning.rpartition(" finds at ")[2] for number in numbers[1:]] == [
        "0.04% false positives",
        "1% false positives",
    ]


def test_a_control_has_the_rank_of_its_training_image() -> None:
    """Also beside images that are not named, when more are named than are shown."""
    num, named = 240, 20
    distance = np.linspace(0.1, 0.9, num)
    nearest = Nearest(distance, np.zeros(num, dtype=np.int64))
    subject: Any = SimpleNamespace(samples={"a": TEST.images}, origins={"a": SimpleNamespace(places=np.arange(num))})
    place = np.arange(num)
    pairs = sample_checks._pairs(subject, place, place, sample_checks._Found(nearest, nearest, place[:named]))
    assert [pair.train for pair in pairs] == [*range(sample_checks.SHOWN), *range(named, named + sample_checks.CLOSEST)]
    assert [pair.control for pair in pairs] == [pair.train for pair in pairs]


def test_splits_of_bytes_and_of_floats_are_the_same_images() -> None:
    policy = Policy(**(NOTHING | {"membership": MembershipPolicy(shadows=ShadowConfig(models=2, steps=4, lr=0.1))}))
    train, test = (split._replace(images=split.images / 255) for split in (TRAIN, TEST))
    wanted = only(audit(network(), TRAIN, TEST, policy)).numbers
    for splits in ((train, TEST), (TRAIN, test)):
        assert only(audit(network(), *splits, policy)).numbers == wanted


# Shadow models


def trainings(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[list[Any], Any]:
    """How each shadow model is trained, and what they give."""
    seen = []

    def train_classifier(model: Any, data: LabelledImages, config: Any, seed: int) -> list[Any]:
        seen.append((config, len(data.labels)))
        return []

    monkeypatch.setattr(shadows, "train_classifier", train_classifier)
    return seen, shadows.train_shadows(network(), TRAIN, ShadowConfig(**settings), 0)


def test_models_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, given = trainings(monkeypatch, models=6)
    assert len(seen) == len(given.confidence) == 6


def test_architecture_is_its_own_or_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trainings(monkeypatch, models=2)[1].architecture.endswith("the audited architecture")
    assert "stand-in" in trainings(monkeypatch, models=2, architecture="stand_in")[1].architecture


def test_steps_and_batches_and_rates_are_those_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 33, "batch_size": 40, "lr": 0.125, "weight_decay": 0.25}
    seen = trainings(monkeypatch, models=2, **settings)[0]
    assert len(seen) == 2
    for config, num in seen:
        assert (config.batch_size, config.lr, config.weight_decay) == (40, 0.125, 0.25)
        assert num == 120
        assert config.epochs == 11  # of 3 batches each


def test_shadow_models_are_asked_few_large_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    large = adapt(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3)), (1, 128, 128))
    monkeypatch.setattr(shadows, "train_classifier", lambda *_: [])
    monkeypatch.setattr(shadows, "BATCH", 64)
    sizes = []
    monkeypatch.setattr(shadows, "to_float", lambda images: sizes.append(len(images)) or to_float(images))
    split = LabelledImages(torch.zeros(20, 1, 128, 128, dtype=torch.uint8), torch.arange(20) % 3)
    shadows.train_shadows(large, split, QUICK, 0)
    assert sizes == [16, 4] * 2


def test_shadow_models_that_diverge_ask_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(model: Any, *rest: Any) -> list[Any]:
        raise FloatingPointError("The classifier's loss is nan after epoch 1; lower train.lr.")

    def broken(model: Any, *rest: Any) -> list[Any]:
        model.network.head.weight.data.fill_(torch.nan)
        return []

    for train_classifier in (stopped, broken):
        monkeypatch.setattr(shadows, "train_classifier", train_classifier)
        record = found(membership=MembershipPolicy(max_auc=1, shadows=QUICK))
        check = only(record)
        assert check.outcome == "investigate"
        assert "was not measured: the training of a shadow model diverged; lower membership.shadows.lr" in check.finding
        assert record.shadow_models == ""
        assert number(check, "loss_auc").outcome == "pass"


# Robustness


@pytest.mark.parametrize(("epsilon", "steps", "images"), [(0.1, 3, 50), (0.2, 4, 70)])
def test_the_attack_is_that_of_the_policy(
    monkeypatch: pytest.MonkeyPatch, epsilon: float, steps: int, images: int
) -> None:
    seen = []

    def robust_mask(classifier: Any, x: torch.Tensor, y: torch.Tensor, *how: Any, seed: int) -> torch.Tensor:
        seen.append((len(x), *how))
        return torch.ones(len(x), dtype=torch.bool)

    monkeypatch.setattr(checks, "robust_mask", robust_mask)
    found(robustness=RobustnessPolicy(epsilon=epsilon, attack_steps=steps, images=images, min_images=10))
    assert seen == [(images, epsilon, steps)]


def test_min_accuracy_is_its_limit() -> None:
    check = only(found(robustness=RobustnessPolicy(min_accuracy=0.75)))
    assert [number.at_least for number in check.numbers] == [0.75]


def test_test_images_are_needed_for_a_pass() -> None:
    short = only(found(robustness=RobustnessPolicy(min_accuracy=0, min_images=241)))
    assert short.outcome == "investigate"
    assert "240 test images, where 241" in short.finding
    assert only(found(robustness=RobustnessPolicy(min_accuracy=0, min_images=240))).outcome == "pass"


# Agreement


def agreement(**settings: Any) -> Check:
    return only(found(network(1), agreement=AgreementPolicy(**settings)))


def test_both_limits_are_those_of_the_agreement() -> None:
    check = agreement(min_on_test=0.25, min_on_samples=0.5)
    assert number(check, "agreement_on_test").at_least == 0.25
    assert number(check, "agreement_on_a").at_least == number(check, "agreement_on_b").at_least == 0.5


def test_images_are_needed_and_bounded() -> None:
    assert size(agreement(images=50, min_images=10), "agreement_on_test") == 50
    assert size(agreement(images=50, min_images=10), "agreement_on_a") == 50
    assert "50 images of a set, where 51" in agreement(min_on_test=0, images=50, min_images=51).finding
    silent = AgreementPolicy(min_on_test=None, images=50, min_images=51)
    reported = found(network(1), robustness=RobustnessPolicy(images=50, min_images=10), agreement=silent).checks[-1]
    assert reported.outcome == "skipped"
    assert "no limit on agreement, which is only reported" in reported.finding


def test_agreement_is_of_images_from_the_whole_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = checks.answers, []
    monkeypatch.setattr(checks, "answers", lambda network, images: seen.append(images) or whole(network, images))
    check = agreement(images=50, min_images=10)
    assert check.finding.endswith("chosen at random: 50 of the 240 images of a and 50 of the 240 images of b.")
    places = [int((TEST.images / 255 == image).flatten(1).all(dim=1).nonzero()) for image in seen[-1]]
    assert len(set(places)) == 50
    assert max(places) > 150
