"""Fixtures of the commands: a shell, two colours as images, and a network that tells them apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from draws import numpy_rng, seed_torch
from foreign_networks import ConvNet
from PIL import Image
from safetensors.torch import save_file
from shells import Shell

from netinv import evaluation
from netinv.app.options import read_data
from netinv.classifiers import ClassifierTrainingConfig
from netinv.evaluation import EvaluationConfig
from netinv.evaluation.students import DistillationConfig


class ShortLessons(EvaluationConfig):
    """An evaluation that takes seconds."""

    student: ClassifierTrainingConfig | None = ClassifierTrainingConfig(epochs=1)
    distillation: DistillationConfig | None = DistillationConfig(images=100, steps=5)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def short_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Students would take most of an evaluation's time, and are tested by themselves."""
    monkeypatch.setattr(evaluation, "EvaluationConfig", ShortLessons)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes, red and blue."""
    root = tmp_path_factory.mktemp("images")
    rng = numpy_rng(0)
    for split, num in (("train", 300), ("test", 40)):
        for channel, name in ((2, "blue"), (0, "red")):
            (root / split / name).mkdir(parents=True)
            for i in range(num):
                pixels = rng.integers(0, 80, (8, 8, 3), dtype=np.uint8)
                pixels[:, :, channel] += 150
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def weights(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells red from blue."""
    seed_torch(0)
    train = read_data(folder, (3, 8, 8)).train
    network = ConvNet(num_classes=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(train.images / 255), train.labels).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path
