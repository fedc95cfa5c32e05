"""Six classes of coloured noise, networks that learned them, and what a check finds."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from draws import torch_rng
from torch import Tensor, nn

from netinv.classifiers import AdapterConfig, CheckReport
from netinv.data import LabelledImages

SHAPE = (3, 16, 16)
CLASSES = 6
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NORMALISED = AdapterConfig(mean=MEAN, std=STD)


def coloured(num: int, seed: int) -> LabelledImages:
    """Noise in which one of three colours stands out, dark or bright: six classes that hang on order and scale."""
    rng = torch_rng(seed)
    labels = torch.randint(0, CLASSES, (num,), generator=rng)
    images = 60 * torch.rand(num, *SHAPE, generator=rng)
    images[torch.arange(num), labels % 3] += torch.where(labels < 3, 60, 180)[:, None, None]
    return LabelledImages(images.to(torch.uint8), labels)


def trained(network: nn.Module, treat: Callable[[Tensor], Tensor]) -> nn.Module:
    """A network that its owner trained on images of his own treatment."""
    train = coloured(600, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(80):
        part = slice(step % 8 * 75, step % 8 * 75 + 75)
        output = network(treat(train.images[part].float() / 255))
        F.cross_entropy(output, train.labels[part]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return network.eval()


def normalise(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.25


def codes(report: CheckReport, *severities: str) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity in (severities or ("error", "warning"))}


def message(report: CheckReport, code: str) -> str:
    return next(finding.message for finding in report.findings if finding.code == code)
