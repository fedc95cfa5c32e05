"""Every setting of the distillation reaches what it is for."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from draws import library_seed_torch, library_torch_rng
from made_up import ONE, SHAPE, K, Spy, data, network, pictures
from torch import Tensor, nn

from netinv.evaluation import evaluate
from netinv.evaluation.students import DistillationConfig, distil
from netinv.results import NotMeasured


def test_images_and_their_sharpness_are_those_of_the_distilled_student(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []

    def accuracy(images: Tensor, *rest: Any) -> NotMeasured:
        shown.append(images)
        return NotMeasured(not_measured="in this test")

    module = sys.modules["netinv.evaluation.evaluate"]
    monkeypatch.setattr(module, "distilled_accuracy", accuracy)
    generators = [Spy(0), Spy(1)]
    distillation = DistillationConfig(images=31, sharpness=(0.3, 30.0))
    changes = {"num_samples": 20, "sharpness": (), "epsilons": (0.1,), "seed": 5, "distillation": distillation}
    config = ONE.model_copy(update=changes)
    evaluate(generators, network(7), None, "abc", None, None, config)
    assert len(shown[0]) == 2 * 16
    for i, generator in enumerate(generators):
        expected = pictures(generator, 16, distillation.sharpness, 5 + i)[0]
        torch.testing.assert_close(shown[0][16 * i : 16 * (i + 1)], expected)


@pytest.mark.parametrize("num_real", [90, 30, 0])
def test_the_controls_are_taught_with_as_many_images(monkeypatch: pytest.MonkeyPatch, num_real: int) -> None:
    shown: list[Tensor] = []

    def accuracy(images: Tensor, *rest: Any) -> NotMeasured:
        shown.append(images)
        return NotMeasured(not_measured="in this test")

    monkeypatch.setattr(sys.modules["netinv.evaluation.evaluate"], "distilled_accuracy", accuracy)
    changes = {"num_samples": 20, "sharpness": (), "distillation": DistillationConfig(images=61)}
    train = data(num_real, 1) if num_real else None
    results, images = evaluate([Spy(0), Spy(1)], network(7), None, "abc", train, None, ONE.model_copy(update=changes))
    found = results.headline
    assert [len(images) for images in shown] == ([62, min(num_real, 62), 62, 20] if num_real else [62, 62])
    assert all(images.min() >= 0 and images.max() <= 1 for images in shown)
    if train is None:
        for row in ("real", "one_picture"):
            assert found[f"distilled_{row}_accuracy"] == NotMeasured(not_measured="no real training images were given")
    else:
        assert torch.equal(shown[3].mul(255).round().byte(), images["one_picture"].images)  # as many as its row has
        assert len(torch.unique(shown[1].flatten(1), dim=0)) == min(num_real, 62)
        given = {tuple(image.flatten().tolist()) for image in train.images}
        assert {tuple(image.mul(255).round().int().flatten().tolist()) for image in shown[1]} <= given


class Teacher(nn.Module):
    """Answers at random, but always the same, and remembers what it was asked about."""

    num_classes, image_shape = K, SHAPE

    def __init__(self) -> None:
        super().__init__()
        library_seed_torch(3)
        self.answer = nn.Linear(64, K)
        self.asked: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images.clone())
        return 10 * self.answer(images.flatten(1))


class Student(nn.Module):
    """One linear layer, whose gradients are easily told."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Linear(64, K)
        nn.init.zeros_(self.answer.weight), nn.init.zeros_(self.answer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images.flatten(1))


PLAIN = DistillationConfig(steps=1, batch_size=50, shift=0, distortion=0.0, color_jitter=0, mix=False, noise=0.0)


def distilled(images: Tensor, **changes: Any) -> tuple[Student, Teacher]:
    student, teacher = Student(), Teacher()
    distil(student, teacher, images, PLAIN.model_copy(update=changes), seed=0)
    return student, teacher


def dots(num: int = 50) -> Tensor:
    """A white pixel in the middle of a black image."""
    images = torch.zeros(num, *SHAPE)
    images[:, :, 4, 4] = 1
    return images


@pytest.mark.parametrize("steps", [1, 4])
def test_steps_are_taken_on_batches_of_batch_size(steps: int) -> None:
    _, teacher = distilled(dots(), steps=steps, batch_size=9)
    assert [len(batch) for batch in teacher.asked] == [9] * steps


