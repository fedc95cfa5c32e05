"""The metric functions against independent implementations, on random and on awkward inputs."""

import numpy as np
import pytest
import torch
from draws import torch_rng
from torch import Tensor, nn

from netinv.evaluation import vendi_score
from netinv.evaluation.metrics import (
    ball_radii,
    class_cosines,
    density_coverage,
    frechet_distance,
    nearest_neighbours,
    ssim,
)

REL = 1e-4


def features(num: int, dim: int, seed: int = 0) -> Tensor:
    """Correlated, positive, of uneven scale, like a network's."""
    rng = torch_rng(seed)
    mix = torch.randn(dim, dim, generator=rng)
    return (torch.randn(num, dim, generator=rng) @ mix + 0.5).relu() + 0.01


def duplicated(num: int, dim: int) -> Tensor:
    """Every vector several times over."""
    return features(num // 8, dim).repeat(8, 1)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # the library's own
@pytest.mark.parametrize("dim", [3, 200])
@pytest.mark.parametrize("make", [features, duplicated])
def test_vendi_score_agrees_with_its_authors(make, dim: int) -> None:
    from vendi_score import vendi

    x = make(80, dim)
    unit = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    assert float(vendi_score(x)) == pytest.approx(vendi.score_K(unit @ unit.T), rel=REL)


def test_vendi_score_of_known_sets() -> None:
    assert float(vendi_score(torch.eye(7))) == pytest.approx(7)
    assert float(vendi_score(torch.ones(7, 3))) == pytest.approx(1)
    assert float(vendi_score(torch.eye(7).repeat(5, 1))) == pytest.approx(7)  # duplicates add nothing
    assert float(vendi_score(torch.randn(1, 4))) == pytest.approx(1)
    batch = torch.stack([torch.eye(7), torch.ones(7, 7)])
    assert vendi_score(batch).tolist() == pytest.approx([7, 1])


def test_vendi_score_refuses_what_has_no_cosine() -> None:
    with pytest.raises(ValueError, match="all zero"):
        vendi_score(torch.zeros(5, 3))


def test_class_cosines_agree_with_torchmetrics() -> None:
    from torchmetrics.functional.pairwise import pairwise_cosine_similarity

    x, label = features(120, 16), torch.arange(120) % 7
    similarity = pairwise_cosine_similarity(x.double(), zero_diagonal=False)
    same = label[:, None] == label
    distinct = ~torch.eye(120, dtype=torch.bool)
    within, between = class_cosines(x, label, 10)
    assert within == pytest.approx(float(similarity[same & distinct].mean()), rel=REL)
    assert between == pytest.approx(float(similarity[~same].mean()), rel=REL)


@pytest.mark.parametrize("seed", range(20))
def test_class_cosines_without_pairs(seed: int) -> None:
    """Whatever rest rounding leaves of the sums."""
    within, between = class_cosines(features(3, 4, seed), torch.arange(3), 3)
    assert np.isnan(within)
    assert -1 <= between <= 1
    within, between = class_cosines(features(3, 4, seed), torch.zeros(3, dtype=torch.long), 1)
    assert -1 <= within <= 1
    assert np.isnan(between)
    within, between = class_cosines(features(1, 4, seed).repeat(4, 1), torch.arange(4) % 2, 2)
    assert within == pytest.approx(1)
    assert max(within, between) <= 1


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("num_real", [37, 1200])  # more than a block
def test_density_and_coverage_agree_with_their_authors(k: int, num_real: int) -> None:
    from prdc import compute_prdc

    real, generated = features(num_real, 12, seed=1), features(211, 12, seed=2) * 2
    real[:6] += 30  # nothing comes near these, whatever is drawn, and something does to the last
    generated[-1] = real[-1] + 0.1
    expected = compute_prdc(real.double().numpy(), generated.double().numpy(), nearest_k=k)
    (density,), (coverage,) = density_coverage(real, ball_radii(real, k), generated, k)
    assert density == pytest.approx(expected["density"], rel=REL)
    assert coverage == pytest.approx(expected["coverage"], rel=REL)
    assert 0 < coverage < 1


def test_one_sample_and_copies_agree_with_the_authors_too() -> None:
    from prdc import compute_prdc

    real = features(60, 8, seed=1)
    beside = real + 0.01  # a real one itself lies on the edge of balls, where rounding decides
    for generated in (beside[:1], real[:1] + 0.1, beside[5:6].repeat(9, 1), torch.ones(4, 8)):
        enough = generated.repeat(9, 1).double().numpy()  # theirs refuses fewer than 6; copies change neither measure
        expected = compute_prdc(real.double().numpy(), enough, nearest_k=5)
        (density,), (coverage,) = density_coverage(real, ball_radii(real), generated)
        assert density == pytest.approx(expected["density"], rel=REL)
        assert coverage == pytest.approx(expected["coverage"], rel=REL)


def test_density_and_coverage_of_awkward_sets() -> None:
    real = features(60, 8)
    _, coverage = density_coverage(real, ball_radii(real), real)
    assert coverage == 1
    _, coverage = density_coverage(real, ball_radii(real), real[:1])
    assert coverage >= 1 / 60
    copies = duplicated(64, 8)  # each 8 times: the 5th neighbour is a copy, balls are points, and points are open
    assert density_coverage(copies, ball_radii(copies), copies)[0] == 0
    assert density_coverage(real, ball_radii(real), real + 1e3) == (0, 0)
    with pytest.raises(ValueError, match="more than k = 5"):
        ball_radii(real[:5])


class Identity(nn.Module):
    """Features that pass for images."""

    num_features = 24

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = features(300, 24, seed=3), features(250, 24, seed=4)
    metric = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    metric.update(a.double(), real=True)
    metric.update(b.double(), real=False)
    assert frechet_distance(a, b) == pytest.approx(float(metric.compute()), rel=REL)


def test_frechet_distance_of_singular_covariances() -> None:
    from scipy.linalg import sqrtm

    a, b = features(200, 6).repeat(1, 2), features(200, 12, seed=5)  # rank 6 of 12
    cov_a, cov_b = np.cov(a.T.double().numpy()), np.cov(b.T.double().numpy())
    means = (a.double().mean(0) - b.double().mean(0)).square().sum()
    expected = float(means) + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=REL)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * float(a.var()))
    constant = torch.ones(10, 4)
    assert frechet_distance(constant, constant + 2) == pytest.approx(16)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        frechet_distance(a[:1], b)


