"""Every setting of an evaluation reaches what it is for: small networks, whole evaluations, and spies at the ends."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import ONE, K, Spy, data, network, pictures, wanted
from numpy.typing import NDArray
from torch import Tensor

from netinv.classifiers import (
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    predict,
)
from netinv.data import LabelledImages
from netinv.evaluation import EvaluationConfig, evaluate, objectives, students, vendi_score
from netinv.evaluation.headline import verdict
from netinv.evaluation.privacy import MEMBERSHIP_ALARM, not_audited
from netinv.evaluation.rows import empty_row
from netinv.evaluation.students import DistillationConfig
from netinv.perturbations import robust_accuracy
from netinv.results import Bootstrap, Comparison, Estimate, Measure, NotMeasured, Results, Row
from netinv.sampling import draw

NAMES = ("generator 0", "ensemble", "real_train", "real_test", "noise", "one_picture")
OTHER = EvaluationConfig(
    num_samples=48,
    seed=7,
    sharpness=(0.5, 20.0),
    sharpness_samples=36,
    vendi_samples=10,
    epsilons=(0.3, 0.001),
    robust_epsilon=0.001,
    attack_steps=12,
    robust_samples=35,
    privacy_samples=30,
    privacy_pool=70,
    resamples=150,
    student=ClassifierTrainingConfig(epochs=3, lr=0.5),
    distillation=DistillationConfig(images=21, sharpness=(0.3, 30.0), steps=4),
    student_architecture=ConvClassifierConfig(channels=(3,), feature_dim=7, dropout=0),
)


class Found(NamedTuple):
    """An evaluation, and what was seen of it from outside."""

    config: EvaluationConfig
    sharpness: tuple[float, float]
    generator: Spy
    taught: dict[str, dict[str, Any]]
    results: Results

    def asked(self, num: int, sharpness: tuple[float, float], dropout: bool = False) -> bool:
        """Whether the generator was asked for these draws; it may have been asked for more of them."""
        latent, vector = wanted(num, sharpness, self.config.seed)
        return any(
            on == dropout and torch.equal(z[:num], latent) and torch.equal(p[:num], vector)
            for z, p, on in self.generator.calls
        )

    def pictures(self, num: int, sharpness: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """What the generator draws, with the labels."""
        return pictures(self.generator, num, sharpness, self.config.seed)

    def correct(self, num: int, sharpness: tuple[float, float]) -> NDArray[np.bool_]:
        """Whether the classifier reads its images as they were meant."""
        images, label = self.pictures(num, sharpness)
        return (predict(network(7), images)[0].argmax(1) == label).numpy()


@pytest.fixture(scope="module", params=["one", "other"])
def found(request: pytest.FixtureRequest) -> Found:
    """Two evaluations that have no setting in common."""
    config, sharpness = (ONE, (2.0, 4.0)) if request.param == "one" else (OTHER, (1.0, 9.0))
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = taught(monkeypatch)
        generator = Spy()
        splits = data(130, 1), data(120, 2)
        results = evaluate([generator], network(7), network(1), "abc", *splits, config, sharpness).results
    return Found(config, sharpness, generator, calls, results)


def row(results: Results, name: str = "generator 0") -> Row:
    return next(r for r in results.rows if r.name == name)


def estimate(measure: Measure) -> Estimate:
    assert isinstance(measure, Estimate), measure
    return measure


def taught(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Nobody is taught: what would have been used is noted."""
    calls: dict[str, dict[str, Any]] = {"student": {"images": []}, "distil": {"images": []}}

    def train(student: Any, images: LabelledImages, config: Any, seed: int) -> Iterator[Any]:
        calls["student"] |= {"config": config, "seed": seed, "architecture": student.config}
        calls["student"]["images"].append(images)
        return iter(())

    def teach(student: Any, teacher: Any, images: Tensor, config: Any, seed: int) -> None:
        calls["distil"] |= {"config": config, "seed": seed, "architecture": student.config}
        calls["distil"]["images"].append(images)

    monkeypatch.setattr(students, "train_classifier", train)
    monkeypatch.setattr(students, "distil", teach)
    return calls


# EvaluationConfig


def test_no_setting_is_that_of_both() -> None:
    for name in EvaluationConfig.model_fields:
        assert getattr(ONE, name) != getattr(OTHER, name), name


def test_num_samples_is_the_length_of_every_row(found: Found) -> None:
    assert [row(found.results, name).samples for name in NAMES] == [found.config.num_samples] * 6
    assert estimate(row(found.results).measures["inversion_accuracy"]).n == found.config.num_samples


def test_seed_fixes_draws_intervals_and_students(found: Found) -> None:
    num, resamples, seed = found.config.num_samples, found.config.resamples, found.config.seed
    assert found.asked(num, found.sharpness)
    correct = found.correct(num, found.sharpness)
    assert row(found.results).measures["inversion_accuracy"] == Bootstrap(seed, resamples).mean(correct)
    if found.config.student is not None:
        assert found.taught["student"]["seed"] == found.taught["distil"]["seed"] == seed


