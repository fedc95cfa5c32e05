"""A student taught by another network's answers, on images small enough to be learned in seconds."""

import pytest
import torch
from draws import seed_torch, torch_rng

from netinv.classifiers import ConvClassifierConfig, build_classifier, freeze
from netinv.core import InputError
from netinv.evaluation.students import DistillationConfig, distil

SHAPE = (1, 6, 6)
QUICK = DistillationConfig(steps=150, batch_size=32, lr=1e-2, shift=0, distortion=0.0, color_jitter=0, noise=0.0)


class Halves(torch.nn.Module):
    """Which half of an image is brighter, upper or lower."""

    num_classes, image_shape = 2, SHAPE
    mean, std = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.3)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves = torch.stack([images[:, :, :3].mean(dim=(1, 2, 3)), images[:, :, 3:].mean(dim=(1, 2, 3))], dim=1)
        return 40 * halves


def taught(config: DistillationConfig, seed: int = 0) -> torch.nn.Module:
    seed_torch(0)
    images = torch.rand(200, *SHAPE)
    student = build_classifier(ConvClassifierConfig(channels=(8,), dropout=0), 2, SHAPE, (0.5,), (0.3,))
    distil(student, Halves(), images, config, seed)
    return student


@pytest.mark.parametrize("config", [QUICK, QUICK.model_copy(update={"mix": False, "noise": 0.2, "shift": 1})])
def test_the_student_answers_as_its_teacher_on_images_it_never_saw(config: DistillationConfig) -> None:
    student = taught(config)
    assert not student.training
    images = torch.rand(500, *SHAPE, generator=torch_rng(1))
    agreement = (student(images).argmax(dim=1) == Halves()(images).argmax(dim=1)).float().mean()
    assert agreement > 0.85


def test_a_seed_reproduces_bit_for_bit() -> None:
    short = QUICK.model_copy(update={"steps": 5, "noise": 0.1, "shift": 1, "distortion": 0.3, "color_jitter": 0.5})
    first, again, other = taught(short), taught(short), taught(short, seed=1)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_teacher_learns_nothing() -> None:
    seed_torch(0)
    teacher = build_classifier(ConvClassifierConfig(channels=(4,)), 2, SHAPE, (0.5,), (0.3,))
    freeze(teacher)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = build_classifier(ConvClassifierConfig(channels=(4,)), 2, SHAPE, (0.5,), (0.3,))
    distil(student, teacher, torch.rand(40, *SHAPE), QUICK.model_copy(update={"steps": 3}), seed=0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_an_absurd_learning_rate_is_noticed() -> None:
    with pytest.raises(FloatingPointError, match="step 20; lower the lr"):
        taught(QUICK.model_copy(update={"steps": 20, "lr": 1e30}))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="temperature"):
        DistillationConfig.parse({"temperature": 0})
