"""What the check says of gradients: blocked, saturated, not finite, or failing on constant images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from foreign_networks import Checkpointed, ConvNet
from torch import Tensor

from netinv.classifiers import AdapterConfig, CheckReport, check_classifier

SHAPE = (3, 16, 16)


def gradients(report: CheckReport, severity: str) -> str:
    """The message about gradients, which is the only one of its severity, but that the network is untrained."""
    (found,) = (f for f in report.findings if f.severity == severity and f.code != "untrained")
    assert found.code == "gradients"
    return found.message


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, images: ConvNet.forward(self, images).detach(),
        torch.no_grad()(ConvNet.forward),
        lambda self, images: ConvNet.forward(self, images.round()),
        lambda self, images: F.one_hot(ConvNet.forward(self, images).argmax(dim=1), 10).float(),
    ],
    ids=["detach", "no_grad", "rounded", "hard labels"],
)
def test_blocked_gradients(forward: Any) -> None:
    network = type("Blocked", (ConvNet,), {"forward": forward})()
    report = check_classifier(network, SHAPE)
    assert gradients(report, "error").startswith("Gradients are blocked")
    assert report.images_per_second is None


class Treated(ConvNet):
    """Computes with what a function makes of the images, and gives what another makes of the scores."""

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, images: Tensor) -> Any:
        return self.after(super().forward(self.before(images)))


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("output", ["auto", "sigmoid"])
def test_a_saturated_soft_max_is_told_from_blocked_gradients(output: Any) -> None:
    def after(scores: Tensor) -> Tensor:
        scores = 1e9 * scores
        return scores.sigmoid() if output == "sigmoid" else scores.softmax(dim=1)

    report = check_classifier(Treated(same, after), SHAPE, adapter=AdapterConfig(output=output))
    assert "its soft-max or sigmoid is saturated" in gradients(report, "error")


def test_checkpoints_of_the_kind_that_gives_images_no_gradients() -> None:
    report = check_classifier(Checkpointed(use_reentrant=True), SHAPE)
    assert gradients(report, "error").endswith("call it with use_reentrant=False.")


def test_gradients_that_are_not_finite_are_told_with_a_way_on() -> None:
    report = check_classifier(Treated(lambda images: images + (images - images).sqrt(), same), SHAPE)
    assert "look for a root, a logarithm or a division at 0" in gradients(report, "error")


@pytest.mark.parametrize(
    "before",
    [
        lambda images: (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True),
        lambda images: images + images.var((1, 2, 3), keepdim=True).sqrt(),
    ],
    ids=["scores", "gradients"],
)
def test_constant_images_that_a_network_fails_on(before: Callable[[Tensor], Tensor]) -> None:
    report = check_classifier(Treated(before, same), SHAPE)
    assert report.ok
    assert gradients(report, "warning").startswith("It fails on constant images")
