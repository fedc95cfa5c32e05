"""What the library promises about classifiers that it has never seen, on digits enlarged to the size in question."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import seed_torch
from foreign_networks import NETWORKS, ConvNet, Residual
from torch import nn

import netinv
from netinv.data import load_digits, to_float
from netinv.sampling import OnnxGenerator


def trained_on_digits(network: nn.Module, shape: tuple[int, int, int], steps: int) -> nn.Module:
    """A network trained on digits of another shape, with plain torch."""
    seed_torch(0)
    train = load_digits().train
    images = F.interpolate(to_float(train.images), shape[1:], mode="bilinear").expand(-1, shape[0], -1, -1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(steps):
        index = torch.randint(0, len(images), (48,))
        optimizer.zero_grad()
        F.cross_entropy(network.train()(images[index]), train.labels[index]).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "shape"), [("residual", (3, 32, 32)), ("conv", (1, 28, 28))])
def test_the_defaults_invert_a_classifier_never_seen(name: str, shape: tuple[int, int, int]) -> None:
    seed_torch(0)
    network = trained_on_digits(ConvNet(in_channels=1) if name == "conv" else Residual(), shape, steps=500)
    start = time.process_time()
    inversion = netinv.invert(network, image_shape=shape, num_classes=10, progress=False)
    assert inversion.accuracy >= 0.97  # of three seeds 0.975, 0.989 and 0.982 on the residual network
    assert time.process_time() - start < 1200  # ten minutes on two cores


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::netinv.app.inversions.MissingClasses")  # so few steps are not enough for all
def test_resnet18_at_64_pixels_from_end_to_end(tmp_path: Path) -> None:
    shape = (3, 64, 64)
    seed_torch(0)
    network = trained_on_digits(NETWORKS["torchvision"](), shape, steps=100)
    config = netinv.InversionConfig(steps=150, batch_size=32)
    inversion = netinv.invert(network, image_shape=shape, num_classes=10, config=config, progress=False)
    assert inversion.accuracy > 0.5
    inversion.to_onnx(tmp_path / "generator.onnx")
    images = OnnxGenerator(tmp_path / "generator.onnx").sample(4, labels=3).images
    np.testing.assert_allclose(images, inversion.sample(4, label=3).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_resnet18_at_224_pixels_takes_steps_within_6_gib() -> None:
    code = (
        "import resource, netinv, torchvision, netinv.app.api as api;"
        "from netinv.classifiers import AdaptedClassifier; from netinv.generators import ConditionedGenerator;"
        "from netinv.inversion import invert; shape = (3, 224, 224);"
        "classifier = AdaptedClassifier(torchvision.models.resnet18(), shape);"
        "generator = ConditionedGenerator(netinv.GeneratorConfig(), 1000, shape);"
        "config = netinv.InversionConfig(steps=2, batch_size=64, log_every=1);"
        "print(*[record['loss'] for record in invert(generator, classifier, config, 0)]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *losses, gib = done.stdout.split()
    assert len(losses) == 2
    assert float(gib) < 6