@pytest.mark.parametrize(("k", "dtype"), [(1, torch.float32), (7, torch.float32), (7, torch.bfloat16)])
def test_nearest_neighbours_agree_with_scikit_learn(k: int, dtype: torch.dtype) -> None:
    from sklearn.neighbors import NearestNeighbors

    pool, queries = features(700, 30, seed=6).to(dtype), features(1100, 30, seed=7).to(dtype)
    distance, index = nearest_neighbours(queries, pool, k)
    expected, expected_index = NearestNeighbors(n_neighbors=k).fit(pool.double()).kneighbors(queries.double())
    np.testing.assert_allclose(distance, expected, rtol=REL)
    assert (index.numpy() == expected_index).mean() > 0.999


def test_nearest_neighbours_find_copies_far_from_the_origin() -> None:
    pool = 100 + 1e-3 * features(500, 50)  # a . b in float32 knows nothing of such distances
    distance, index = nearest_neighbours(pool[17:40], pool, 2)
    assert index[:, 0].tolist() == list(range(17, 40))
    assert distance[:, 0].tolist() == [0.0] * 23
    assert (distance[:, 1] > 0).all()
    with pytest.raises(ValueError, match="at least k = 3"):
        nearest_neighbours(pool, pool[:2], 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_scikit_image(channels: int) -> None:
    from skimage.metrics import structural_similarity

    rng = torch_rng(0)
    a = torch.rand(6, channels, 16, 20, generator=rng)
    b = (a + 0.2 * torch.randn(a.shape, generator=rng)).clamp(0, 1)
    b[1], b[2], a[3], b[3] = a[1], 1 - a[2], 0.5, 0.5  # the same, the opposite, two constants
    expected = [
        structural_similarity(x, y, data_range=1, channel_axis=0)
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, rel=REL)
    assert expected[1] == expected[3] == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ssim(a[..., :6], b[..., :6])
