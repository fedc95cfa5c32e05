"""The evaluation as a whole, on real digits: known sources get known numbers, and bad input gets a reason."""

import pytest
import torch
import torch.nn.functional as F
from draws import seed_torch, torch_rng
from worlds import CLASSES, CONFIG, QUICK, SHAPE, Replay, World, reason, row, run, untrained, value, walk

from netinv.classifiers import (
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    predict,
    train_classifier,
)
from netinv.data import LabelledImages, channel_statistics, to_float
from netinv.evaluation import evaluate, measure_images
from netinv.evaluation.evaluate import Evaluation
from netinv.evaluation.privacy import MEMBERSHIP_ALARM, membership
from netinv.evaluation.rows import MEASURES
from netinv.generators import draw_images
from netinv.results import Bootstrap, Comparison, Estimate, Results


@pytest.fixture(scope="module")
def found(world: World) -> Evaluation:
    """A thief, an honest generator, and one that knows nothing."""
    return run(world, Replay(world.train), Replay(world.unseen), untrained(), config=CONFIG)


def test_every_row_has_every_measure_with_an_interval_or_a_reason(found: Evaluation) -> None:
    names = ["generator 0", "generator 1", "generator 2", "ensemble", "real_train", "real_test", "noise", "one_picture"]
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
    for name in ("inversion_accuracy", "evaluator_accuracy"):
        assert rows["honest"].measures[name] == of_generator.measures[name]
    for name in ("robust_accuracy", "student_accuracy"):  # the order of the images is another
        assert value(rows["honest"].measures[name]) == pytest.approx(value(of_generator.measures[name]), abs=0.3)
    compared = {name: row.measures["coverage"] for name, row in rows.items()}
    assert value(compared["honest"]) > value(compared["fewer"])
    assert rows["honest"].audit.memorised is None


def test_the_order_of_images_from_anywhere_does_not_matter(world: World) -> None:
    """Half of them are noise: what looks at some of them alone has to see both halves, and every class."""
    rng = torch_rng(5)
    images = torch.cat([to_float(world.train.images[:400]), torch.rand(400, *SHAPE, generator=rng)])
    label = torch.cat([world.train.labels[:400], torch.randint(10, (400,), generator=rng)])
    shuffled = torch.randperm(800, generator=rng)
    orders = {"by source": torch.arange(800), "by class": label.argsort(stable=True)}
    orders |= {"shuffled": shuffled, "fewer": shuffled[:200]}
    changes = {"epsilons": (0.0,), "robust_epsilon": 0.0, "robust_samples": 200}
    sets = {name: (images[order], label[order]) for name, order in orders.items()}
    config = QUICK.model_copy(update=changes)
    rows = measure_images(sets, world.classifier, world.evaluator, world.test, config)
    for name in ("coverage", "robust_accuracy", "vendi_pixels"):
        expected = pytest.approx(value(rows["shuffled"].measures[name]), rel=0.25, abs=0.22)
        assert [value(rows[order].measures[name]) for order in ("by source", "by class")] == [expected] * 2


def test_what_knows_nothing_measures_like_noise(found: Evaluation) -> None:
    nothing = row(found.results, "generator 2").measures
    for network in ("inversion", "evaluator"):
        assert value(nothing[f"{network}_accuracy"]) < 0.3
    assert value(nothing["coverage"]) < 0.1
    assert value(nothing["student_accuracy"]) < 0.5
    assert value(row(found.results, "real_train").measures["student_accuracy"]) > 0.5
    taught = found.results.headline
    assert value(taught["distilled_real_accuracy"]) > 0.3  # of a few steps; noise teaches as much at times
    assert 0.1 < value(taught["distilled_accuracy"]) <= 1


def test_a_thief_is_caught(found: Evaluation) -> None:
    """Who is honest is alarmed at once in a hundred draws, which ``test_privacy.py`` counts."""
    assert row(found.results, "generator 0").audit.memorised
    assert found.results.leak
    assert "Training images leak" in found.results.verdict


def test_the_audit_carries_its_own_controls(found: Evaluation) -> None:
    audits = {name: row(found.results, name).audit for name in ("real_train", "real_test")}
    assert audits["real_train"].memorised
    assert audits["real_test"].memorised is False
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


def test_the_same_seed_gives_the_same_results(world: World) -> None:
    first, again = (run(world, untrained()).results for _ in range(2))
    assert first == again


# Bad input: a reason, never a silent zero
