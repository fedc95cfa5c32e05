"""Measures of one set of samples, against other libraries and plain counts."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import numpy_rng, torch_rng
from worlds import Replay, World, reason, value

from netinv.classifiers import (
    predict,
)
from netinv.evaluation import diversity, measures
from netinv.evaluation.samples import SampleSet, constant
from netinv.generators import draw_images
from netinv.results import Bootstrap, Estimate


@pytest.fixture(scope="module")
def samples(world: World) -> SampleSet:
    """Samples with a condition, as both networks see them."""
    images, vector = draw_images(Replay(world.unseen), 400, seed=1, sharpness=(1.0, 1.0))
    (logits, _), (judged, features) = predict(world.classifier, images), predict(world.evaluator, images)
    return SampleSet("generator 0", "generator", images, vector.argmax(1), vector, logits, judged, features)


def test_confusion_and_accuracy_by_class_agree_with_scikit_learn(samples: SampleSet) -> None:
    from sklearn.metrics import confusion_matrix, recall_score

    predicted = samples.logits.argmax(1)
    expected = confusion_matrix(samples.label, predicted, labels=range(10))
    assert np.array_equal(measures.confusion(samples)["classifier"], expected)
    by_class = measures.accuracies_by_class(samples, Bootstrap(0))["inversion_accuracy"]
    recalls = recall_score(samples.label, predicted, labels=range(10), average=None)
    assert [value(m) for m in by_class] == pytest.approx(list(recalls))


def test_kl_agrees_with_torch(samples: SampleSet) -> None:
    assert samples.vector is not None
    expected = F.kl_div(F.log_softmax(samples.logits, 1), samples.vector, reduction="batchmean")
    assert value(measures.intensity(samples, Bootstrap(0))["kl"]) == pytest.approx(float(expected), rel=1e-4)


def test_intensity_agrees_with_scipy(samples: SampleSet) -> None:
    from scipy.stats import binned_statistic, pearsonr

    assert samples.vector is not None
    rows = np.arange(len(samples.label))
    wanted = samples.vector.double().numpy()[rows, samples.label]
    obtained = torch.softmax(samples.logits.double(), 1).numpy()[rows, samples.label]
    means, counts = (
        binned_statistic(wanted, [wanted, obtained], how, bins=10, range=(0, 1)).statistic for how in ("mean", "count")
    )
    error = np.nansum(np.abs(means[0] - means[1]) * counts[0]) / len(rows)
    got = measures.intensity(samples, Bootstrap(0))
    assert value(got["intensity_error"]) == pytest.approx(error, rel=1e-9)
    assert value(got["intensity_correlation"]) == pytest.approx(pearsonr(wanted, obtained).statistic, rel=1e-9)
    for cell, one, other in zip(measures.calibration(samples, Bootstrap(0)), *means, strict=True):
        if isinstance(cell.wanted, Estimate):
            assert (value(cell.wanted), value(cell.obtained)) == pytest.approx((one, other), rel=1e-9)


def test_intensity_of_a_classifier_that_follows_the_condition(samples: SampleSet) -> None:
    assert samples.vector is not None
    perfect = dataclasses.replace(samples, logits=samples.vector.log())
    got = measures.intensity(perfect, Bootstrap(0))
    assert value(got["kl"]) == pytest.approx(0, abs=1e-6)
    assert value(got["intensity_error"]) == pytest.approx(0, abs=1e-6)
    assert value(got["intensity_correlation"]) == pytest.approx(1)
    for cell in measures.calibration(perfect, Bootstrap(0)):
        if isinstance(cell.wanted, Estimate):
            assert cell.low <= cell.wanted.value <= cell.high
            assert value(cell.obtained) == pytest.approx(cell.wanted.value, abs=1e-6)
    stubborn = dataclasses.replace(samples, logits=torch.zeros_like(samples.logits))
    got = measures.intensity(stubborn, Bootstrap(0))
    wanted = samples.vector.amax(1)
    assert value(got["intensity_error"]) == pytest.approx(float((wanted - 0.1).mean()), rel=1e-4)  # all of one sign
    assert "never varies" in reason(got["intensity_correlation"])
    shaken = dataclasses.replace(samples, logits=1e-7 * samples.logits)  # no more than rounding does
    assert "never varies" in reason(measures.intensity(shaken, Bootstrap(0))["intensity_correlation"])


def test_images_that_differ_by_rounding_are_the_same(samples: SampleSet) -> None:
    noise = torch.rand(samples.images.shape, generator=torch_rng(0))
    assert constant(0.5 + 1e-7 * noise) == "all 400 images are the same"
    assert constant(0.5 + 1e-3 * noise) is None


def test_gap_bins_part_the_samples(samples: SampleSet) -> None:
    bins = measures.accuracies_by_gap(samples, Bootstrap(0))
    sizes = [part.inversion_accuracy.n for part in bins if isinstance(part.inversion_accuracy, Estimate)]
    assert sum(sizes) == 400
    off_ties = measures.accuracies_off_ties(samples, Bootstrap(0))["inversion_accuracy_gap"]
    assert isinstance(off_ties, Estimate)
    assert off_ties.n == sum(sizes[1:])


def test_vendi_per_class_uses_n_samples_of_each(samples: SampleSet) -> None:
    from netinv.evaluation import vendi_score

    assert samples.features is not None
    for vectors in (samples.features, samples.images.flatten(1)):  # fewer dimensions than samples, and more
        scores = diversity.vendi_scores(vectors, samples, 20, Bootstrap(0))
        for k in range(10):
            own = vectors[samples.label == k][:20]
            assert scores.value[k] == pytest.approx(float(vendi_score(own)))
            first = next(iter(Bootstrap(0).draws(20, stream=k)))
            assert scores.replicates[0, k] == pytest.approx(float(vendi_score(own[first])))
        assert value(diversity.vendi_mean(scores)) == pytest.approx(scores.value.mean())


def test_a_vendi_interval_is_as_wide_as_fresh_samples_scatter(world: World) -> None:
    rng = numpy_rng(0)
    images = torch.cat([world.train.images, world.unseen.images]).flatten(1).float()
    labels = torch.cat([world.train.labels, world.unseen.labels])
    pool = images[labels == 3]
    scatter, widths = [], []
    for seed in range(40):
        drawn = pool[torch.from_numpy(rng.choice(len(pool), 20, replace=False))]
        label = torch.zeros(20, dtype=torch.long)
        only = SampleSet("x", "reference", drawn, label, None, torch.zeros(20, 1), None, None)
        measure = diversity.vendi_mean(diversity.vendi_scores(drawn, only, 20, Bootstrap(seed)))
        assert isinstance(measure, Estimate)
        scatter.append(measure.value)
        widths.append((measure.high - measure.low) / 2 / 1.96)
    assert 0.5 < np.mean(widths) / np.std(scatter) < 1.5


# Draws
