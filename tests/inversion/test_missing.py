"""Which classes a generator cannot draw, what is told of them, and to which variant settings belong."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, variant_config, variant_of
from netinv.inversion.missing import class_accuracies, missing_classes, missing_message, read_as_asked

CONFIG = InversionConfig(batch_size=10, sharpness=(3.0, 3.0))


class Telling(ConditionedGenerator):
    """Draws the wanted class and a part of the latent as two pixels, and notes how many images it is asked for."""

    def __init__(self, classes: int) -> None:
        super().__init__(GeneratorConfig(latent_dim=4, hidden_dim=4, width=2, max_width=2), classes, (1, 4, 4))
        self.asked: list[str] = []

    def forward(self, latent: Tensor, vector: Tensor, *_: object) -> Tensor:
        self.asked.append(f"draws {len(latent)}")
        pixels = torch.stack([vector.argmax(dim=1).float(), latent[:, 0]], dim=1)
        return torch.nn.functional.pad(pixels, (0, 14)).view(-1, 1, 4, 4)


class Reading:
    """Reads an image of class k as the class after it unless ``right`` of the class (N,) and of the latent (N,)."""

    device = torch.device("cpu")

    def __init__(self, generator: Telling, right: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.classes, self.right, self.asked = generator.num_classes, right, generator.asked
        self.seen = torch.zeros(self.classes, dtype=torch.long)

    def __call__(self, images: Tensor) -> Tensor:
        self.asked.append(f"reads {len(images)}")
        pixels = images.flatten(1)
        label = pixels[:, 0].long()
        read = torch.where(self.right(label, pixels[:, 1]), label, (label + 1) % self.classes)
        self.seen += torch.bincount(label, minlength=self.classes)
        return torch.nn.functional.one_hot(read, self.classes).float()


def measured(shares: list[float]) -> tuple[tuple[float, ...], Tensor]:
    """Accuracies of classes that are truly read as asked so often, and the images of each that were looked at."""
    below = torch.tensor([NormalDist().inv_cdf(share) if 0 < share < 1 else (share - 0.5) * 99 for share in shares])
    generator = Telling(len(shares))
    classifier = Reading(generator, lambda label, latent: latent < below[label])
    return class_accuracies(generator, classifier, CONFIG), classifier.seen  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [2, 10, 100, 300])
def test_a_class_is_missing_for_what_it_is_and_not_by_chance(classes: int) -> None:
    shares = [0.98] * classes
    shares[-1] = 0.5
    accuracies, seen = measured(shares)
    names = list(map(str, range(classes)))
    assert missing_classes(names, accuracies) == (names[-1],)
    assert seen.sum() < 1.5 * classes * min(50, max(10, 2000 // classes))


def test_what_is_clear_at_a_first_look_gets_no_second_one() -> None:
    for classes, each in ((2, 50), (10, 50), (100, 20), (500, 10)):
        accuracies, seen = measured([1.0, 0.0] * (classes // 2))
        assert accuracies == (1.0, 0.0) * (classes // 2)
        assert set(seen.tolist()) == {each}


def test_what_is_not_clear_gets_more_images_within_bounds() -> None:
    accuracies, seen = measured([0.84, *[1.0] * 19])
    assert seen.tolist() == [*[400] * 10, *[50] * 10]  # with images of nine others, which do not count
    assert 0.8 < accuracies[0] < 1
    assert accuracies[1:] == (1.0,) * 19
    _, seen = measured([0.87] * 300)
    assert 2 * 3000 < seen.sum() <= 4 * 3000
    assert set(seen.tolist()) <= {10, 20, 40, 80, 160, 320}


def test_every_batch_is_of_ten_classes_or_all_at_every_look() -> None:
    """Batch norm without running statistics would take a batch of one class for something else."""
    for classes in (3, 20):
        mixed: list[int] = []

        def right(label: Tensor, latent: Tensor, mixed: list[int] = mixed) -> Tensor:
            mixed.append(len(label.unique()))
            return (label > 0) | (latent < 1.08)  # 0.86 of the images of class 0

        generator = Telling(classes)
        reading: Any = Reading(generator, right)
        class_accuracies(generator, reading, CONFIG)
        assert len(mixed) > classes * 5  # more than a first look
        assert set(mixed) == {min(10, classes)}


def test_nine_of_ten_images_are_nine_in_ten() -> None:
    counted = torch.zeros(2, dtype=torch.long)
    latents = set()

    def right(label: Tensor, latent: Tensor) -> Tensor:
        latents.update(latent.tolist())
        places = []
        for k in label.tolist():
            places.append(counted[k].item())
            counted[k] += 1
        return torch.tensor(places) % 10 != 3

    generator = Telling(2)
    accuracies = class_accuracies(generator, Reading(generator, right), CONFIG)  # type: ignore[arg-type]
    assert counted.tolist() == [200, 200]
    assert len(latents) == 400  # each look draws images of its own
    assert accuracies == (0.9, 0.9)
    assert missing_classes("ab", accuracies) == ()


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"batch_size": 6}, ["draws 6", "reads 6"] * 3),
        (
            {"batch_size": 8, "images_at_once": 3},
            ["draws 8", "reads 3", "reads 3", "reads 2"] * 2,
        ),
        ({"batch_size": 500}, ["draws 500", "reads 500"]),
    ],
)
def test_images_are_drawn_and_read_in_batches_as_in_the_training(settings: dict[str, int], asked: list[str]) -> None:
    generator = Telling(3)
    classifier = Reading(generator, lambda label, latent: label != 1)
    labels = [0, 1, 2, 1, 1, 0, 0, 0, 2, 1, 2, 1, 0]
    right = read_as_asked(generator, classifier, CONFIG.model_copy(update=settings), 13, 0, labels)  # type: ignore[arg-type]
    assert right.tolist() == [label != 1 for label in labels]
    assert generator.asked == asked


def test_a_classifier_that_fails_leaves_the_generator_and_the_random_state_as_they_were() -> None:
    def fails(label: Tensor, latent: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    generator = Telling(3).train()
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of memory") as told:
        read_as_asked(generator, Reading(generator, fails), CONFIG, 300, 0)  # type: ignore[arg-type]
    assert told.traceback  # holds on to whatever was under way
    assert all(module.training for module in generator.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_is_drawn_from_nine_in_ten_on() -> None:
    names, accuracies = ("a", "b", "c", "d"), (0.9, 287 / 320, 0.0, 1.0)
    assert missing_classes(names, accuracies) == ("b", "c")
    assert missing_message(names, accuracies) == (
        "Of the classes b (0.897), c (0.000) fewer than 90% of the images are read as asked: try more steps or another "
        "seed, and do not take what is drawn of them for what the classifier believes."
    )
    for call in (missing_classes, missing_message):
        with pytest.raises(ValueError, match="zip"):
            call(names, accuracies[:3])


@pytest.mark.parametrize(
    ("num", "told"), [(10, "j (0.250) fewer"), (11, "j (0.250) and 1 more fewer"), (40, "and 30 more")]
)
def test_ten_of_them_are_named(num: int, told: str) -> None:
    names = [chr(ord("a") + i) for i in range(num)]
    sentence = missing_message(names, [0.25] * num)
    assert told in sentence
    assert sentence.count("(0.250)") == 10


def test_robust_is_what_survives_a_perturbation() -> None:
    assert variant_of(InversionConfig()) == "standard"
    assert variant_of(InversionConfig(perturbation="noise", epsilon=0.1)) == "robust"
    for name in ("standard", "robust"):
        assert variant_of(variant_config(name)) == name
