"""Each measure against its definition, and each reason why there is none."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import SHAPE, K, source
from numpy.typing import NDArray
from torch import Tensor, nn

from netinv.evaluation import measures
from netinv.evaluation.samples import broken, constant, ensemble, first, interleave, observe
from netinv.results import Bootstrap, Estimate, Measure, NotMeasured, spread_estimate

BOOTSTRAP = Bootstrap(3, 120)


def no(why: str) -> NotMeasured:
    return NotMeasured(not_measured=why)


# Samples


def test_a_sample_is_correct_where_the_network_sees_its_label() -> None:
    given = source(50)
    assert given.correct.tolist() == [
        int(a) == int(b) for a, b in zip(given.logits.argmax(1), given.label, strict=True)
    ]
    assert given.evaluator_logits is not None
    judged = given.evaluator_logits.argmax(1) == given.label
    assert given.evaluator_correct is not None
    assert given.evaluator_correct.tolist() == judged.tolist()
    assert 0.3 < given.correct.mean() < 0.95
    assert dataclasses.replace(given, evaluator_logits=None).evaluator_correct is None
    assert given.num_classes == K


def test_the_gap_is_between_the_two_largest() -> None:
    vector = torch.tensor([[0.7, 0.1, 0.2], [0.25, 0.5, 0.25], [0.1, 0.4, 0.5]])
    gap = source(3, vector=vector).gap
    assert gap is not None
    assert gap.tolist() == pytest.approx([0.5, 0.25, 0.1])
    assert source(3, vector=None).gap is None
    two = source(1, vector=torch.tensor([[0.25, 0.75]]), logits=torch.zeros(1, 2)).gap
    assert two is not None
    assert two.tolist() == [0.5]


class Network(nn.Module):
    """Answers with sums of pixels."""

    num_classes, image_shape, device = K, SHAPE, torch.device("cpu")

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor, return_features: bool = False) -> Any:
        logits = self.factor * images.flatten(1)[:, :K]
        return (logits, 2 * logits) if return_features else logits


def test_both_networks_are_shown_the_images() -> None:
    images, label, vector = torch.rand(4, *SHAPE), torch.tensor([0, 1, 2, 0]), torch.rand(4, K)
    images[1, 0, 0, 0] = torch.nan
    seen = observe("x", "reference", images, label, vector, classifier=Network(2.0), evaluator=Network(3.0))  # type: ignore[arg-type]
    assert (seen.name, seen.kind) == ("x", "reference")
    assert seen.images is images
    assert (seen.label is label, seen.vector is vector) == (True, True)
    rows = images.nan_to_num().flatten(1)[:, :K]
    torch.testing.assert_close(seen.logits, 2 * rows)
    torch.testing.assert_close(seen.evaluator_logits, 3 * rows)
    torch.testing.assert_close(seen.features, 6 * rows)
    alone = observe("x", "reference", images, label, None, classifier=Network(2.0), evaluator=None)  # type: ignore[arg-type]
    assert (alone.vector, alone.evaluator_logits, alone.features) == (None, None, None)


def test_the_first_samples_are_those_of_all_tensors() -> None:
    given = source(9)
    part = first(given, 4)
    for field in dataclasses.fields(given):
        whole, some = getattr(given, field.name), getattr(part, field.name)
        if isinstance(whole, Tensor):
            assert torch.equal(some, whole[:4])
        else:
            assert some == whole
    assert first(dataclasses.replace(given, features=None), 2).features is None


def test_an_ensemble_takes_turns() -> None:
    parts = [source(7, seed, name=f"generator {seed}") for seed in range(3)]
    together = ensemble(parts)
    assert (together.name, together.kind) == ("ensemble", "ensemble")
    for name in ("images", "label", "vector", "logits", "evaluator_logits", "features"):
        for i in range(7):
            assert torch.equal(getattr(together, name)[i], getattr(parts[i % 3], name)[i])
    plain = ensemble([dataclasses.replace(p, vector=None, evaluator_logits=None, features=None) for p in parts])
    assert (plain.vector, plain.evaluator_logits, plain.features) == (None, None, None)
    assert interleave([torch.tensor([0, 1, 2]), torch.tensor([10, 11, 12])]).tolist() == [0, 11, 2]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("images", "images hold values that are not finite"),
        ("logits", "images get an answer from the classifier that is not finite"),
        ("evaluator_logits", "images get an answer from the evaluator that is not finite"),
        ("features", "images get evaluator features that are not finite"),
    ],
)
def test_a_broken_source_says_what_is_broken(field: str, words: str) -> None:
    given = source(8)
    assert broken(given) is None
    tensor = getattr(given, field).clone()
    tensor.view(8, -1)[2, 1] = torch.inf
    tensor.view(8, -1)[5, :] = torch.nan
    assert broken(dataclasses.replace(given, **{field: tensor})) == f"2 of 8 {words}"
    assert broken(dataclasses.replace(given, evaluator_logits=None, features=None)) is None


def test_constant_images_are_all_the_same() -> None:
    images = torch.full((4, *SHAPE), 0.3)
    assert constant(images) == "all 4 images are the same"
    images[3, 0, 7, 7] = 0.31
    assert constant(images) is None


# Accuracy


def test_accuracies_are_means_of_what_is_correct() -> None:
    given = source()
    found = measures.accuracies(given, BOOTSTRAP)
    assert list(found) == ["inversion_accuracy", "evaluator_accuracy"]
    assert found["inversion_accuracy"] == BOOTSTRAP.mean(given.correct)
    assert given.evaluator_correct is not None
    assert found["evaluator_accuracy"] == BOOTSTRAP.mean(given.evaluator_correct)
    chosen = given.label.numpy() != 1
    some = measures.accuracies(given, BOOTSTRAP, chosen)
    assert some["inversion_accuracy"] == BOOTSTRAP.mean(given.correct[chosen]) != found["inversion_accuracy"]
    assert some["evaluator_accuracy"] == BOOTSTRAP.mean(given.evaluator_correct[chosen])


def test_accuracies_that_mean_nothing_say_why() -> None:
    noise = measures.accuracies(source(name="noise"), BOOTSTRAP)
    assert noise["inversion_accuracy"] == no("noise is labelled by the classifier itself")
    assert isinstance(noise["evaluator_accuracy"], Estimate)
    alone = measures.accuracies(source(evaluator_logits=None), BOOTSTRAP)
    assert alone["evaluator_accuracy"] == no("no evaluator was given")
    assert isinstance(alone["inversion_accuracy"], Estimate)
    two = source(20, logits=torch.zeros(20, 2), label=torch.arange(20) % 2, evaluator_logits=None)
    assert measures.accuracies(two, BOOTSTRAP)["evaluator_accuracy"] == no("no evaluator was given")


def test_a_gap_of_just_a_near_tie_is_none() -> None:
    given = source(50)
    assert given.vector is not None
    vector = given.vector.clone()
    vector[:20] = torch.tensor([0.05, 0.0, 0.0])  # a gap of just that
    vector[20:30] = torch.tensor([0.04, 0.0, 0.0])
    given = dataclasses.replace(given, vector=vector)
    chosen = np.r_[np.ones(20, bool), np.zeros(10, bool), given.gap[30:] >= 0.05]  # type: ignore[index]
    found = measures.accuracies_off_ties(given, BOOTSTRAP)
    assert list(found) == ["inversion_accuracy_gap", "evaluator_accuracy_gap"]
    assert list(found.values()) == list(measures.accuracies(given, BOOTSTRAP, chosen).values())
    none = measures.accuracies_off_ties(source(vector=None), BOOTSTRAP)
    assert none == dict.fromkeys(found, no("there is no condition vector with a gap"))


def test_bins_of_the_gap_hold_their_lower_edges() -> None:
    gaps = [0.0, 0.049, 0.05, 0.1, 0.19, 0.2, 0.4, 1.0]
    vector = torch.tensor(gaps).repeat(20)[:, None] * torch.tensor([[1.0, 0, 0]])
    given = source(160, vector=vector)
    bins = measures.accuracies_by_gap(given, BOOTSTRAP)
    assert [(b.low, b.high) for b in bins] == [(0.0, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 1.0)]
    place = np.tile([0, 0, 1, 2, 2, 3, 4, 4], 20)
    for i, part in enumerate(bins):
        expected = measures.accuracies(given, BOOTSTRAP, place == i)
        assert [part.inversion_accuracy, part.evaluator_accuracy] == list(expected.values())
    assert measures.accuracies_by_gap(source(vector=None), BOOTSTRAP) == ()


def test_a_bin_of_what_is_broken_says_so() -> None:
    given = source(20)
    part = measures.accuracy_bin(given, BOOTSTRAP, 0.5, 2.0)
    assert (part.low, part.high) == (0.5, 2.0)
    assert part.inversion_accuracy == BOOTSTRAP.mean(given.correct)
    sick = dataclasses.replace(given, images=torch.full_like(given.images, torch.nan))
    part = measures.accuracy_bin(sick, BOOTSTRAP, 0.5, 2.0)
    assert part.inversion_accuracy == part.evaluator_accuracy == no("20 of 20 images hold values that are not finite")


def test_accuracies_of_each_class() -> None:
    given = source(90)
    found = measures.accuracies_by_class(given, BOOTSTRAP)
    assert list(found) == ["inversion_accuracy", "evaluator_accuracy"]
    for k in range(K):
        expected = measures.accuracies(given, BOOTSTRAP, given.label.numpy() == k)
        assert [found[name][k] for name in found] == list(expected.values())
    assert {len(of_one) for of_one in found.values()} == {K}


def test_confusion_counts_wanted_by_predicted() -> None:
    logits = torch.eye(3)[[0, 1, 1, 2, 0, 0]]
    given = source(6, label=torch.tensor([0, 0, 1, 1, 2, 2]), logits=logits, evaluator_logits=logits.roll(1, dims=1))
    found = measures.confusion(given)
    assert found == {
        "classifier": ((1, 1, 0), (0, 1, 1), (2, 0, 0)),
        "evaluator": ((0, 1, 1), (1, 0, 1), (0, 2, 0)),
    }
    assert list(measures.confusion(dataclasses.replace(given, evaluator_logits=None))) == ["classifier"]


# Intensity


def wanted_and_obtained(given: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = np.arange(len(given.label))
    p, q = given.vector.double().numpy(), torch.softmax(given.logits.double(), 1).numpy()
    return p[rows, given.label], q[rows, given.label]


def error(wanted: NDArray[np.float64], obtained: NDArray[np.float64]) -> float:
    place = np.minimum((wanted * 10 + 1e-12).astype(int), 9)
    terms = [abs(wanted[place == i].mean() - obtained[place == i].mean()) * (place == i).sum() for i in set(place)]
    return float(sum(terms) / len(wanted))


def test_intensity_is_that_of_its_definition() -> None:
    given = source(80)
    found = measures.intensity(given, BOOTSTRAP)
    assert list(found) == ["kl", "intensity_error", "intensity_correlation"]
    p, log_q = given.vector.double(), F.log_softmax(given.logits.double(), 1)  # type: ignore[union-attr]
    assert close(found["kl"], BOOTSTRAP.mean((p * (p.log() - log_q)).sum(1).numpy()))
    wanted, obtained = wanted_and_obtained(given)
    draws = list(BOOTSTRAP.draws(80))
    errors = [error(wanted[i], obtained[i]) for i in draws]
    assert close(found["intensity_error"], spread_estimate(error(wanted, obtained), errors, 80, (0, 1)))
    correlations = [float(np.corrcoef(wanted[i], obtained[i])[0, 1]) for i in draws]
    expected = spread_estimate(float(np.corrcoef(wanted, obtained)[0, 1]), correlations, 80, (-1, 1))
    assert close(found["intensity_correlation"], expected)


def close(found: Measure, expected: Measure) -> bool:
    assert isinstance(found, Estimate)
    assert isinstance(expected, Estimate)
    assert found.n == expected.n
    for name in ("value", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6, abs=1e-9)
    return True


def test_intensity_that_never_varies_has_no_correlation() -> None:
    constant_condition = source(30, vector=torch.tensor([[0.5, 0.3, 0.2]]).repeat(30, 1), label=torch.zeros(30).long())
    stubborn = source(30, logits=torch.zeros(30, K))
    for given in (constant_condition, stubborn):
        found = measures.intensity(given, BOOTSTRAP)
        assert found["intensity_correlation"] == no("the intensity wanted or obtained never varies")
        assert isinstance(found["intensity_error"], Estimate)
        assert isinstance(found["kl"], Estimate)


def test_without_a_condition_there_is_no_intensity() -> None:
    names = ["kl", "intensity_error", "intensity_correlation"]
    assert measures.intensity(source(vector=None), BOOTSTRAP) == dict.fromkeys(
        names, no("there is no condition vector")
    )
    assert measures.calibration(source(vector=None), BOOTSTRAP) == ()
    two = source(20, vector=torch.rand(20, 2), logits=torch.rand(20, 2), label=torch.arange(20) % 2)
    assert len(measures.calibration(two, BOOTSTRAP)) == 10


def test_calibration_bins_hold_their_lower_edges() -> None:
    tops = torch.tensor([0.0, 0.05, 0.1, 0.3, 0.35, 0.9, 1.0], dtype=torch.float64)
    vector = torch.zeros(140, K, dtype=torch.float64)
    vector[:, 0] = tops.repeat(20)
    given = source(140, vector=vector, label=torch.zeros(140, dtype=torch.long))
    bins = measures.calibration(given, BOOTSTRAP)
    assert [(b.low, b.high) for b in bins] == [(i / 10, (i + 1) / 10) for i in range(10)]
    place = np.tile([0, 0, 1, 3, 3, 9, 9], 20)
    wanted, obtained = wanted_and_obtained(given)
    for i, part in enumerate(bins):
        assert part.wanted == BOOTSTRAP.mean(wanted[place == i])
        assert part.obtained == BOOTSTRAP.mean(obtained[place == i])


# Robustness


class Fragile(nn.Module):
    """Sees class 1 where the first pixel is bright, and class 0 elsewhere."""

    num_classes, image_shape, device = 2, SHAPE, torch.device("cpu")

    def forward(self, images: Tensor) -> Tensor:
        pixel = images[:, 0, 0, 0]
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1)


def test_survival_is_that_of_the_first_images_under_each_bound() -> None:
    images = torch.full((6, *SHAPE), 0.5)
    images[:, 0, 0, 0] = torch.tensor([0.1, 0.3, 0.45, 0.55, 0.9, torch.nan])
    given = source(6, images=images, label=torch.tensor([0, 0, 0, 1, 1, 0]), logits=torch.zeros(6, 2))
    kept = measures.survival(given, Fragile(), [0.0, 0.1, 0.3], 20, 6, seed=0)  # type: ignore[arg-type]
    assert kept.tolist() == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
        [True, False, False],
        [True, True, True],
        [True, True, True],  # nothing is black
    ]
    assert measures.survival(given, Fragile(), [0.1], 20, 4, seed=0).shape == (4, 1)  # type: ignore[arg-type]


def test_what_is_missing_has_one_reason() -> None:
    assert measures.missing(("a", "b"), "why") == {"a": no("why"), "b": no("why")}
