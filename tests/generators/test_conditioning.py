"""Conditions: what their distribution is, and what the hot matrix shows."""

import pytest
import torch
from draws import torch_rng

from netinv.generators.conditioning import Condition, condition_of, draw_condition, hot_matrix, matrix_size


def drawn(num: int, num_classes: int, sharpness: tuple[float, float] = (1.0, 1.0), seed: int = 0) -> Condition:
    return condition_of(*draw_condition(num, num_classes, sharpness, torch_rng(seed)), sharpness)


def test_plain_conditions_are_as_soft_as_theory_says() -> None:
    """Softmax of N(0, I_10): mean top probability 0.32, entropy 1.92 nats, 30 % of the gaps under 0.05."""
    condition = drawn(30_000, 10)
    top, second = condition.vector.sort(dim=1, descending=True).values[:, :2].unbind(dim=1)
    entropy = -(condition.vector * condition.vector.log()).sum(dim=1)
    assert top.mean().item() == pytest.approx(0.32, abs=0.01)
    assert entropy.mean().item() == pytest.approx(1.92, abs=0.01)
    assert (top - second < 0.05).float().mean().item() == pytest.approx(0.30, abs=0.015)
    # The cross-entropy to the label if a classifier matched p exactly, which is what KL and cross-entropy fight over.
    assert -top.log().mean().item() == pytest.approx(1.19, abs=0.01)
    assert (condition.vector.sum(dim=1) - 1).abs().max() < 1e-5


def test_labels_are_the_arg_max_and_evenly_spread() -> None:
    condition = drawn(20_000, 5)
    assert torch.equal(condition.label, condition.vector.argmax(dim=1))
    share = torch.bincount(condition.label, minlength=5) / 20_000
    assert share.sub(0.2).abs().max() < 0.01


def test_sharpness_hardens_and_a_range_is_log_uniform() -> None:
    def mean_top(sharpness: tuple[float, float]) -> float:
        vector = drawn(20_000, 10, sharpness).vector
        return vector.max(dim=1).values.mean().item()

    soft, hard, mixed = mean_top((1.0, 1.0)), mean_top((10.0, 10.0)), mean_top((1.0, 10.0))
    assert soft < mixed < hard
    assert hard > 0.85
    # Averaged over fixed sharpnesses at the middles of ten equal parts of the range, on a logarithmic scale.
    parts = [10 ** ((i + 0.5) / 10) for i in range(10)]
    assert mixed == pytest.approx(sum(mean_top((s, s)) for s in parts) / 10, abs=0.01)


def test_same_seed_same_conditions() -> None:
    first, again, other = (drawn(8, 3, (1.0, 5.0), seed) for seed in (1, 1, 2))
    assert torch.equal(first.vector, again.vector)
    assert not torch.equal(first.vector, other.vector)


@pytest.mark.parametrize(
    ("num_classes", "height", "width", "size"),
    [(2, 16, 16, 2), (10, 28, 28, 10), (10, 9, 28, 4), (28, 28, 28, 28), (100, 28, 28, 10), (1000, 224, 224, 32),
     (1000, 16, 16, 16)],
)  # fmt: skip
def test_matrix_size(num_classes: int, height: int, width: int, size: int) -> None:
    # 100 classes on 224 pixels would fit as 100 x 100 but pass 64, beyond which the paper's matrix costs too much.
    assert matrix_size(num_classes, height, width) == size


@pytest.mark.parametrize(("num_classes", "size"), [(2, 2), (10, 10), (100, 10), (1000, 32), (1000, 16)])
def test_hot_matrix_is_one_row_and_one_column(num_classes: int, size: int) -> None:
    label = torch.arange(num_classes)
    matrix = hot_matrix(label, num_classes, size)
    assert matrix.shape == (num_classes, 1, size, size)
    for y in range(num_classes):
        row, column = (y, y) if size >= num_classes else (y // size % size, y % size)
        expected = torch.zeros(size, size)
        expected[row, :] = 1
        expected[:, column] = 1
        assert torch.equal(matrix[y, 0], expected)
    distinct = len({tuple(m.flatten().tolist()) for m in matrix})
    assert distinct == min(num_classes, size * size)