def test_without_augmentations_the_images_are_shown_as_they_are() -> None:
    images = torch.rand(40, *SHAPE, generator=library_torch_rng(0))
    shown = distilled(images, batch_size=200)[1].asked[0]
    places = [int((images == image).flatten(1).all(1).nonzero()) for image in shown]
    assert len(set(places)) == 40  # drawn with replacement, from all of them


@pytest.mark.parametrize("lr", [1e-3, 2e-2])
def test_lr_is_the_peak_of_one_cycle(monkeypatch: pytest.MonkeyPatch, lr: float) -> None:
    rates: list[float] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"]))
    distilled(dots(), lr=lr, steps=20)
    assert rates[0] == pytest.approx(lr / 25)
    assert rates[5] == max(rates) == pytest.approx(lr)
    assert rates[-1] == pytest.approx(lr / 25e4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_temperature_softens_both_and_scales_the_gradient(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    gradients: list[Tensor] = []

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> None:
        gradients.append(self.param_groups[0]["params"][0].grad.clone())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    images = torch.rand(40, *SHAPE, generator=library_torch_rng(1))
    _, teacher = distilled(images, temperature=temperature)
    shown = teacher.asked[0]
    probabilities = F.softmax(teacher(shown) / temperature, dim=1)
    # The student answers 0 to all: the gradient of T^2 KL(p || q) by its logits is T (q - p).
    expected = (temperature * (1 / K - probabilities)).T @ shown.flatten(1) / len(shown)
    torch.testing.assert_close(gradients[0], expected)


@pytest.mark.parametrize("shift", [1, 2])
def test_shift_moves_the_images(shift: int) -> None:
    shown = distilled(dots(), shift=shift, batch_size=500)[1].asked[0]
    places = {divmod(int(place), 8) for place in shown.flatten(1).argmax(1)}
    reach = range(4 - shift, 5 + shift)
    assert places == {(i, j) for i in reach for j in reach}


def test_distortion_stretches_the_images() -> None:
    black = {}  # what is moved or shrunk leaves black behind
    for distortion in (0.0, 0.05, 0.5):
        shown = distilled(torch.ones(50, *SHAPE), distortion=distortion, batch_size=500)[1].asked[0]
        black[distortion] = 1 - float(shown.mean())
    assert black[0.0] == 0
    assert 0 < black[0.05] < 0.05
    assert black[0.5] > 5 * black[0.05]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_color_jitter_is_the_share_of_images_with_another_contrast(share: float) -> None:
    images = dots()
    shown = distilled(images, color_jitter=share, batch_size=1000)[1].asked[0]
    other = (shown != images[:1]).flatten(1).any(1).float().mean()
    assert float(other) == pytest.approx(share, abs=0.05)
    assert all(len(image.unique()) <= 2 for image in shown)


def test_mix_blends_two_images() -> None:
    images = torch.eye(64).view(64, *SHAPE)
    alone, blended = (distilled(images, mix=mix, batch_size=200)[1].asked[0] for mix in (False, True))
    assert ((alone > 0).flatten(1).sum(1) == 1).all()
    lit = (blended > 0).flatten(1).sum(1)
    assert set(lit.tolist()) == {1, 2}  # one, where an image met its like
    assert float((lit == 2).float().mean()) > 0.9
    torch.testing.assert_close(blended.flatten(1).sum(1), torch.ones(200))
    shares = blended.flatten(1).amax(1)[lit == 2]
    assert float(shares.min()) < 0.6
    assert float(shares.max()) > 0.9


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_noise_is_the_largest_deviation(noise: float) -> None:
    shown = distilled(torch.full((50, *SHAPE), 0.5), noise=noise, batch_size=500)[1].asked[0]
    deviations = shown.flatten(1).std(dim=1)
    assert float(deviations.mean()) == pytest.approx(noise / 2, rel=0.1)
    assert 0.9 * noise < float(deviations.max()) < 1.5 * noise
    assert float(deviations.min()) < 0.1 * noise


def test_images_stay_in_their_range_under_noise() -> None:
    shown = distilled(dots(), noise=5.0, batch_size=500)[1].asked[0]
    assert (float(shown.min()), float(shown.max())) == (0, 1)
