"""The bound of each class, by hand."""

import pytest
import torch
from draws import torch_rng
from torch import Tensor

from netinv.inversion import InversionConfig
from netinv.inversion.bounds import MEMORY, ClassBounds
from netinv.inversion.losses import Batch


def bounds(**settings: object) -> ClassBounds:
    values = {"perturbation": "pgd", "epsilon": 0.4, "epsilon_ramp": 0.0, "survival": 0.5, "steps": 10, **settings}
    return ClassBounds(InversionConfig.model_validate(values), 2, torch.device("cpu"))


def batch(label: list[int], read: list[int]) -> Batch:
    """Of which only the labels and the logits count."""
    logits = torch.nn.functional.one_hot(torch.tensor(read), 2).float()
    return Batch(*(logits if name == "logits" else torch.tensor(label) for name in Batch._fields))


def share(count: int) -> float:
    """Of so many new samples in the average."""
    return 1 - (1 - 1 / MEMORY) ** count


def test_without_a_ramp_a_class_that_survives_has_the_whole_bound_at_once() -> None:
    tried = bounds()
    tried.surviving = torch.tensor([0.5, 0.499])
    tried._grow(torch.tensor([3.0, 3.0]), 6)
    torch.testing.assert_close(tried.epsilon, torch.tensor([0.4, 0.0]))  # 0.5 is enough; none falls below 0
    tried.surviving = torch.tensor([0.1, 1.0])
    tried._grow(torch.tensor([1.5, 4.5]), 6)  # half and one and a half of an equal share
    torch.testing.assert_close(tried.epsilon, torch.tensor([0.2, 0.4]))  # none exceeds the bound


@pytest.mark.parametrize(
    ("ramp", "steps", "expected"), [(0.5, 10, 0.08), (1.0, 10, 0.04), (0.5, 2, 0.4), (0.9, 1, 0.4)]
)
def test_the_ramp_is_a_share_of_the_steps_and_at_least_one(ramp: float, steps: int, expected: float) -> None:
    tried = bounds(epsilon_ramp=ramp, steps=steps)
    tried.surviving = torch.ones(2)
    tried._grow(torch.tensor([4.0, 4.0]), 8)
    torch.testing.assert_close(tried.epsilon, torch.tensor([expected, expected]))


def test_survival_is_an_average_over_the_last_samples_of_a_class() -> None:
    tried = bounds(survival=0.0)
    worst = tried.follow(batch([0, 0, 0, 1], [0, 1, 0, 0]))
    torch.testing.assert_close(tried.surviving, torch.tensor([2 / 3, 0.0]))
    torch.testing.assert_close(tried.seen, torch.tensor([share(3), share(1)]))
    assert float(worst) == 0.0
    before: Tensor = tried.surviving.clone()
    worst = tried.follow(batch([1, 1], [1, 1]))
    # The three samples of class 1 weigh as in an average that forgets, over what there is of it.
    torch.testing.assert_close(tried.surviving, torch.stack([before[0], torch.tensor(share(2) / share(3))]))
    assert worst == tried.surviving.min()
    assert tried.of_samples(3) is None


def test_an_answer_that_is_no_number_does_not_survive() -> None:
    tried, seen = bounds(survival=0.0), batch([0, 0], [0, 0])
    seen.logits[0] = torch.nan
    tried.follow(seen)
    assert tried.surviving.tolist() == [0.5, 0.0]
    assert seen.accuracy == 0.5
    assert (tried.epsilon == 0).all()


@pytest.mark.parametrize("num_classes", [10, 1000])
def test_classes_that_all_survive_have_the_whole_bound_however_many_there_are(num_classes: int) -> None:
    """At the default ramp, of half of the steps; a class of a thousand has some ten samples in all."""
    config = InversionConfig(perturbation="pgd", epsilon=0.3, survival=0.9, steps=600)
    tried = ClassBounds(config, num_classes, torch.device("cpu"))
    rng = torch_rng(0)
    for _ in range(config.steps):
        label = torch.randint(num_classes, (16,), generator=rng)
        logits = torch.nn.functional.one_hot(label, num_classes).float()
        worst = tried.follow(Batch(*(logits if name == "logits" else label for name in Batch._fields)))
        assert worst == 1  # of those that were drawn
    assert tried.epsilon.mean() > 0.28


def test_every_sample_has_the_bounds_of_all_classes() -> None:
    tried = bounds()
    tried.epsilon = torch.tensor([0.1, 0.3])
    rows = tried.of_samples(3)
    assert rows is not None
    assert torch.equal(rows, torch.tensor([[0.1, 0.3]] * 3))


def test_several_generators_at_once_are_followed_as_each_alone() -> None:
    rng = torch_rng(0)
    alone, together = [bounds() for _ in range(3)], bounds()
    states = [own.state_dict() for own in alone]
    together.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})
    for _ in range(4):
        label, read = torch.randint(2, (2, 3, 6), generator=rng).tolist()
        each = [batch(*of_one) for of_one in zip(label, read, strict=True)]
        worst = [own.follow(of_one) for own, of_one in zip(alone, each, strict=True)]
        assert torch.equal(together.follow(Batch(*map(torch.stack, zip(*each, strict=True)))), torch.stack(worst))
    for name, found in together.state_dict().items():
        assert torch.equal(found, torch.stack([own.state_dict()[name] for own in alone])), name
    rows = together.of_samples(5)
    assert rows is not None
    assert torch.equal(rows, torch.cat([own.epsilon.expand(5, -1) for own in alone]))


def test_a_state_is_taken_up_where_the_bounds_are() -> None:
    """``meta`` stands for another device."""
    names = ("epsilon", "surviving", "seen")
    state = {name: torch.tensor([0.1, 0.2]) + i / 10 for i, name in enumerate(names)}
    tried = bounds()
    tried.load_state_dict(state)
    assert {*tried.state_dict()} == {*names}
    for name in names:
        assert torch.equal(tried.state_dict()[name], state[name])
    state["epsilon"] += 1  # what was taken up is a copy
    assert not torch.equal(tried.epsilon, state["epsilon"])
    elsewhere = ClassBounds(tried.config, 2, torch.device("meta"))
    elsewhere.load_state_dict(state)
    assert {getattr(elsewhere, name).device.type for name in names} == {"meta"}
