"""Perturbations: their bounds, and PGD against the one in Foolbox."""

import pytest
import torch
from draws import seed_torch, torch_rng
from torch import Tensor, nn

from netinv.perturbations import Norm, noise, pgd, reads_as, robust_accuracy, robust_mask, unit_ball, unit_sphere
from netinv.perturbations.attacks import tempered

NUM_CLASSES = 5


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A smooth little network with room to be fooled."""
    seed_torch(0)
    layers = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, NUM_CLASSES))
    for parameter in layers.parameters():
        parameter.data *= 3
    return layers.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Tensor:
    rng = torch_rng(1)
    x = torch.rand(64, 2, 8, 8, generator=rng)
    x[0], x[1] = 0, 1  # at the edge of the valid range
    return x


@pytest.fixture(scope="module")
def label(network: nn.Module, images: Tensor) -> Tensor:
    return network(images).argmax(dim=1)


def length(delta: Tensor, norm: Norm) -> Tensor:
    return delta.flatten(1).abs().amax(dim=1) if norm == "linf" else delta.flatten(1).norm(dim=1)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.7)])
@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.filterwarnings("ignore")  # the library's own
def test_pgd_takes_the_steps_that_foolbox_takes(
    network: nn.Module, images: Tensor, label: Tensor, norm: Norm, epsilon: float, steps: int
) -> None:
    import foolbox

    attack_class = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = attack_class(steps=steps, abs_stepsize=0.25 * epsilon, random_start=False)
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    expected = attack.run(model, images, foolbox.criteria.Misclassification(label), epsilon=epsilon)
    delta = pgd(network, images, label, epsilon, steps, step_size=0.25, norm=norm)
    torch.testing.assert_close(images + delta, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_pgd_is_as_strong_as_foolbox_with_random_starts(network: nn.Module, images: Tensor, label: Tensor) -> None:
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    seed_torch(0)
    shares = []
    for epsilon in (0.01, 0.03, 0.09):
        attack = foolbox.attacks.LinfPGD(steps=20, rel_stepsize=2.5 / 20)
        _, _, fooled = attack(model, images, label, epsilons=epsilon)
        ours = robust_accuracy(network, images, label, epsilon, steps=20)
        shares.append(ours)
        assert ours <= 1 - float(fooled.float().mean()) + 0.05  # of 64 images; it may be stronger
    assert shares == sorted(shares, reverse=True)
    assert any(0 < share < 1 for share in shares)  # neither attack idle nor overwhelming everywhere


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.3), ("l2", 2.0)])
def test_perturbations_stay_within_bound_and_range(
    network: nn.Module, images: Tensor, label: Tensor, norm: Norm, epsilon: float
) -> None:
    rng = torch_rng(0)
    for delta in (
        noise(images, epsilon, unit_sphere(images.shape, norm, rng)),
        pgd(network, images, label, epsilon, 0, 0.5, norm, unit_ball(images.shape, norm, rng)),
        pgd(network, images, label, epsilon, 5, 0.5, norm, unit_ball(images.shape, norm, rng)),
    ):
        assert (length(delta, norm) <= epsilon * (1 + 1e-5)).all()
        assert (length(delta, norm) > 0).all()
        assert ((images + delta >= 0) & (images + delta <= 1)).all()
        assert not delta.requires_grad


def test_noise_lies_on_the_surface(images: Tensor) -> None:
    inside = 0.5 + 0.1 * images  # far from the edges, where nothing is cut off
    assert noise(inside, 0.1, unit_sphere(inside.shape, "linf")).abs().allclose(torch.tensor(0.1), atol=1e-6)
    assert length(noise(inside, 0.5, unit_sphere(inside.shape, "l2")), "l2").allclose(torch.tensor(0.5), atol=1e-5)


def test_pgd_beats_noise(network: nn.Module, images: Tensor, label: Tensor) -> None:
    def loss(delta: Tensor) -> float:
        return float(nn.functional.cross_entropy(network(images + delta), label))

    rng = torch_rng(0)
    start, signs = unit_ball(images.shape, "linf", rng), unit_sphere(images.shape, "linf", rng)
    assert loss(pgd(network, images, label, 0.05, 10, 0.25, start=start)) > 1.5 * loss(noise(images, 0.05, signs))


def test_pgd_moves_away_from_a_blend_of_labels(network: nn.Module, images: Tensor, label: Tensor) -> None:
    one_hot = nn.functional.one_hot(label, NUM_CLASSES).float()
    alone, same = (pgd(network, images, target, 0.05, 10, 0.25) for target in (label, one_hot))
    torch.testing.assert_close(alone, same)
    blend = 0.5 * one_hot + 0.5 * one_hot.roll(1, dims=1)
    delta = pgd(network, images, blend, 0.05, 10, 0.25)
    raised = [float(nn.functional.cross_entropy(network(images + d), blend)) for d in (alone, delta)]
    assert raised[1] > max(raised[0], float(nn.functional.cross_entropy(network(images), blend)))


def test_pgd_leaves_network_and_images_alone(network: nn.Module, images: Tensor, label: Tensor) -> None:
    before = [parameter.clone() for parameter in network.parameters()]
    kept = images.clone()
    with torch.no_grad():  # callers may well be inside
        pgd(network, images, label, 0.1, 3, 0.5)
    assert torch.equal(images, kept)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_robust_accuracy_falls_with_epsilon_from_the_plain_one(
    network: nn.Module, images: Tensor, label: Tensor
) -> None:
    wrong = label.clone()
    wrong[:16] = (wrong[:16] + 1) % NUM_CLASSES
    curve = [robust_accuracy(network, images, wrong, epsilon) for epsilon in (0.0, 0.01, 0.03, 0.3)]
    assert curve[0] == 0.75
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == 0


def test_survival_is_that_of_each_image(network: nn.Module, images: Tensor, label: Tensor) -> None:
    kept = robust_mask(network, images, label, 0.02, steps=20)
    assert kept.shape == (64,)
    assert kept.float().mean() == robust_accuracy(network, images, label, 0.02, steps=20)
    assert torch.equal(kept, robust_mask(network, images, label, 0.02, steps=20))  # the seed fixes it
    # In other batches the random starts differ, the outcome hardly.
    assert (kept == robust_mask(network, images, label, 0.02, steps=20, batch_size=10)).float().mean() > 0.95


def test_what_is_no_number_is_read_as_no_class(network: nn.Module, images: Tensor) -> None:
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[1.0, 0], [0, -inf], [0, 1], [nan, nan], [0, nan], [nan, 0], [inf, 0], [-inf, -inf]])
    for shape in ((8,), (2, 4)):
        read = reads_as(logits.view(*shape, 2), torch.zeros(shape, dtype=torch.long))
        assert read.flatten().tolist() == [True, True, *[False] * 6]
    for epsilon in (0.0, 0.1):
        assert not robust_mask(
            lambda x: torch.nan * network(x), images, torch.zeros(64, dtype=torch.long), epsilon
        ).any()


@pytest.mark.parametrize("shape", [(4000, 2, 3, 1), (5000, 1, 2, 2)])
def test_the_unit_ball_and_sphere_are_filled_evenly(shape: tuple[int, ...]) -> None:
    ball, sphere = (draw(shape, "linf", torch_rng(0)) for draw in (unit_ball, unit_sphere))
    assert ball.shape == sphere.shape == shape
    assert -1 <= float(ball.min()) < -0.99
    assert 0.99 < float(ball.max()) <= 1
    assert ball.mean().abs() < 0.03
    assert set(sphere.unique().tolist()) == {-1.0, 1.0}
    assert sphere.mean().abs() < 0.05
    ball, sphere = (draw(shape, "l2", torch_rng(1)) for draw in (unit_ball, unit_sphere))
    assert ball.shape == sphere.shape == shape
    torch.testing.assert_close(sphere.flatten(1).norm(dim=1), torch.ones(len(sphere)))
    lengths = ball.flatten(1).norm(dim=1)
    quantiles = lengths.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(quantiles, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), atol=0.04, rtol=0)
    for directions in (sphere, ball / lengths.view(-1, 1, 1, 1)):
        assert directions.mean(dim=0).abs().max() < 0.06


def test_without_a_random_state_the_global_one_is_used() -> None:
    for norm in ("linf", "l2"):
        seed_torch(7)
        first = unit_ball((3, 1, 2, 2), norm), unit_sphere((3, 1, 2, 2), norm)
        rng = torch_rng(7)
        assert torch.equal(first[0], unit_ball((3, 1, 2, 2), norm, rng))
        assert torch.equal(first[1], unit_sphere((3, 1, 2, 2), norm, rng))
    assert unit_ball((2, 1, 2, 2), "linf", device=torch.device("meta")).device.type == "meta"


def test_noise_and_the_start_of_an_attack_are_clipped_to_valid_pixels(network: nn.Module, label: Tensor) -> None:
    images = torch.tensor([0.0, 0.05, 0.5, 0.98]).expand(64, 2, 8, 4).repeat(1, 1, 1, 2)
    up = torch.ones_like(images)
    for delta in (noise(images, 0.1, up), pgd(network, images, label, 0.1, 0, 1.0, start=up)):
        torch.testing.assert_close(delta[0, 0, 0, :4], torch.tensor([0.1, 0.1, 0.1, 0.02]))
    for delta in (noise(images, 0.1, -up), pgd(network, images, label, 0.1, 0, 1.0, start=-up)):
        torch.testing.assert_close(delta[0, 0, 0, :4], torch.tensor([0.0, -0.05, -0.1, -0.1]))
    assert not pgd(network, images, label, 0.1, 0, 1.0).any()


def test_an_attack_leaves_no_gradients_and_needs_no_graph(network: nn.Module, images: Tensor, label: Tensor) -> None:
    held = images.clone().requires_grad_()
    with torch.no_grad():
        delta = pgd(network, held * 1, label, 0.05, 2, 0.5)
    assert not delta.requires_grad
    assert held.grad is None
    torch.testing.assert_close(delta, pgd(network, held * 1, label, 0.05, 2, 0.5))


class Seen:
    """A network, and all that it was shown: what a mask of yes and no would hide."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.images.append(images.detach().clone())
        return self.network(images)

    def equals(self, other: "Seen") -> bool:
        return len(self.images) == len(other.images) and all(map(torch.equal, self.images, other.images))