def test_sharpness_is_what_the_bins_are_drawn_at(found: Found) -> None:
    bins, config = row(found.results).by_sharpness, found.config
    assert [(part.low, part.high) for part in bins] == [(s, s) for s in config.sharpness]
    for s, part in zip(config.sharpness, bins, strict=True):
        assert found.asked(config.sharpness_samples, (s, s))
        correct = found.correct(config.sharpness_samples, (s, s))
        assert part.inversion_accuracy == Bootstrap(config.seed, config.resamples).mean(correct)


def test_sharpness_samples_are_drawn_at_each(found: Found) -> None:
    for part in row(found.results).by_sharpness:
        for measure in (part.inversion_accuracy, part.evaluator_accuracy):
            assert estimate(measure).n == found.config.sharpness_samples


def test_vendi_samples_are_those_of_each_class(found: Found) -> None:
    assert found.results.vendi_n == found.config.vendi_samples
    assert estimate(row(found.results, "real_test").by_class["vendi"][0]).n == found.config.vendi_samples


def attacked(found: Found, epsilon: float, steps: int, num: int) -> float:
    images, label = found.pictures(found.config.num_samples, found.sharpness)
    return robust_accuracy(network(7), images[:num], label[:num], epsilon, steps=steps, seed=found.config.seed)


def test_epsilons_and_attack_steps_and_robust_samples_are_those_of_the_curve(found: Found) -> None:
    config, curve = found.config, row(found.results).robustness
    assert [point.epsilon for point in curve] == list(config.epsilons)
    for point in curve:
        expected = attacked(found, point.epsilon, config.attack_steps, config.robust_samples)
        assert estimate(point.accuracy).value == pytest.approx(expected)
        assert estimate(point.accuracy).n == config.robust_samples
    # Or the comparison would show little.
    tried = [(epsilon, steps) for epsilon in (0.0, 0.02, 0.05, 0.1) for steps in (1, 12)]
    assert len({attacked(found, *how, config.robust_samples) for how in tried}) > 1


def test_robust_epsilon_names_the_headline(found: Found) -> None:
    curve = {point.epsilon: point.accuracy for point in row(found.results).robustness}
    values = [estimate(accuracy).value for accuracy in curve.values()]
    assert len(set(values)) == 2
    assert row(found.results).measures["robust_accuracy"] == curve[found.config.robust_epsilon]


def test_privacy_samples_are_audited(found: Found) -> None:
    for kind in ("pixel", "ssim", "feature"):
        comparison = row(found.results).audit.comparisons[kind]
        assert isinstance(comparison, Comparison)
        assert estimate(comparison.train).n == found.config.privacy_samples


def test_privacy_pool_is_searched(found: Found) -> None:
    assert row(found.results).audit.pool == found.config.privacy_pool


def test_resamples_stand_behind_an_interval(found: Found) -> None:
    """Of a mean of real numbers: that of hits and misses may have one interval by more resamples as by fewer."""
    num = found.config.num_samples
    q = predict(network(7), found.pictures(num, found.sharpness)[0])[0].double().log_softmax(1)
    p = wanted(500, found.sharpness, found.config.seed)[1][:num].double()
    kl = (torch.xlogy(p, p) - p * q).sum(1).numpy()
    lows = [Bootstrap(found.config.seed, resamples).mean(kl).low for resamples in (100, 150)]
    found_low = estimate(row(found.results).measures["kl"]).low
    distances = [abs(found_low - low) for low in lows]
    assert distances.index(min(distances)) == (0 if found.config.resamples == 100 else 1)
    assert min(distances) < 1e-3 * max(distances)


def test_student_is_how_students_are_trained(found: Found) -> None:
    measure = row(found.results).measures["student_accuracy"]
    if found.config.student is None:
        assert measure == NotMeasured(not_measured="evaluate.student is null")
        assert not found.taught["student"]["images"]
        return
    assert estimate(measure).n == 120
    assert found.taught["student"]["config"] == found.config.student
    images, label = found.pictures(found.config.num_samples, found.sharpness)
    learnt = found.taught["student"]["images"][0]
    assert (learnt.images.int() - images.mul(255).round().int()).abs().max() <= 1  # in batches of another size
    assert torch.equal(learnt.labels, label)


def test_distillation_is_how_another_is_taught(found: Found) -> None:
    measure = found.results.headline["distilled_accuracy"]
    if found.config.distillation is None:
        assert measure == NotMeasured(not_measured="evaluate.distillation is null")
        assert not found.taught["distil"]["images"]
        return
    assert estimate(measure).n == 120
    assert found.taught["distil"]["config"] == found.config.distillation


def test_student_architecture_is_that_of_both(found: Found) -> None:
    if found.config.student is not None:
        architecture = found.config.student_architecture
        assert found.taught["student"]["architecture"] == found.taught["distil"]["architecture"] == architecture


def test_dropout_is_measured_at_the_sharpness_of_all_else(found: Found) -> None:
    num = found.config.num_samples
    assert found.asked(num, found.sharpness, dropout=True)
    vector = wanted(num, found.sharpness, found.config.seed)[1]
    assert all(torch.equal(p[:num], vector) for _, p, on in found.generator.calls if on)


# Objectives


