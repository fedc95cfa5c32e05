"""Where the metric functions begin to be defined, and the blocks that they work through."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import torch_rng
from torch.utils._python_dispatch import TorchDispatchMode

from netinv.evaluation import metrics
from netinv.evaluation.metrics import (
    ball_radii,
    class_cosines,
    density_coverage,
    frechet_distance,
    nearest_neighbours,
    ssim,
    vendi_score,
)


def rows(num: int, dim: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, dim, generator=torch_rng(seed)) + 0.1


def test_vendi_needs_directions() -> None:
    with pytest.raises(ValueError, match=r"^Expected feature vectors with a direction, got one that is all zero$"):
        vendi_score(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert float(vendi_score(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))) == pytest.approx(2)
    assert vendi_score(rows(4)).dtype == torch.float64
    assert float(vendi_score(rows(3))) == pytest.approx(float(vendi_score(rows(3).repeat(2, 1))))


def test_cosines_need_directions_too() -> None:
    with pytest.raises(ValueError, match=r"^Expected feature vectors with a direction, got one that is all zero$"):
        class_cosines(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), 2)


def test_cosines_of_two_classes_by_hand() -> None:
    features = torch.tensor([[1.0, 0], [0, 3], [2, 0], [1, 1]])
    within, between = class_cosines(features, torch.tensor([0, 0, 1, 1]), 3)
    root = 0.5**0.5
    assert within == pytest.approx((0 + root) / 2)
    assert between == pytest.approx((1 + root + 0 + root) / 4)


def test_radii_reach_the_kth_other() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert ball_radii(line, 1).tolist() == [1, 1, 2, 4]
    assert ball_radii(line, 3).tolist() == [7, 6, 4, 7]
    assert torch.equal(ball_radii(rows(9)), ball_radii(rows(9), 5))
    with pytest.raises(ValueError, match=r"^Expected more than k = 4 real samples, got 4$"):
        ball_radii(line, 4)


def test_density_and_coverage_by_hand() -> None:
    real, radii = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([1.0, 1.0, 2.0, 4.0])
    each = torch.tensor([[0.5], [2.0], [9.0]])
    # 2.0 lies on the edge of the ball around 1.0.
    assert [density_coverage(real, radii, one[None], 2) for one in each] == [(1.0, 0.5), (0.5, 0.25), (0.5, 0.25)]
    assert density_coverage(real, radii, each, 2) == (pytest.approx(2 / 3), 1.0)
    assert density_coverage(real, radii, torch.tensor([[-9.0]])) == (0, 0)
    assert density_coverage(real, radii, torch.tensor([[0.5]]))[0] == 2 / 5
    resample = np.array([3, 3, 0, 0]), np.array([2, 2, 0])
    found = density_coverage(real, radii, each, 2, [resample])
    assert [part.tolist() for part in found] == [[pytest.approx(2 / 3), (2 + 2 + 2) / 6], [1.0, 1.0]]


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that torch makes meanwhile."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("block", [1, 4, 500])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    real, generated = rows(13), rows(9, seed=1)
    pair = [part.repeat(1, 64).view(-1, 3, 8, 8) for part in (real[:9], generated)]
    alike = ssim(*pair)
    expected = ball_radii(real, 2), density_coverage(real, ball_radii(real, 2), generated, 2)
    near = nearest_neighbours(generated, real, 3)
    monkeypatch.setattr(metrics, "BLOCK", block)
    assert torch.equal(ball_radii(real, 2), expected[0])
    assert density_coverage(real, expected[0], generated, 2) == expected[1]
    for a, b in zip(nearest_neighbours(generated, real, 3), near, strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(ssim(*pair), alike)


def test_large_images_are_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, pool = rows(50, 128 * 128), rows(20, 128 * 128, seed=1)
    near = nearest_neighbours(queries, pool, 12)
    monkeypatch.setattr(metrics, "VALUES", 10 * 128 * 128)
    with Largest() as largest:
        for a, b in zip(nearest_neighbours(queries, pool, 12), near, strict=True):
            torch.testing.assert_close(a, b)
    assert largest.bytes == pool.nbytes  # 20 rows of float32, or 10 of float64
    images = queries.view(-1, 1, 128, 128)
    monkeypatch.setattr(metrics, "BLOCK", 64)
    with Largest() as largest:
        ssim(images, images)
    assert largest.bytes == 8 * 16 * 128 * 128


def test_frechet_by_hand() -> None:
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [9.0]])
    assert frechet_distance(a, b) == pytest.approx((7 - 1) ** 2 + (8**0.5 - 2**0.5) ** 2)
    for few in ((a[:1], b), (a, b[:1])):
        with pytest.raises(ValueError, match=r"^Expected sets of at least 2 samples, got 1$"):
            frechet_distance(*few)
    same = rows(50, 4)
    assert 0 <= frechet_distance(same, same) < 1e-9


def test_neighbours_by_hand() -> None:
    pool = torch.tensor([[0.0, 0], [3, 0], [0, 4], [9, 9]])
    distance, index = nearest_neighbours(torch.tensor([[0.0, 0], [3, 4]]), pool, 2)
    assert index.tolist() == [[0, 1], [2, 1]]
    assert distance.tolist() == [[0, 3], [3, 4]]
    assert distance.dtype == torch.float64
    assert nearest_neighbours(pool, pool)[0].tolist() == [[0.0]] * 4
    assert nearest_neighbours(pool, pool, 4)[1].shape == (4, 4)
    with pytest.raises(ValueError, match=r"^Expected a pool of at least k = 5 samples, got 4$"):
        nearest_neighbours(pool, pool, 5)


def test_equally_near_ones_come_in_the_order_of_their_score() -> None:
    # Far from 0 the products in float32 cannot tell these apart: the spare candidates can.
    pool = 1e4 + torch.arange(12.0)[:, None] * torch.tensor([[1e-2, 0.0]])
    distance, index = nearest_neighbours(pool[5:6], pool, 1)
    assert index.tolist() == [[5]]
    assert distance.tolist() == [[0.0]]


@pytest.mark.parametrize("window", [3, 7])
def test_ssim_by_hand(window: int) -> None:
    rng = torch_rng(0)
    a, b = torch.rand(2, 1, 7, 8, generator=rng).double(), torch.rand(2, 1, 7, 8, generator=rng).double()
    terms = []
    for i in range(7 - window + 1):
        for j in range(8 - window + 1):
            x, y = (t[:, 0, i : i + window, j : j + window].flatten(1) for t in (a, b))
            mx, my = x.mean(1), y.mean(1)
            vx, vy = x.var(1), y.var(1)
            cov = ((x - mx[:, None]) * (y - my[:, None])).sum(1) / (window**2 - 1)
            terms.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    torch.testing.assert_close(ssim(a, b, window), torch.stack(terms).mean(0))
    if window == 7:
        torch.testing.assert_close(ssim(a, b), ssim(a, b, 7))
    with pytest.raises(ValueError, match=r"^Expected images of at least 9 x 9 pixels, got \(7, 8\)$"):
        ssim(a, b, 9)
    both = F.interpolate(a, (8, 7)), F.interpolate(b, (8, 7))
    assert ssim(*both, 7).shape == (2,)