def attacked(
    network: Seen, images: Tensor, label: Tensor, epsilon: float, steps: int, norm: Norm, seed: int, batch_size: int
) -> Tensor:
    """What the robust mask is by its definition."""
    rng = torch_rng(0).manual_seed(seed)
    kept = []
    for x, y in zip(images.split(batch_size), label.split(batch_size), strict=True):
        start = unit_ball(x.shape, norm, rng)
        delta = pgd(lambda i, y=y: tempered(network(i), y), x, y, epsilon, steps, min(1.0, 2.5 / steps), norm, start)
        kept.append(network(x + delta).argmax(dim=1) == y)
    return torch.cat(kept)


def test_the_robust_mask_is_an_attack_from_a_random_start(network: nn.Module, images: Tensor, label: Tensor) -> None:
    for norm, epsilon, steps in (("linf", 0.02, 5), ("l2", 0.3, 2)):
        ours, theirs, share = Seen(network), Seen(network), Seen(network)
        expected = attacked(theirs, images, label, epsilon, steps, norm, 3, 25)
        assert torch.equal(robust_mask(ours, images, label, epsilon, steps, norm, 3, 25), expected)
        mean = robust_accuracy(share, images, label, epsilon, steps, norm, 3, 25)
        assert mean == pytest.approx(float(expected.float().mean()))
        assert ours.equals(theirs)
        assert share.equals(theirs)
    assert robust_mask(network, images, label, 0.0).all()


