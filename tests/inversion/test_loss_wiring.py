"""The statistics that the inverted classifier normalises by, each in its own place."""

import pytest
import torch
from draws import torch_rng

from netinv.inversion.losses import pixel_statistics_loss


def test_mean_is_compared_with_means_and_std_with_deviations() -> None:
    rng = torch_rng(0)
    images = torch.rand(50, 2, 3, 4, generator=rng) * torch.tensor([0.6, 0.2]).view(2, 1, 1)
    mean, std = torch.tensor([0.3, 0.7]), torch.tensor([0.2, 0.4])
    expected = 0.0
    for channel in range(2):
        pixels = images[:, channel].flatten()
        centre = (float(pixels.mean()) - float(mean[channel])) / float(std[channel])
        spread = float(pixels.std()) / float(std[channel])
        expected += (centre**2 + (spread - 1) ** 2) / 2
    assert float(pixel_statistics_loss(images, mean, std)) == pytest.approx(expected, rel=1e-5)
    in_other_shape = pixel_statistics_loss(images, mean.view(1, 2, 1, 1), std.view(1, 2, 1, 1))
    assert float(in_other_shape) == pytest.approx(expected, rel=1e-5)
    own = images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3))
    assert float(pixel_statistics_loss(images, *own)) == pytest.approx(0, abs=1e-6)
