"""The evaluation as a whole, on real digits: known sources get known numbers, and bad input gets a reason."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import numpy_rng, seed_torch, torch_rng
from torch import Tensor

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    ResidualClassifierConfig,
    build_classifier,
    freeze,
    predict,
    train_classifier,
)
from netinv.core import Config, InputError
from netinv.data import LabelledImages, channel_statistics, to_float
from netinv.evaluation import EvaluationConfig, diversity, evaluate, measure_images, measures
from netinv.evaluation.evaluate import Evaluation
from netinv.evaluation.privacy import MEMBERSHIP_ALARM, membership
from netinv.evaluation.rows import MEASURES
from netinv.evaluation.samples import SampleSet, constant
from netinv.evaluation.students import DistillationConfig
from netinv.generators import ConditionedGenerator, GeneratorConfig, draw_images
from netinv.results import Bootstrap, Comparison, Estimate, Measure, NotMeasured, Results, Row

SHAPE = (1, 8, 8)
CLASSES = tuple("0123456789")
CONFIG = EvaluationConfig(
    num_samples=300,
    sharpness=(1.0, 10.0),
    sharpness_samples=100,
    vendi_samples=20,
    epsilons=(0.0, 0.1),
    attack_steps=3,
    robust_samples=50,
    privacy_samples=200,
    resamples=200,
    student=ClassifierTrainingConfig(epochs=8, batch_size=32),
    distillation=DistillationConfig(images=200, steps=120, batch_size=32, shift=1, distortion=0.1, color_jitter=0),
    student_architecture=ConvClassifierConfig(channels=(8,), feature_dim=32, dropout=0),
)
QUICK = CONFIG.model_copy(update={"student": None, "distillation": None})


class World(NamedTuple):
    """Real digits in three parts, and two networks trained on the first."""

    train: LabelledImages
    test: LabelledImages
    unseen: LabelledImages
    classifier: Classifier
    evaluator: Classifier


@pytest.fixture(scope="module")
def world() -> World:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = numpy_rng(0).permutation(len(digits.target))
    images = torch.from_numpy((digits.images[order] / 16 * 255).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target[order].astype(np.int64))
    parts = [LabelledImages(images[a:b], labels[a:b]) for a, b in ((0, 800), (800, 1200), (1200, 1797))]
    networks = []
    training = ClassifierTrainingConfig(epochs=8, batch_size=64, shift=1)
    for seed, architecture in enumerate(
        (ConvClassifierConfig(channels=(16, 32), feature_dim=32), ResidualClassifierConfig(channels=(8, 16)))
    ):
        seed_torch(seed)
        network = build_classifier(architecture, 10, SHAPE, *channel_statistics(parts[0].images))
        for _ in train_classifier(network, parts[0], training, seed):
            pass
        freeze(network)
        networks.append(network)
    return World(*parts, *networks)


class Replay(ConditionedGenerator):
    """A fake generator that shows images it was given, of the wanted class, chosen by the latent."""

    def __init__(self, data: LabelledImages) -> None:
        super().__init__(GeneratorConfig(width=2, latent_dim=4, dropout=0), 10, SHAPE)
        self.pictures, self.members = to_float(data.images), [torch.nonzero(data.labels == k)[:, 0] for k in range(10)]

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        pick = (latent[:, 0].abs() * 1e4).long()
        chosen = [self.members[k][i % len(self.members[k])] for k, i in zip(vector.argmax(1), pick, strict=True)]
        return self.pictures[torch.stack(chosen)]


class Fixed(ConditionedGenerator):
    """A fake generator that always shows the same pixel value, which may be NaN."""

    def __init__(self, pixel: float) -> None:
        super().__init__(GeneratorConfig(width=2, latent_dim=4), 10, SHAPE)
        self.pixel = pixel

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        return torch.full((len(latent), *SHAPE), self.pixel)


def untrained(seed: int = 0, dropout: float = 0.2) -> ConditionedGenerator:
    seed_torch(seed)
    generator = ConditionedGenerator(GeneratorConfig(width=4, latent_dim=8, dropout=dropout), 10, SHAPE)
    return generator.eval()


def run(world: World, *generators: ConditionedGenerator, config: EvaluationConfig = QUICK) -> Evaluation:
    return evaluate(generators, world.classifier, world.evaluator, CLASSES, world.train, world.test, config, (3.0, 3.0))


@pytest.fixture(scope="module")
def found(world: World) -> Evaluation:
    """A thief, an honest generator, and one that knows nothing."""
    return run(world, Replay(world.train), Replay(world.unseen), untrained(), config=CONFIG)


def row(results: Results, name: str) -> Row:
    return next(r for r in results.rows if r.name == name)


def value(measure: Measure) -> float:
    assert isinstance(measure, Estimate), measure
    return measure.value


def reason(measure: Measure) -> str:
    assert isinstance(measure, NotMeasured), measure
    return measure.not_measured


def walk(part: object) -> list[Measure]:
    """Every measure in a result."""
    if isinstance(part, Estimate | NotMeasured):
        return [part]
    inner: list[object] = []
    if isinstance(part, Config):
        inner = [getattr(part, name) for name in type(part).model_fields]
    elif isinstance(part, dict):
        inner = list(part.values())
    elif isinstance(part, tuple):
        inner = list(part)
    return [measure for item in inner for measure in walk(item)]


# What known sources get


def test_every_row_has_every_measure_with_an_interval_or_a_reason(found: Evaluation) -> None:
    names = ["generator 0", "generator 1", "generator 2", "ensemble", "real_train", "real_test", "noise"]
    assert [r.name for r in found.results.rows] == names
    for r in found.results.rows:
        assert tuple(r.measures) == tuple(r.dropout) == MEASURES
    everything = walk(found.results)
    assert len(everything) > 500
    for measure in everything:
        if isinstance(measure, Estimate):
            assert measure.low <= measure.value <= measure.high
        else:
            assert measure.not_measured
    assert Results.model_validate_json(found.results.model_dump_json()) == found.results


def test_real_images_from_a_generator_measure_like_real_images(found: Evaluation, world: World) -> None:
    honest, real = row(found.results, "generator 1").measures, row(found.results, "real_test").measures
    for name in ("inversion_accuracy", "evaluator_accuracy", "robust_accuracy"):
        assert value(honest[name]) == pytest.approx(value(real[name]), abs=0.2)
    for name in ("vendi_ratio", "vendi_centred_ratio", "vendi_pixels_ratio"):
        assert value(honest[name]) == pytest.approx(1, abs=0.2)
        assert value(real[name]) == 1
    assert value(honest["density"]) == pytest.approx(1, abs=0.3)
    assert value(honest["coverage"]) > 0.8
    floor = value(row(found.results, "real_train").measures["frechet"])
    noise = value(row(found.results, "noise").measures["frechet"])
    assert value(honest["frechet"]) < 0.2 * noise
    assert floor < 0.2 * noise


def test_images_from_anywhere_are_measured_as_those_of_a_generator(found: Evaluation, world: World) -> None:
    drawn = {}
    for name, generator in (("honest", Replay(world.unseen)), ("fewer", untrained())):
        images, vector = draw_images(generator, CONFIG.num_samples, seed=CONFIG.seed, sharpness=(3.0, 3.0))
        drawn[name] = images, vector.argmax(dim=1)
    images, label = drawn["fewer"]
    drawn["fewer"] = images[:200], label[:200]
    rows = measure_images(drawn, world.classifier, world.evaluator, world.test, CONFIG)
    assert {name: row.samples for name, row in rows.items()} == {"honest": 300, "fewer": 200}
    of_generator = row(found.results, "generator 1")
    for name in ("inversion_accuracy", "evaluator_accuracy", "student_accuracy"):
        assert rows["honest"].measures[name] == of_generator.measures[name]
    assert rows["honest"].robustness == of_generator.robustness
    compared = {name: row.measures["coverage"] for name, row in rows.items()}
    assert value(compared["honest"]) > value(compared["fewer"])
    assert rows["honest"].audit.memorised is None


def test_what_knows_nothing_measures_like_noise(found: Evaluation) -> None:
    nothing = row(found.results, "generator 2").measures
    for network in ("inversion", "evaluator"):
        assert value(nothing[f"{network}_accuracy"]) < 0.3
    assert value(nothing["coverage"]) < 0.1
    assert value(nothing["student_accuracy"]) < 0.5
    assert value(row(found.results, "real_train").measures["student_accuracy"]) > 0.5
    taught = found.results.headline
    assert value(taught["distilled_noise_accuracy"]) < value(taught["distilled_real_accuracy"])
    assert value(taught["distilled_real_accuracy"]) > 0.4
    assert 0.1 < value(taught["distilled_accuracy"]) <= 1


def test_a_thief_is_caught_and_the_honest_are_not(found: Evaluation) -> None:
    assert [row(found.results, f"generator {i}").audit.memorised for i in range(3)] == [True, False, False]
    assert found.results.leak
    assert "Training images leak" in found.results.verdict


def test_the_audit_carries_its_own_controls(found: Evaluation) -> None:
    audits = {name: row(found.results, name).audit for name in ("real_train", "real_test", "noise")}
    assert {name: audit.memorised for name, audit in audits.items()} == {
        "real_train": True,
        "real_test": False,
        "noise": False,
    }
    pixel = audits["real_train"].comparisons["pixel"]
    assert isinstance(pixel, Comparison)
    assert value(pixel.train) == pytest.approx(0, abs=1e-6)
    assert value(pixel.copies_train) == 1


def test_every_measure_is_taken_with_dropout_too(found: Evaluation) -> None:
    for name in ("generator 0", "generator 1"):
        assert {reason(m) for m in row(found.results, name).dropout.values()} == {"the generator has no dropout"}
    assert {reason(m) for m in row(found.results, "noise").dropout.values()} == {"these images are not generated"}
    nothing = row(found.results, "generator 2")
    measured = [name for name in MEASURES if isinstance(nothing.measures[name], Estimate)]
    assert measured == [name for name in MEASURES if isinstance(nothing.dropout[name], Estimate)]
    assert len(measured) == len(MEASURES)
    assert all(value(nothing.dropout[name]) != value(nothing.measures[name]) for name in ("kl", "vendi", "frechet"))


def test_an_overfitted_classifier_is_caught_and_a_sound_one_is_not(found: Evaluation, world: World) -> None:
    sound = found.results.headline["membership_auc"]
    assert isinstance(sound, Estimate)
    assert sound.low < MEMBERSHIP_ALARM
    few = LabelledImages(world.train.images[:200], world.train.labels[:200].clone())
    few.labels[:60] = few.labels[:60].roll(1)  # mostly wrong: nobody could know them but from the training images
    seed_torch(0)
    architecture = ConvClassifierConfig(channels=(16, 32), feature_dim=64, dropout=0)
    overfitted = build_classifier(architecture, 10, SHAPE, *channel_statistics(few.images))
    for record in train_classifier(overfitted, few, ClassifierTrainingConfig(epochs=60, batch_size=32), seed=0):
        assert record["epoch"] < 60 or record["accuracy"] > 0.95
    results = evaluate(
        [Replay(world.unseen)], overfitted, world.evaluator, CLASSES, few, world.test, QUICK, (3.0, 3.0)
    ).results
    told = results.headline["membership_auc"]
    assert isinstance(told, Estimate)
    assert told.low > MEMBERSHIP_ALARM
    assert results.leak
    assert "gives away which images it was trained on" in results.verdict


def test_membership_agrees_with_scikit_learn(world: World) -> None:
    from sklearn.metrics import roc_auc_score

    train, test = predict(world.classifier, world.train.images)[0], predict(world.classifier, world.test.images)[0]
    scores = [
        F.log_softmax(logits.double(), 1).gather(1, data.labels[:, None])
        for logits, data in ((train, world.train), (test, world.test))
    ]
    expected = roc_auc_score([1] * len(train) + [0] * len(test), torch.cat(scores)[:, 0])
    got = membership(train, world.train.labels, test, world.test.labels, Bootstrap(0))
    assert value(got) == pytest.approx(expected, rel=1e-9)


def test_the_ensemble_takes_its_samples_in_turn(found: Evaluation, world: World) -> None:
    images, labels = found.images["ensemble"]
    for i in range(6):
        assert torch.equal(images[i], found.images[f"generator {i % 3}"].images[i])
    plain = row(found.results, "ensemble").robustness[0]
    expected = (predict(world.classifier, images[:50])[0].argmax(1) == labels[:50]).float().mean()
    assert (plain.epsilon, value(plain.accuracy)) == (0, pytest.approx(float(expected), abs=0.02))  # of 256 levels


def test_a_headline_is_the_ensembles_and_the_worst_generators(found: Evaluation) -> None:
    accuracies = [value(row(found.results, f"generator {i}").measures["inversion_accuracy"]) for i in range(3)]
    together = row(found.results, "ensemble").measures["inversion_accuracy"]
    assert found.results.headline["inversion_accuracy"] == together
    assert value(found.results.headline["inversion_accuracy_min"]) == min(accuracies)


# Definitions, against independent computations


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


def test_the_same_seed_gives_the_same_results(world: World) -> None:
    first, again = (run(world, untrained()).results for _ in range(2))
    assert first == again


# Bad input: a reason, never a silent zero


def test_images_that_are_not_finite(world: World) -> None:
    results = run(world, Fixed(float("nan")), Replay(world.unseen)).results
    broken = row(results, "generator 0")
    assert {reason(m) for m in broken.measures.values()} == {"300 of 300 images hold values that are not finite"}
    assert {reason(m) for m in broken.dropout.values()} == {"300 of 300 images hold values that are not finite"}
    assert broken.audit.memorised is None
    assert value(row(results, "generator 1").measures["inversion_accuracy"]) > 0.7
    assert "not finite" in reason(row(results, "ensemble").measures["inversion_accuracy"])
    assert "not finite" in reason(results.headline["inversion_accuracy"])
    assert "NaN" not in results.model_dump_json()


class Failing(Classifier):
    """A network that answers dark images, or all, with NaN."""

    def __init__(self, network: Classifier, up_to: float) -> None:
        super().__init__(10, SHAPE, network.head.in_features, (0.3,), (0.3,))
        self.network, self.up_to = network, up_to

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        logits, features = self.network(images, return_features=True)
        dark = images.mean((1, 2, 3))[:, None] <= self.up_to
        logits, features = (torch.where(dark, torch.nan, answer) for answer in (logits, features))
        return (logits, features) if return_features else logits


def test_answers_that_are_not_finite(world: World) -> None:
    black = [Fixed(0.0), Replay(world.unseen)]
    results = run(world._replace(classifier=Failing(world.classifier, 0.01)), *black).results
    why = "300 of 300 images get an answer from the classifier that is not finite"
    assert {reason(m) for m in row(results, "generator 0").measures.values()} == {why}
    assert value(row(results, "generator 1").measures["inversion_accuracy"]) > 0.7
    results = run(world._replace(classifier=Failing(world.classifier, 1.0)), Replay(world.unseen)).results
    assert "answer from the classifier that is not finite" in reason(results.headline["membership_auc"])
    assert not any(isinstance(measure, Estimate) for measure in results.headline.values())
    results = run(world._replace(evaluator=Failing(world.evaluator, 0.01)), *black).results
    assert "answer from the evaluator" in reason(row(results, "generator 0").measures["vendi"])
    with pytest.raises(InputError, match="evaluator gives values that are not finite for real images"):
        run(world._replace(evaluator=Failing(world.evaluator, 1.0)), Replay(world.unseen))


def test_constant_images(world: World) -> None:
    constant = row(run(world, Fixed(0.5), config=CONFIG).results, "generator 0").measures
    assert value(constant["inversion_accuracy"]) < 0.3
    for name in ("vendi", "vendi_pixels_ratio", "cosine_within", "density", "coverage", "frechet", "student_accuracy"):
        assert reason(constant[name]) == "all 300 images are the same"


def test_a_class_that_never_appears(world: World) -> None:
    keep = world.test.labels != 7
    test = LabelledImages(world.test.images[keep], world.test.labels[keep])
    results = run(world._replace(test=test), Replay(world.unseen)).results
    real = row(results, "real_test")
    assert reason(real.by_class["vendi"][7]) == f"0 samples of this class, {results.vendi_n} are needed"
    assert reason(real.by_class["inversion_accuracy"][7]) == "0 samples, at least 10 are needed"
    assert value(row(results, "generator 0").measures["vendi_ratio"]) == pytest.approx(1, abs=0.1)


def test_one_class(world: World) -> None:
    seed_torch(0)
    single = build_classifier(ConvClassifierConfig(channels=(4,), feature_dim=16), 1, SHAPE, (0.3,), (0.3,)).eval()
    generator = ConditionedGenerator(GeneratorConfig(width=2, latent_dim=4), 1, SHAPE).eval()
    data = LabelledImages(world.train.images, torch.zeros_like(world.train.labels))
    results = evaluate([generator], single, single, ("thing",), data, data, CONFIG).results
    only = row(results, "generator 0").measures
    for name in ("inversion_accuracy", "evaluator_accuracy", "student_accuracy"):
        assert reason(only[name]) == "with one class every answer is right"
    assert reason(only["cosine_between"]) == "there is no such pair of samples"
    assert value(only["cosine_within"]) <= 1
    assert reason(results.headline["membership_auc"]) == "with one class every answer is right"


def test_neither_real_images_nor_evaluator(world: World) -> None:
    results = evaluate([untrained()], world.classifier, None, CLASSES, None, None, CONFIG).results
    made = row(results, "generator 0")
    assert isinstance(made.measures["inversion_accuracy"], Estimate)
    assert isinstance(made.measures["vendi_pixels"], Estimate)
    assert isinstance(made.measures["robust_accuracy"], Estimate)
    for name in ("frechet", "student_accuracy", "vendi_pixels_ratio", "vendi_centred"):
        assert reason(made.measures[name]) == "no real test images were given"
    assert reason(made.measures["evaluator_accuracy"]) == "no evaluator was given"
    assert results.verdict == made.audit.verdict == "Not audited: it needs real training and real test images."
    assert results.leak is None
    for name in ("real_train", "real_test"):
        assert {reason(m) for m in row(results, name).measures.values()} == {"no real images were given"}


def test_too_few_test_images(world: World) -> None:
    few = LabelledImages(world.test.images[:4], world.test.labels[:4])
    results = run(world._replace(test=few), untrained()).results
    made = row(results, "generator 0")
    assert reason(made.measures["density"]) == "4 real test images, more than 5 are needed"
    assert reason(made.measures["frechet"]) == "4 images, more than the 16 features are needed"
    assert reason(row(results, "real_test").measures["inversion_accuracy"]) == "4 samples, at least 10 are needed"
    assert results.verdict == "Not audited: 4 real images on one side, at least 50 are needed."
    empty = LabelledImages(world.test.images[:0], world.test.labels[:0])
    results = run(world._replace(test=empty), untrained()).results
    assert reason(row(results, "generator 0").measures["coverage"]) == "no real test images were given"


def test_parts_that_do_not_fit_are_refused(world: World) -> None:
    with pytest.raises(InputError, match="no generator to evaluate"):
        run(world)
    other = ConditionedGenerator(GeneratorConfig(width=2), 10, (1, 16, 16))
    with pytest.raises(InputError, match=r"generator 0 has 10 classes and images of shape \(1, 16, 16\)"):
        run(world, other)
    with pytest.raises(InputError, match=r"robust_epsilon must be one of epsilons, \[0.0\]"):
        EvaluationConfig.parse({"epsilons": [0.0], "robust_epsilon": 0.1})
