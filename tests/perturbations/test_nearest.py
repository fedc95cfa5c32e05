"""The nearest image of another class, where it is known: of linear classifiers."""

from typing import Any

import pytest
import torch
from draws import torch_rng
from torch import Tensor, nn

from netinv.core import InputError
from netinv.data import to_float, to_uint8
from netinv.perturbations import Norm, nearest_of_class, pgd, unit_ball, unit_sphere

SHAPE = (2, 4, 3)


def linear(num_classes: int, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(24, num_classes)
    rng = torch_rng(seed)
    layer.weight.data = torch.randn(num_classes, 24, generator=rng)
    layer.bias.data = -0.5 * layer.weight.data.sum(dim=1)  # grey is undecided
    return layer.requires_grad_(False)


def greys(num: int, spread: float, seed: int = 1) -> Tensor:
    return 0.5 + spread * (2 * torch.rand(num, *SHAPE, generator=torch_rng(seed)) - 1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_of_two_classes_it_is_the_foot_of_the_perpendicular(norm: Norm) -> None:
    """The distance to the plane between them, in the dual norm: the margin over |w|_2, or over |w|_1."""
    layer, images = linear(2), greys(40, 0.1)
    scores = layer(images.flatten(1))
    label = scores.argmin(dim=1)
    w = layer.weight[1] - layer.weight[0]
    margin = (scores[:, 1] - scores[:, 0]).abs()
    expected = margin / (w.norm() if norm == "l2" else w.abs().sum())
    found = nearest_of_class(lambda x: layer(x.flatten(1)), images, label, 1.0, norm, batch_size=7)
    assert found.succeeded.all()
    assert torch.equal(layer(found.images.flatten(1)).argmax(dim=1), label)
    torch.testing.assert_close(found.distance, expected, rtol=2e-3, atol=5e-4)
    way = w / w.norm() if norm == "l2" else w.sign()
    signed = torch.where(label == 1, expected, -expected)
    moved = images + signed[:, None, None, None] * way.view(SHAPE)
    torch.testing.assert_close(found.images, moved, rtol=0, atol=1e-3)


def test_among_several_classes_it_is_hardly_farther_than_the_nearest_point_of_the_polytope() -> None:
    from scipy.optimize import minimize

    layer, images = linear(5), greys(8, 0.1)
    label = (layer(images.flatten(1)).argmax(dim=1) + 1) % 5
    found = nearest_of_class(lambda x: layer(x.flatten(1)), images, label, 2.0)
    assert found.succeeded.all()
    weight, bias = layer.weight.double().numpy(), layer.bias.double().numpy()
    for x, y, distance in zip(images.flatten(1).double().numpy(), label.tolist(), found.distance.tolist(), strict=True):
        lead = {"type": "ineq", "fun": lambda d, x=x, y=y: (weight[y] - weight) @ (x + d) + bias[y] - bias}
        exact = minimize(
            lambda d: (d**2).sum(), 0 * x, jac=lambda d: 2 * d, constraints=[lead], bounds=[(-v, 1 - v) for v in x]
        )
        assert exact.success
        assert exact.fun**0.5 * (1 - 1e-4) <= distance <= exact.fun**0.5 * 1.1 + 1e-3


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps_reach_the_bound_too(norm: Norm, steps: int) -> None:
    """Of a linear classifier one is enough, where no pixel is stopped at the edge of its range."""
    layer, images = linear(2), greys(20, 0.1)
    label = layer(images.flatten(1)).argmin(dim=1)
    few, many = (nearest_of_class(lambda x: layer(x.flatten(1)), images, label, 0.4, norm, n) for n in (steps, 20))
    assert few.succeeded.all()
    torch.testing.assert_close(few.distance, many.distance, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("norm", "diameter"), [("l2", 24**0.5), ("linf", 1.0)])
@pytest.mark.parametrize("epsilon", [1e9, 1e39, float("inf")])
def test_a_bound_beyond_the_diameter_is_the_diameter(norm: Norm, diameter: float, epsilon: float) -> None:
    layer, images = linear(2), greys(6, 0.1)
    label = layer(images.flatten(1)).argmin(dim=1)
    far, exact = (nearest_of_class(lambda x: layer(x.flatten(1)), images, label, e, norm) for e in (epsilon, diameter))
    assert far.succeeded.all()
    assert torch.equal(far.images, exact.images)


@pytest.mark.parametrize("norm", ["l1", "Linf", ""])
def test_a_norm_that_there_is_not_is_refused_wherever_it_is_used(norm: Any) -> None:
    layer, images = linear(2), greys(2, 0.1)
    label, told = torch.zeros(2, dtype=torch.long), f"norm is '{norm}': give one of linf, l2"
    with pytest.raises(InputError, match=told):
        nearest_of_class(lambda x: layer(x.flatten(1)), images, label, 1.0, norm)
    with pytest.raises(InputError, match=told):
        pgd(lambda x: layer(x.flatten(1)), images, label, 1.0, 1, 0.1, norm)
    for start in (unit_ball, unit_sphere):
        with pytest.raises(InputError, match=told):
            start(images.shape, norm)


def test_what_lies_beyond_the_bound_is_not_found_and_stays_as_it_was() -> None:
    layer, images = linear(2), greys(20, 0.2)
    scores = layer(images.flatten(1))
    label = scores.argmin(dim=1)
    distance = (scores[:, 1] - scores[:, 0]).abs() / (layer.weight[1] - layer.weight[0]).norm()
    epsilon = float(distance.sort().values[9:11].mean())  # half of them are nearer
    found = nearest_of_class(lambda x: layer(x.flatten(1)), images, label, epsilon)
    assert torch.equal(found.succeeded, distance < epsilon)
    assert found.distance[~found.succeeded].isinf().all()
    assert torch.equal(found.images[~found.succeeded], images[~found.succeeded])


def test_images_stay_in_range_and_what_is_read_as_wanted_stays_as_it_is() -> None:
    layer, images = linear(2), greys(30, 0.5)
    images[0], images[1] = 0, 1
    label = torch.zeros(30, dtype=torch.long)
    found = nearest_of_class(lambda x: layer(x.flatten(1)), images, label, 6.0)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    already = layer(images.flatten(1)).argmax(dim=1) == label
    assert already.any()
    assert not already.all()
    assert torch.equal(found.images[already], images[already])
    assert (found.distance[already] == 0).all()
    torch.testing.assert_close(
        found.distance[found.succeeded], (found.images - images).flatten(1).norm(dim=1)[found.succeeded]
    )


def test_unless_told_it_takes_20_steps_in_l2_on_128_images_at_once() -> None:
    images, label = torch.rand(129, 1, 1, 2, generator=torch_rng(2)), torch.ones(129, dtype=torch.int64)

    def shown(*settings: Any) -> list[Tensor]:
        """What the network is asked."""
        seen: list[Tensor] = []

        def network(x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return x.flatten(1)

        nearest_of_class(network, images, label, 0.5, *settings)
        return seen

    usual, told = shown(), shown("l2", 20, 128)
    assert len(usual) == len(told) > 40
    assert all(map(torch.equal, usual, told))
    with pytest.raises(ValueError, match="zip"):
        nearest_of_class(torch.nn.Flatten(), images, label[:128], 0.5)


@pytest.mark.parametrize(("norm", "epsilon"), [("l2", 0.3), ("linf", 0.1)])
def test_images_of_256_levels_are_what_they_are_when_they_have_been_stored(norm: Norm, epsilon: float) -> None:
    layer, images = linear(3), greys(60, 0.2)

    def read(x: Tensor) -> Tensor:
        return layer(x.flatten(1)).argmax(dim=1)

    label = torch.arange(60) % 3
    plain, found = (
        nearest_of_class(lambda x: layer(x.flatten(1)), images, label, epsilon, norm, eight_bit=eight_bit)
        for eight_bit in (False, True)
    )
    pictures = to_float(to_uint8(found.images))
    assert torch.equal(pictures[found.succeeded], found.images[found.succeeded])
    assert torch.equal(read(pictures)[found.succeeded], label[found.succeeded])
    assert int(found.succeeded.sum()) >= 0.6 * int(plain.succeeded.sum()) > 0
    order = torch.inf if norm == "linf" else 2
    distance = torch.linalg.vector_norm(found.images - images, ord=order, dim=(1, 2, 3))[found.succeeded]
    assert torch.equal(found.distance[found.succeeded], distance)
    assert (distance <= epsilon).all()
    assert torch.equal(found.images[~found.succeeded], images[~found.succeeded])


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("certainty", [50.0, 1e3, 1e6])
def test_a_very_certain_classifier_has_the_same_borders(norm: Norm, certainty: float) -> None:
    """Its cross-entropy has no gradient in float32, where it is far from them."""
    layer, images = linear(2), greys(40, 0.1)
    label = layer(images.flatten(1)).argmin(dim=1)
    plain = nearest_of_class(lambda x: layer(x.flatten(1)), images, label, 1.0, norm)
    certain = nearest_of_class(lambda x: certainty * layer(x.flatten(1)), images, label, 1.0, norm)
    assert certain.succeeded.all()
    torch.testing.assert_close(certain.distance, plain.distance, rtol=1e-2, atol=1e-3)


def test_where_there_is_no_gradient_nothing_is_found_and_nothing_is_lost() -> None:
    """A root has an infinite slope at 0, and 0 times that is no number."""
    layer, images = linear(3), greys(12, 0.4)
    images[:, 0] = 0

    def roots(x: Tensor) -> Tensor:
        return layer((0 * x[:, :1].sqrt() + x).flatten(1))

    read = roots(images).argmax(dim=1)
    for label in (read, (read + 1) % 3):
        found = nearest_of_class(roots, images, label, 2.0)
        assert found.images.isfinite().all()
        assert (roots(found.images).argmax(dim=1) == label)[found.succeeded].all()
    assert torch.equal(nearest_of_class(roots, images, read, 2.0).images, images)