def test_the_robust_mask_takes_20_steps_from_seed_0_on_128_images_at_once() -> None:
    images, label = torch.rand(129, 1, 2, 2, generator=torch_rng(5)), torch.zeros(129, dtype=torch.int64)
    seen = [Seen(nn.Flatten()) for _ in range(3)]
    attacked(seen[0], images, label, 0.1, 20, "linf", 0, 128)
    robust_mask(seen[1], images, label, 0.1)
    robust_accuracy(seen[2], images, label, 0.1)
    assert seen[1].equals(seen[0])
    assert seen[2].equals(seen[0])
    with pytest.raises(ValueError, match="zip"):
        robust_mask(seen[0], images, label[:128], 0.1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_more_certain_classifier_is_no_more_robust(norm: Norm) -> None:
    """Of two classes every attack goes the same way, so that only its end could differ."""
    rng = torch_rng(0)
    weights = torch.randn(2, 12, generator=rng)
    images = 0.2 + 0.6 * torch.rand(200, 1, 3, 4, generator=rng)
    scores = images.flatten(1) @ weights.T
    label = scores.argmax(dim=1)
    border = (scores[:, 1] - scores[:, 0]).abs() / (weights[1] - weights[0]).norm(p=2 if norm == "l2" else 1)
    epsilon = float(border.median())

    def kept(scale: float) -> Tensor:
        return robust_mask(lambda x: scale * x.flatten(1) @ weights.T, images, label, epsilon, 20, norm)

    plain = kept(1.0)
    assert 0.02 < plain.float().mean() < 0.98
    for scale in (100.0, 1e5):
        assert (kept(scale) != plain).float().mean() < 0.05  # of those next to the bound


def test_tempered_logits_are_read_the_same_and_lead_by_so_much() -> None:
    logits = [[3.0, 1.0, 2.0], [500.0, 0.0, -500.0], [0.0, 500.0, 0.0], [1e-3, 2e-3, 0.0], [0.0, 0.0, -1.0]]
    found = tempered(torch.tensor(logits), torch.zeros(5, dtype=torch.int64))
    expected = [[30.0, 10.0, 20.0], [10.0, 0.0, -10.0], [0.0, 10.0, 0.0], [10.0, 20.0, 0.0], [0.0, 0.0, -1e12]]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_attack_goes_the_same_way_whatever_the_scale_of_the_logits(
    norm: Norm, network: nn.Module, images: Tensor, label: Tensor
) -> None:
    """Powers of two change no digit, so that all steps are the same."""
    plain = Seen(network)
    robust_mask(plain, images, label, 0.05, 3, norm)
    for scale in (2.0**-12, 2.0**12):
        scaled = Seen(lambda x, scale=scale: scale * network(x))
        robust_mask(scaled, images, label, 0.05, 3, norm)
        assert scaled.equals(plain)


def test_large_images_are_attacked_a_few_at_a_time() -> None:
    images, label = torch.full((33, 1, 256, 256), 0.5), torch.zeros(33, dtype=torch.int64)
    seen = Seen(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()))
    robust_mask(seen, images, label, 0.1, steps=1)
    assert {len(batch) for batch in seen.images} == {16, 1}
