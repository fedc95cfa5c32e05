"""What dictionaries keep, how alike what fires a unit is, what one dictionary finds of another: beside plain sums."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import library_torch_rng, numpy_rng, seed_torch, torch_rng
from torch import Tensor, nn

from netinv.classifiers import Classifier, ConvClassifierConfig, adapt, build_classifier, freeze
from netinv.classifiers.calls import InParts
from netinv.interpretation import Site, SparseAutoencoder
from netinv.interpretation.measures import (
    Ablated,
    Fidelity,
    Seen,
    ablate,
    fidelity_measures,
    kept_share,
    matched_cosines,
    monosemanticity,
    rebuild,
    relative_recovery,
)
from netinv.results import Bootstrap, Estimate, NotMeasured

BOOTSTRAP = Bootstrap(0)


def _classifier() -> Classifier:
    """Of three classes, to which noise belongs about evenly."""
    seed_torch(0)
    config = ConvClassifierConfig(channels=(4,), feature_dim=6)
    classifier = build_classifier(config, 3, (1, 8, 8), (0.5,), (0.2,))
    freeze(classifier)
    with torch.no_grad():
        _, features = classifier(torch.rand(200, 1, 8, 8), return_features=True)
        classifier.head.weight *= 50
        classifier.head.bias.copy_(-classifier.head.weight @ features.mean(dim=0))
    return classifier


def _whole(rows: Tensor) -> SparseAutoencoder:
    """Keeps everything: each of 6 numbers by two units, for what lies above its mean and below it."""
    model = SparseAutoencoder(6, 12, 12)
    model.centre.copy_(rows.mean(dim=0))
    both = torch.cat([torch.eye(6), -torch.eye(6)])
    model.redirect(both)
    model.encoder.data.copy_(both)
    return model


def test_a_kept_share_is_one_less_the_share_that_is_lost() -> None:
    rng = numpy_rng(0)
    lost, whole = rng.random(200), 4 + rng.random(200)
    found = kept_share(lost, whole, BOOTSTRAP)
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(1 - lost.sum() / whole.sum())
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.05


@pytest.mark.parametrize("few", [0, 1, 3])
def test_where_next_to_nothing_can_be_lost_nothing_is_measured(few: int) -> None:
    """A resample may have none of the few images that there is something to lose of."""
    whole = np.zeros(2048)
    whole[:few] = 1
    found = kept_share(whole / 3, whole, BOOTSTRAP)
    assert isinstance(found, NotMeasured)
    assert "hardly anything to lose" in found.not_measured


def test_a_share_of_a_handful_of_samples_is_not_measured() -> None:
    assert kept_share(np.zeros(3), np.ones(3), BOOTSTRAP) == NotMeasured(
        not_measured="3 samples, at least 10 are needed"
    )


def test_what_is_not_finite_says_so() -> None:
    whole = np.ones(50)
    whole[0] = np.inf
    assert kept_share(np.ones(50), whole, BOOTSTRAP) == NotMeasured(not_measured="the result is not finite")


WITHOUT = Ablated(*np.ones((7, 200)), mean=torch.zeros(1))


def _recovers(mean: float) -> Fidelity:
    """A dictionary that recovers so much of the loss on average, and about so much of every image's."""
    noise = numpy_rng(round(100 * mean) % 97).standard_normal(200)
    loss = WITHOUT.mean_loss - mean + 0.01 * (noise - noise.mean())
    return Fidelity(loss, *np.ones((3, 200)), strength=torch.ones(200, 1))


def test_explained_variance_is_the_same_at_any_scale_of_activations() -> None:
    found = _recovers(1)._replace(error=np.full(200, 2.0**-42))
    measures = fidelity_measures(found, WITHOUT._replace(deviation=np.full(200, 2.0**-40)), BOOTSTRAP)
    assert measures["explained_variance"] == Estimate(value=0.75, low=0.75, high=0.75, n=200)


@pytest.mark.parametrize(("theirs", "own"), [(-2, -1), (0.8, -0.02), (0.8, 0)])
def test_nothing_is_compared_with_a_dictionary_that_recovers_nothing(theirs: float, own: float) -> None:
    found = relative_recovery(_recovers(theirs), _recovers(own), WITHOUT, BOOTSTRAP)
    assert isinstance(found, NotMeasured)
    assert "hardly recovers any loss" in found.not_measured


def test_a_dictionary_that_is_worse_than_the_mean_recovers_less_than_nothing() -> None:
    found = relative_recovery(_recovers(-2), _recovers(0.5), WITHOUT, BOOTSTRAP)
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(-4, abs=0.1)
    assert found.low < found.value < found.high < -3.5


def test_a_dictionary_that_keeps_everything_and_one_that_keeps_the_mean() -> None:
    """Fidelity is 1 for the activations themselves, and 0 for their mean, in every measure of it."""
    classifier = _classifier()
    site = Site(classifier)
    images = torch.rand(300, 1, 8, 8)
    seen = Seen(images, classifier(images).argmax(dim=1), None)
    rows = site.read(images, None)[:, 0]
    without = ablate(site, seen)
    assert np.allclose(without.deviation, (rows - rows.mean(dim=0)).square().sum(dim=1).numpy(), rtol=1e-4)

    measures = fidelity_measures(rebuild(site, seen, _whole(rows)), without, BOOTSTRAP)
    for name in ("explained_variance", "loss_recovered_mean", "loss_recovered_zero"):
        found = measures[name]
        assert isinstance(found, Estimate), name
        assert found.value == pytest.approx(1, abs=1e-4), name
    assert isinstance(measures["accuracy"], Estimate)
    assert measures["accuracy"].value == 1

    nothing = SparseAutoencoder(6, 12, 12)
    nothing.centre.copy_(rows.mean(dim=0))
    measures = fidelity_measures(rebuild(site, seen, nothing), without, BOOTSTRAP)
    for name in ("explained_variance", "loss_recovered_mean"):
        found = measures[name]
        assert isinstance(found, Estimate), name
        assert found.value == pytest.approx(0, abs=1e-4), name
    dead, active = measures["dead_units"], measures["active_units"]
    assert isinstance(dead, Estimate)
    assert isinstance(active, Estimate)
    assert (dead.value, active.value) == (1, 0)
    assert dead.low < 1  # a share of all of twelve
    assert active.high == 0


