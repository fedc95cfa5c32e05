"""Training classifiers, on images small enough to be learned in seconds."""

import pytest
import torch
import torch.nn.functional as F
from draws import seed_torch, torch_rng
from torch import nn

from netinv.classifiers import (
    AdapterConfig,
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    ResidualClassifierConfig,
    adapt,
    batch_for,
    build_classifier,
    freeze,
    predict,
    train_classifier,
)
from netinv.data import LabelledImages, channel_statistics, to_float
from netinv.perturbations import random_affine, robust_accuracy


def bars(num: int, seed: int) -> LabelledImages:
    """Three classes: a bright bar in the upper, middle or lower third of an 8 x 9 image, on noise."""
    rng = torch_rng(seed)
    labels = torch.randint(3, (num,), generator=rng)
    images = torch.randint(0, 120, (num, 1, 9, 8), generator=rng, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 3 * label + 1] += 100
    return LabelledImages(images, labels)


def trained(
    config: ClassifierTrainingConfig, architecture: ConvClassifierConfig | ResidualClassifierConfig, seed: int = 0
) -> tuple[Classifier, list[dict[str, float]]]:
    data = bars(600, seed=0)
    seed_torch(seed)
    classifier = build_classifier(architecture, 3, (1, 9, 8), *channel_statistics(data.images))
    return classifier, list(train_classifier(classifier, data, config, seed))


CONV = ConvClassifierConfig(channels=(8,), feature_dim=16, batch_norm=False)
QUICK = ClassifierTrainingConfig(epochs=4, batch_size=32, lr=1e-2)


@pytest.mark.parametrize("architecture", [CONV, ResidualClassifierConfig(channels=(8, 16))])
def test_learns_the_task(architecture: ConvClassifierConfig | ResidualClassifierConfig) -> None:
    classifier, records = trained(QUICK, architecture)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["samples"] == 4 * 600
    assert records[-1]["loss"] < records[0]["loss"]
    assert not classifier.training
    test = bars(300, seed=1)
    logits, features = predict(classifier, test.images, batch_size=77)
    assert (logits.argmax(dim=1) == test.labels).float().mean() > 0.97
    assert features.shape == (300, 16)
    torch.testing.assert_close(logits, predict(classifier, to_float(test.images))[0])  # uint8 or float alike


@pytest.mark.parametrize(
    ("shape", "given", "most"),
    [((1, 8, 8), None, 1000), ((1, 8, 8), (1, 128, 128), 250), ((1, 128, 64), (1, 8, 8), 500)],
)
def test_a_batch_is_as_large_as_images_and_what_the_network_is_given_allow(
    shape: tuple[int, int, int], given: tuple[int, int, int] | None, most: int
) -> None:
    sizes: list[int] = []
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    adapted = adapt(network, shape, config=AdapterConfig(input_shape=given))
    network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    logits, _ = predict(adapted, torch.zeros(1, dtype=torch.uint8).expand(1001, *shape))
    assert (max(sizes), len(logits)) == (most, 1001) == (batch_for(adapted, 1000), 1001)


@pytest.mark.parametrize(("epsilon", "mixup"), [(0.0, 0.0), (0.05, 0.0), (0.05, 0.4)])
def test_a_seed_reproduces_bit_for_bit(epsilon: float, mixup: float) -> None:
    augmentations = {"shift": 1, "flip": True, "distortion": 0.2, "epsilon": epsilon, "mixup": mixup}
    config = QUICK.model_copy(update={"epochs": 1, **augmentations})
    (first, records), (again, same), (other, _) = (trained(config, CONV, seed) for seed in (3, 3, 4))
    assert records == same
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_lower_precision_rounds_the_layers_and_keeps_all_else() -> None:
    test = bars(300, seed=1)
    records = {}
    for precision in ("float32", "bfloat16"):
        config = QUICK.model_copy(update={"precision": precision, "epsilon": 0.02})
        classifier, records[precision] = trained(config, CONV)
        assert {weight.dtype for weight in classifier.parameters()} == {torch.float32}
        assert (predict(classifier, test.images)[0].argmax(dim=1) == test.labels).float().mean() > 0.97
    assert records["float32"] != records["bfloat16"]
    assert records["bfloat16"][0] == pytest.approx(records["float32"][0], rel=0.1)


def test_epsilon_buys_robustness_and_leaves_the_classifier_trainable() -> None:
    test = bars(300, seed=1)
    accuracy = {}
    for epsilon in (0.0, 0.15):
        classifier, _ = trained(QUICK.model_copy(update={"epsilon": epsilon}), CONV)
        assert all(weight.requires_grad for weight in classifier.parameters())
        freeze(classifier)
        accuracy[epsilon] = robust_accuracy(classifier, to_float(test.images), test.labels, epsilon=0.15, steps=10)
    assert accuracy[0.15] > accuracy[0.0] + 0.1


def test_distortion_in_training_pays_on_distorted_images() -> None:
    test = bars(300, seed=1)
    images = random_affine(to_float(test.images), 0.6, torch_rng(0))
    loss = {}
    for distortion in (0.0, 0.6):
        classifier, _ = trained(QUICK.model_copy(update={"distortion": distortion}), CONV)
        loss[distortion] = float(F.cross_entropy(predict(classifier, images)[0], test.labels))
    assert loss[0.6] < 0.8 * loss[0.0]


def test_mixup_leaves_doubt_between_two_classes_and_not_within_one() -> None:
    test = bars(300, seed=1)
    upper, lower = (to_float(test.images[test.labels == label])[:80] for label in (0, 2))
    surest = {}
    for mixup in (0.0, 1.0):
        classifier, records = trained(QUICK.model_copy(update={"mixup": mixup, "epochs": 8}), CONV)
        logits, _ = predict(classifier, test.images)
        assert (logits.argmax(dim=1) == test.labels).float().mean() > 0.97
        blended = predict(classifier, 0.6 * upper + 0.4 * lower)[0].softmax(dim=1)
        surest[mixup] = (float(blended.amax(dim=1).mean()), records[-1]["accuracy"])
    assert surest[1.0][0] < surest[0.0][0] - 0.1
    assert 0.6 < surest[1.0][1] < surest[0.0][1]  # what is blended half and half is a toss-up


@pytest.mark.parametrize("batches", [1, 25])
def test_a_training_that_is_left_early_leaves_a_classifier_that_is_ready(batches: int) -> None:
    """Between two epochs, or at a batch that fails."""
    data = bars(600, seed=0)
    classifier = build_classifier(CONV, 3, (1, 9, 8), *channel_statistics(data.images))
    calls = iter([None] * batches)
    classifier.register_forward_pre_hook(lambda *_: next(calls))
    ready = []

    def train() -> None:
        for _ in train_classifier(classifier, data, QUICK, 0):
            ready.append(not classifier.training)

    with pytest.raises(RuntimeError, match="StopIteration"):
        train()
    assert ready == [True] * (batches // 19)  # after each epoch that came to its end
    assert not classifier.training


def test_an_exploding_loss_stops_and_names_the_epoch() -> None:
    with pytest.raises(FloatingPointError, match="after epoch 1"):
        trained(QUICK.model_copy(update={"lr": 1e20}), CONV)
