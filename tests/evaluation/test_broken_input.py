"""Input that cannot be measured gets a reason, or a sentence."""

import pytest
import torch
from torch import Tensor
from worlds import CLASSES, CONFIG, SHAPE, Fixed, Replay, World, reason, row, run, untrained, value

from netinv.classifiers import (
    Classifier,
)
from netinv.core import InputError
from netinv.data import LabelledImages
from netinv.evaluation import EvaluationConfig, evaluate
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.results import Estimate


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
    made = row(results, "generator 0")
    others = [k for k in range(10) if k != 7]
    scores, wanted = ([value(r.by_class["vendi"][k]) for k in others] for r in (made, real))
    assert value(made.measures["vendi_ratio"]) == pytest.approx(sum(scores) / sum(wanted), rel=1e-6)


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
    for name, split in (("real_train", "training"), ("real_test", "test")):
        assert {reason(m) for m in row(results, name).measures.values()} == {f"no real {split} images were given"}


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