def test_losses_are_cross_entropies_of_the_classifier_itself() -> None:
    classifier = _classifier()
    images, label = torch.rand(20, 1, 8, 8), torch.arange(20) % 3
    site = Site(classifier)
    without = ablate(site, Seen(images, label, None))
    logits, features = classifier(images, return_features=True)
    assert np.allclose(without.loss, F.cross_entropy(logits, label, reduction="none").numpy(), atol=1e-5)
    bias = classifier.head.bias.expand(20, -1)
    assert np.allclose(without.zero_loss, F.cross_entropy(bias, label, reduction="none").numpy(), atol=1e-5)
    mean = classifier.head(features.mean(dim=0)).expand(20, -1)
    assert np.allclose(without.mean_loss, F.cross_entropy(mean, label, reduction="none").numpy(), atol=1e-5)


def test_monosemanticity_is_the_weighted_mean_over_pairs() -> None:
    rng = library_torch_rng(0)
    strength, features = torch.rand(12, 3, generator=rng), torch.randn(12, 5, generator=rng)
    strength[:, 2] = 0
    strength[4, 2] = 1  # one image only
    centred = F.normalize((features - features.mean(dim=0)).double(), dim=1)
    found = monosemanticity(strength, features)
    for unit in range(2):
        total = weight = 0.0
        for i in range(12):
            for j in range(12):
                if i != j:
                    pair = float(strength[i, unit] * strength[j, unit])
                    total += pair * float(centred[i] @ centred[j])
                    weight += pair
        assert float(found[unit]) == pytest.approx(total / weight, rel=1e-5)
    assert bool(found[2].isnan())


def test_a_unit_of_one_class_is_alike_and_one_of_all_images_is_not() -> None:
    label = torch.arange(300) % 3
    features = F.one_hot(label).float() + 0.01 * torch.randn(300, 3, generator=library_torch_rng(0))
    one, all_ = (label == 1).float(), torch.ones(300)
    found = monosemanticity(torch.stack([one, all_], dim=1), features)
    assert float(found[0]) > 0.95
    assert abs(float(found[1])) < 0.02


def test_a_dictionary_in_another_order_is_found_whole_and_a_half_of_it_by_half() -> None:
    rng = library_torch_rng(0)
    directions = torch.randn(10, 64, generator=rng)
    order = torch.randperm(10, generator=rng)
    assert np.allclose(matched_cosines(directions, 3 * directions[order]), 1)
    half = torch.cat([directions[:5], torch.randn(5, 64, generator=rng)])
    found = np.sort(matched_cosines(directions, half))
    assert np.allclose(found[5:], 1)
    assert (found[:5] < 0.5).all()


def test_partners_are_one_to_one() -> None:
    alike = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    other = torch.tensor([[1.0, 0.05], [0.0, 1.0]])
    assert (matched_cosines(alike, other) < 0.2).sum() == 1


def test_recovery_relative_to_a_dictionary_is_a_ratio_of_losses() -> None:
    classifier = _classifier()
    images = torch.rand(100, 1, 8, 8)
    seen, site = Seen(images, classifier(images).argmax(dim=1), None), Site(classifier)
    without, rows = ablate(site, seen), site.read(images, None)[:, 0]
    models = SparseAutoencoder.begin(rows, 12, 1, library_torch_rng(0)), _whole(rows)
    few, many = (rebuild(site, seen, model) for model in models)
    found = relative_recovery(few, many, without, BOOTSTRAP)
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(
        (without.mean_loss.sum() - few.loss.sum()) / (without.mean_loss.sum() - many.loss.sum())
    )
    same = relative_recovery(many, many, without, BOOTSTRAP)
    assert isinstance(same, Estimate)
    assert (same.value, same.low, same.high) == (1, 1, 1)


@pytest.mark.parametrize("size", [64, 1000])
def test_what_fills_up_a_fixed_batch_belongs_to_no_image(size: int) -> None:
    """Two batches of images, of which each is filled up: every image keeps its own strengths and errors."""
    seed_torch(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    images = torch.rand(300, 1, 4, 4, generator=torch_rng(0))
    seen = Seen(images, torch.arange(300) % 3, None)
    sites = [Site(adapt(module, (1, 4, 4))) for module in (network, InParts(network, size, fixed=True))]
    model = _whole(torch.zeros(1, 6))  # every unit may fire, so that no choice of them hangs on a rounding
    plain, filled = (rebuild(site, seen, model) for site in sites)
    assert plain.strength.std(dim=0).max() > 0.01
    assert filled.strength.shape == (300, 12)
    assert torch.allclose(filled.strength, plain.strength, atol=1e-5)
    assert np.allclose(filled.error, plain.error, atol=1e-5)
    assert np.allclose(filled.loss, plain.loss, atol=1e-5)
