"""Each loss against a plain implementation that shares no code with it, and in the cases where its value is known."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from draws import seed_torch, torch_rng
from torch import nn

from netinv.classifiers import BatchNormInputs
from netinv.inversion.losses import (
    cosine_loss,
    kl_loss,
    latent_field_loss,
    layer_statistics_loss,
    orthogonality_loss,
    pixel_statistics_loss,
    total_variation_loss,
)


@pytest.fixture
def features() -> torch.Tensor:
    """(N, D) with D < N."""
    return torch.randn(12, 5, generator=torch_rng(0), dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def test_kl_divergence() -> None:
    rng = torch_rng(0)
    logits = torch.randn(6, 4, generator=rng)
    vector = torch.softmax(torch.randn(6, 4, generator=rng), dim=1)
    expected = 0.0
    for row, p in zip(logits.tolist(), vector.tolist(), strict=True):
        total = sum(math.exp(v) for v in row)
        expected += sum(p_k * math.log(p_k / (math.exp(v) / total)) for p_k, v in zip(p, row, strict=True)) / 6
    assert kl_loss(logits, vector).item() == pytest.approx(expected, rel=1e-5)


def test_kl_divergence_is_zero_at_the_condition_and_takes_hard_conditions() -> None:
    vector = torch.softmax(torch.randn(6, 10, generator=torch_rng(0)), dim=1)
    assert kl_loss(vector.log() + 3, vector).item() == pytest.approx(0, abs=1e-6)  # soft-max forgets the constant
    hard = torch.tensor([[1.0, 0.0]])
    assert kl_loss(torch.zeros(1, 2), hard).item() == pytest.approx(math.log(2))  # 0 log 0 is 0
    # A second soft-max, the known mistake, could not come below 1.46 nats for a hard condition of ten classes.
    certain = torch.eye(10)[:1]
    assert kl_loss(100 * certain, certain).item() == pytest.approx(0, abs=1e-6)


def test_cosine(features: torch.Tensor) -> None:
    pairs = [cosine(features[i], features[j]) for i in range(12) for j in range(12) if i != j]
    assert cosine_loss(features).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)
    assert cosine_loss(7 * features[:1].repeat(4, 1)).item() == pytest.approx(1)
    assert cosine_loss(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])).item() == pytest.approx(-1)
    assert cosine_loss(torch.zeros(3, 2)).item() == 0  # dead features count as orthogonal


@pytest.mark.parametrize("dim", [5, 30])
def test_orthogonality(dim: int) -> None:
    features = torch.randn(12, dim, generator=torch_rng(0), dtype=torch.float64)
    pairs = [cosine(features[i], features[j]) ** 2 for i in range(12) for j in range(12) if i != j]
    assert orthogonality_loss(features).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)
    assert orthogonality_loss(torch.eye(4)).item() == pytest.approx(0, abs=1e-7)
    assert orthogonality_loss(torch.ones(4, 3)).item() == pytest.approx(1)
    assert orthogonality_loss(features[:2]).item() == pytest.approx(pairs[0], rel=1e-9)


@pytest.mark.parametrize("loss", [cosine_loss, orthogonality_loss])
def test_a_single_sample_has_no_pairs(loss: object) -> None:
    with pytest.raises(ValueError, match=r"N >= 2, got \(1, 64\)"):
        loss(torch.ones(1, 64))  # type: ignore[operator]


def test_total_variation() -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch_rng(0), dtype=torch.float64)
    down = [abs(i[r + 1][c] - i[r][c]) for n in images.tolist() for i in n for r in range(3) for c in range(5)]
    across = [abs(i[r][c + 1] - i[r][c]) for n in images.tolist() for i in n for r in range(4) for c in range(4)]
    expected = sum(down) / len(down) + sum(across) / len(across)
    assert total_variation_loss(images).item() == pytest.approx(expected, rel=1e-9)
    checkers = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert total_variation_loss(checkers[None, None].float()).item() == 2


def test_pixel_statistics() -> None:
    images = torch.rand(8, 2, 4, 4, generator=torch_rng(0), dtype=torch.float64)
    expected = 0.0
    for channel, mean, std in ((0, 0.2, 0.3), (1, 0.6, 0.1)):
        values = ((images[:, channel].flatten() - mean) / std).tolist()
        centre = sum(values) / len(values)
        spread = math.sqrt(sum((v - centre) ** 2 for v in values) / (len(values) - 1))
        expected += (centre**2 + (spread - 1) ** 2) / 2
    loss = pixel_statistics_loss(images, torch.tensor([[[[0.2]], [[0.6]]]]), torch.tensor([[[[0.3]], [[0.1]]]]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    own = pixel_statistics_loss(images, images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3)))
    assert own.item() == pytest.approx(0, abs=1e-12)


def test_latent_field_is_the_cosine_of_strokes_and_latents() -> None:
    """Three channels, latents of which the last nine are a field, by plain sums."""
    rng = torch_rng(0)
    images = torch.rand(5, 3, 6, 9, generator=rng, dtype=torch.float64)
    latent = torch.randn(5, 11, generator=rng, dtype=torch.float64)
    mean = [[[float(images[:, c, i, j].mean()) for j in range(9)] for i in range(6)] for c in range(3)]
    cells = torch.zeros(5, 9, dtype=torch.float64)
    for n, c, i, j in itertools.product(range(5), range(3), range(6), range(9)):
        difference = float(images[n, c, i, j]) - mean[c][i][j]
        beyond = math.copysign(max(0.0, abs(difference) - 0.2), difference)
        cells[n, i // 2 * 3 + j // 3] += beyond / (3 * 2 * 3)
    cells -= cells.mean(dim=0)
    asked = [0.5 - float(a @ b / a.norm() / b.norm()) for a, b in zip(cells, latent[:, -9:], strict=True)]
    assert latent_field_loss(images, latent, 0.2).item() == pytest.approx(sum(max(0.0, x) for x in asked) / 5, rel=1e-9)


def test_latent_field_heeds_strokes_and_no_noise() -> None:
    latent = torch.randn(64, 20, generator=torch_rng(1))
    field = F.interpolate(latent[:, -16:].view(-1, 1, 4, 4), size=(28, 28))
    assert latent_field_loss((0.5 + field / 4).clamp(0, 1), latent, 0.1) == 0
    hidden = (0.5 + field / 100).clamp(0, 1)  # the same below the bound
    assert latent_field_loss(hidden, latent, 0.1) == pytest.approx(0.5)
    assert latent_field_loss((0.5 - field / 8).clamp(0, 1), latent, 0.1) > 1.3


@pytest.mark.parametrize(("latent_dim", "shape"), [(3, (1, 28, 28)), (64, (4, 3, 40)), (64, (2, 1, 1))])
def test_latent_field_of_few_latents_or_pixels_is_smaller(latent_dim: int, shape: tuple[int, int, int]) -> None:
    images = torch.rand(8, *shape, generator=torch_rng(2), requires_grad=True)
    loss = latent_field_loss(images, torch.randn(8, latent_dim, generator=torch_rng(3)), 0.1)
    (gradient,) = torch.autograd.grad(loss, images)
    assert 0 <= loss <= 1.5
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("latent_dim", "shape", "side"),
    [(64, (1, 28, 28), 4), (64, (4, 3, 40), 3), (64, (2, 40, 3), 3), (8, (1, 28, 28), 2)],
)
def test_latent_field_is_the_last_latents_as_far_as_there_is_room(
    latent_dim: int, shape: tuple[int, int, int], side: int
) -> None:
    images = torch.rand(8, *shape, generator=torch_rng(2))
    latent = torch.randn(8, latent_dim, generator=torch_rng(3))
    loss = latent_field_loss(images, latent, 0.1)
    before, first = latent.clone(), latent.clone()
    before[:, : -(side**2)] = 0
    first[:, -(side**2)] *= -5
    assert torch.equal(latent_field_loss(images, before, 0.1), loss)
    assert not torch.isclose(latent_field_loss(images, first, 0.1), loss, rtol=1e-4)


def test_layer_statistics() -> None:
    """Of a small network with batch norm after a convolution and after a linear layer, by plain sums."""
    seed_torch(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.BatchNorm1d(3))
    network.double().eval()
    norms = network[1], network[4]
    for norm in norms:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    images = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    with BatchNormInputs() as inputs:
        network(images)
    moments = inputs.moments(images)
    assert moments.shape == (6, 2, 5)
    terms = []
    for norm, seen in zip(norms, (network[0](images).transpose(0, 1).flatten(1), network[:4](images).T), strict=True):
        for channel, mean, var in zip(
            seen.tolist(), norm.running_mean.tolist(), norm.running_var.tolist(), strict=True
        ):
            values = [(value - mean) / math.sqrt(var + norm.eps) for value in channel]
            centre = sum(values) / len(values)
            spread = math.sqrt(sum((value - centre) ** 2 for value in values) / len(values))
            terms.append(centre**2 + (spread - 1) ** 2)
    assert layer_statistics_loss(moments).item() == pytest.approx(sum(terms) / 5, rel=1e-9)


@torch.no_grad()
def test_layer_statistics_of_patches_are_those_of_their_images() -> None:
    """A batch norm that sees eight pairs of pixels of each image, one that sees a part of the batch, one as usual."""
    pairs, whole = nn.BatchNorm1d(2).eval(), nn.BatchNorm2d(1).eval()
    images = torch.rand(6, 1, 4, 4, generator=torch_rng(0))
    with BatchNormInputs() as inputs:
        pairs(images.view(48, 2))
        whole(images[:4])
        whole(images)
    moments = inputs.moments(images)
    expected = images.view(6, 8, 2) / math.sqrt(1 + pairs.eps)
    torch.testing.assert_close(moments[:, :, :2], torch.stack([expected.mean(dim=1), expected.square().mean(dim=1)], 1))
    expected = images.flatten(1) / math.sqrt(1 + whole.eps)
    torch.testing.assert_close(moments[:, 0, 2:], expected.mean(dim=1, keepdim=True))
    assert moments.shape == (6, 2, 3)


def test_batch_norms_in_training_and_networks_without_them_say_nothing() -> None:
    images = torch.rand(4, 1, 4, 4)
    with BatchNormInputs() as inputs:
        nn.BatchNorm2d(1)(images)
        nn.Conv2d(1, 1, 3)(images)
    assert inputs.moments(images).shape == (4, 2, 0)


def test_gradients_of_the_fast_cosine_are_those_of_the_matrix(features: torch.Tensor) -> None:
    gradients = []
    for fast in (True, False):
        x = features.clone().requires_grad_()
        unit = x / x.norm(dim=1, keepdim=True)
        gram = unit @ unit.T
        loss = cosine_loss(x) if fast else (gram.sum() - gram.trace()) / (12 * 11)
        loss.backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shape", [(4, 1, 1, 9), (4, 1, 9, 1), (4, 2, 1, 1)])
def test_total_variation_of_a_line_is_that_along_it(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch_rng(0))
    flat = images.flatten(2)
    expected = (flat[:, :, 1:] - flat[:, :, :-1]).abs().mean() if flat.shape[2] > 1 else torch.zeros(())
    torch.testing.assert_close(total_variation_loss(images), expected)