def telling(shape: tuple[int, int, int], sharpness: tuple[float, float]) -> tuple[Spy, float]:
    """A generator, and a bound within which three steps of attack do more than one, and one more than none."""
    labels = [label for label in range(K) for _ in range(20)]
    wanted, classifier = torch.tensor(labels), network(0, shape)
    for seed, epsilon in itertools.product(range(10), (0.05, 0.02, 0.01, 0.005)):
        generator = Spy(seed, shape)
        latent, vector = draw(60, latent_dim=4, num_classes=K, seed=0, sharpness=sharpness, labels=labels)
        with torch.no_grad():
            images = generator.eval()(torch.from_numpy(latent), torch.from_numpy(vector))
        accuracy = float((classifier(images).argmax(1) == wanted).float().mean())
        one, three = (robust_accuracy(classifier, images, wanted, epsilon, steps=steps) for steps in (1, 3))
        if accuracy > one > three:
            return Spy(seed, shape), epsilon
    pytest.fail("no instance would show much")


@pytest.mark.parametrize(("shape", "side"), [((2, 16, 12), (8, 8)), ((1, 4, 20), (4, 8)), ((1, 8, 8), (8, 8))])
def test_objectives_are_those_of_their_definitions(shape: tuple[int, int, int], side: tuple[int, int]) -> None:
    classifier = network(0, shape)
    generator, epsilon = telling(shape, (2.0, 9.0)) if shape[0] == 2 else (Spy(0, shape), 0.05)
    found = objectives(generator, classifier, (2.0, 9.0), samples_per_class=20, epsilon=epsilon, attack_steps=3)
    labels = [0] * 20 + [1] * 20 + [2] * 20
    latent, vector = draw(60, latent_dim=4, num_classes=K, seed=0, sharpness=(2.0, 9.0), labels=labels)
    with torch.no_grad():
        images = generator.eval()(torch.from_numpy(latent), torch.from_numpy(vector))
    coarse = F.adaptive_avg_pool2d(images, side).flatten(1)
    entropies = [math.log(float(vendi_score(coarse[20 * k : 20 * (k + 1)]))) for k in range(K)]
    assert found["diversity"] == pytest.approx(np.mean(entropies) / math.log(20), rel=1e-6)
    label = torch.tensor(labels)
    assert found["accuracy"] == pytest.approx(float((classifier(images).argmax(1) == label).float().mean()))
    assert found["robustness"] == pytest.approx(robust_accuracy(classifier, images, label, epsilon, steps=3))


# Verdicts


def rows(*memorised: bool | None) -> list[Row]:
    """Rows with audits that found this; the last is the ensemble's."""
    names = [f"generator {i}" for i in range(len(memorised) - 1)] + ["ensemble"]
    found = []
    for name, leaks in zip(names, memorised, strict=True):
        audit = not_audited(name).model_copy(update={"memorised": leaks})
        kind = "ensemble" if name == "ensemble" else "generator"
        found.append(empty_row(name, kind, 10, "made up").model_copy(update={"audit": audit}))
    thief = not_audited("a thief by nature").model_copy(update={"memorised": True})
    return [*found, empty_row("real_train", "reference", 10, "made up").model_copy(update={"audit": thief})]


@pytest.mark.parametrize(
    ("value", "low", "high", "exposed"),
    [
        (0.55, 0.5, MEMBERSHIP_ALARM, False),
        (0.67, 0.57, 0.76, None),
        (0.7, MEMBERSHIP_ALARM, 0.8, None),
        (0.65, 0.61, 0.69, True),
    ],
)
def test_the_alarm_and_its_absence_ask_for_the_whole_interval(
    value: float, low: float, high: float, exposed: bool | None
) -> None:
    told = Estimate(value=value, low=low, high=high, n=100)
    leak, sentence = verdict(rows(False, False), told)
    assert leak is exposed
    opening = {
        True: "The classifier itself gives away which images it was trained on",
        False: "The classifier itself hardly gives away which images it was trained on",
        None: "Whether the classifier itself gives away which images it was trained on cannot be told from so few "
        "images",
    }[exposed]
    assert sentence == (
        f"Not audited: ensemble. {opening}: its loss tells them from test images with an AUC of {value:.2f} ({low:.2f} "
        f"to {high:.2f}; chance is 0.50)."
    )
    assert verdict(rows(False, True), told)[0] is True


def test_the_first_generator_that_leaks_speaks_for_all() -> None:
    silent = NotMeasured(not_measured="nothing was told")
    assert verdict(rows(False, True, True, False), silent) == (True, "Not audited: generator 1.")
    assert verdict(rows(False, False), silent) == (False, "Not audited: ensemble.")
    assert verdict(rows(False, None, False), silent) == (None, "Not audited: generator 1.")
    assert verdict(rows(None, True, False), silent) == (True, "Not audited: generator 1.")
    assert verdict(rows(None, None), silent) == (None, "Not audited: ensemble.")
    sure = Estimate(value=0.5, low=0.4, high=0.6, n=100)
    assert verdict(rows(None, None), sure)[0] is None
    assert verdict(rows(True, False), sure)[0] is True
