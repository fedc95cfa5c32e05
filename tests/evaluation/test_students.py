"""What is taught to a student, what it is tested on, and why there may be no student at all."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from draws import library_seed_torch
from made_up import SHAPE, K, data, network, source
from torch import Tensor

from netinv.classifiers import (
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    predict,
    train_classifier,
)
from netinv.data import channel_statistics, to_uint8
from netinv.evaluation import students
from netinv.evaluation.students import DistillationConfig, distil, distilled_accuracy, student_accuracy
from netinv.results import Bootstrap, NotMeasured

TINY = ConvClassifierConfig(channels=(3,), feature_dim=7)
TRAINING = ClassifierTrainingConfig(epochs=2, batch_size=20)
DISTILLATION = DistillationConfig(steps=3, batch_size=10)
BOOTSTRAP = Bootstrap(4, 100)
CPU = torch.device("cpu")


def no(why: str) -> NotMeasured:
    return NotMeasured(not_measured=why)


def fresh(images: Tensor) -> Any:
    library_seed_torch(4)
    return build_classifier(TINY, K, SHAPE, *channel_statistics(to_uint8(images)))


def accuracy(student: Any, test: Any) -> Any:
    return BOOTSTRAP.mean((predict(student, test.images)[0].argmax(1) == test.labels).numpy())


def test_a_student_is_trained_on_images_and_labels_and_tested_on_real_ones() -> None:
    given, test = source(60), data(80, 2)
    found = student_accuracy(given, test, TINY, TRAINING, BOOTSTRAP, CPU)
    student = fresh(given.images)
    images = data(60, 0)._replace(images=to_uint8(given.images), labels=given.label)
    for _ in train_classifier(student, images, TRAINING, 4):
        pass
    assert found == accuracy(student, test)


def test_a_distilled_student_is_taught_by_the_classifier_and_tested_on_real_images() -> None:
    images, test = source(60).images, data(80, 2)
    found = distilled_accuracy(images, test, TINY, DISTILLATION, network(7), BOOTSTRAP)
    student = fresh(images)
    distil(student, network(7), images, DISTILLATION, 4)
    assert found == accuracy(student, test)


def test_the_random_state_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    student_accuracy(source(60), data(80, 2), TINY, TRAINING, BOOTSTRAP, CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_a_student_that_cannot_be_had_says_why() -> None:
    given, test = source(60), data(80, 2)
    same = source(60, images=torch.zeros(60, *SHAPE))
    for found, why in (
        (student_accuracy(given, test, TINY, None, BOOTSTRAP, CPU), "evaluate.student is null"),
        (student_accuracy(given, None, TINY, TRAINING, BOOTSTRAP, CPU), "no real test images were given"),
        (student_accuracy(same, test, TINY, TRAINING, BOOTSTRAP, CPU), "all 60 images are the same"),
        (
            student_accuracy(source(60, name="real_test"), test, TINY, TRAINING, BOOTSTRAP, CPU),
            "the student is tested on these images",
        ),
        (
            distilled_accuracy(given.images, None, TINY, DISTILLATION, network(7), BOOTSTRAP),
            "no real test images were given",
        ),
    ):
        assert found == no(why)


def test_two_classes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    two = source(60, logits=torch.zeros(60, 2), label=torch.arange(60) % 2)
    test = data(80, 2)
    found = student_accuracy(two, test._replace(labels=test.labels % 2), TINY, TRAINING, BOOTSTRAP, CPU)
    assert not isinstance(found, NotMeasured)


def test_a_training_that_diverges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*args: Any) -> Iterator[Any]:
        raise FloatingPointError

    monkeypatch.setattr(students, "train_classifier", diverge)
    found = student_accuracy(source(60), data(80, 2), TINY, TRAINING, BOOTSTRAP, CPU)
    assert found == no("the student's training diverged; lower its learning rate")


def test_a_student_learns_from_fresh_draws_of_its_seed() -> None:
    images = source(60).images
    taught = {}
    for seed in (0, 1):
        student = fresh(images)
        distil(student, network(7), images, DISTILLATION, seed)
        assert not student.training
        taught[seed] = [weight.clone() for weight in student.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(taught[0], taught[1], strict=True) if a.ndim > 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_loss_that_is_not_finite_names_the_last_step(steps: int) -> None:
    images = torch.full((20, *SHAPE), torch.nan)
    config = DISTILLATION.model_copy(update={"steps": steps})
    told = rf"^The student's loss is nan at step {steps}; lower the lr\.$"
    with pytest.raises(FloatingPointError, match=told):
        distil(fresh(source(20).images), network(7), images, config, 0)
