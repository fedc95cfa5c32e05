"""Sparse auto-encoders beside an independent implementation, and on activations whose directions are known."""

import numpy as np
import pytest
import torch
from draws import library_torch_rng

from netinv.interpretation import DictionaryConfig, SparseAutoencoder, train_dictionary
from netinv.interpretation.autoencoder import keep_top, loss
from netinv.interpretation.measures import matched_cosines


def _model(rows: torch.Tensor, units: int = 24, active: int = 3, seed: int = 0) -> SparseAutoencoder:
    return SparseAutoencoder.begin(rows, units, active, library_torch_rng(seed))


def _rows(num: int = 50, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return 3 + 2 * torch.randn(num, dim, generator=library_torch_rng(seed))


def _reference(model: SparseAutoencoder, rows: torch.Tensor, dead: np.ndarray) -> tuple[float, float]:
    """The two losses of Gao and others (2024), equations (1) to (5), in plain numpy, a row at a time."""
    state = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
    total, auxiliary, left = 0.0, 0.0, 0.0
    num, dim = rows.shape
    for row in rows.double().numpy():
        x = (row - state["centre"]) / state["scale"]
        pre = np.maximum(state["encoder"] @ x + state["bias"], 0)
        code = np.zeros_like(pre)
        strongest = np.argsort(-pre)[: model.active]
        code[strongest] = pre[strongest]
        rest = x - state["decoder"].T @ code
        of_dead = np.where(dead, pre, 0)
        others = np.zeros_like(pre)
        strongest = np.argsort(-of_dead)[: min(dead.sum(), dim // 2)]
        others[strongest] = of_dead[strongest]
        total += (rest**2).sum()
        auxiliary += ((rest - state["decoder"].T @ others) ** 2).sum()
        left += (rest**2).sum()
    return total / num / dim, auxiliary / left


def test_both_losses_are_those_of_an_independent_implementation() -> None:
    rows = _rows()
    model = _model(rows)
    model.bias.data += 0.1 * torch.randn(24, generator=library_torch_rng(1))
    dead = torch.arange(24) % 3 == 0
    found = loss(model, rows, dead)
    wanted, auxiliary = _reference(model, rows, dead.numpy())
    assert found.reconstruction.item() == pytest.approx(wanted, rel=1e-4)
    assert found.auxiliary.item() == pytest.approx(auxiliary, rel=1e-4)
    assert loss(model, rows, dead & False).auxiliary.item() == 0


def test_only_dead_units_learn_from_what_the_others_leave_over() -> None:
    rows = _rows()
    model = _model(rows)
    dead = torch.arange(24) < 5
    loss(model, rows, dead).auxiliary.backward()
    assert model.decoder.grad is not None
    assert bool((model.decoder.grad[:5] != 0).any())
    assert bool((model.decoder.grad[5:] == 0).all())


def test_a_code_has_at_most_so_many_units_and_none_below_0() -> None:
    model = _model(_rows())
    codes = model.encode(_rows(seed=3))
    assert bool((codes >= 0).all())
    assert int((codes > 0).sum(dim=1).max()) <= 3
    values = torch.tensor([[3.0, 1.0, 2.0]])
    assert keep_top(values, 2).tolist() == [[3.0, 0.0, 2.0]]
    assert keep_top(values, 9).tolist() == values.tolist()


def test_activations_are_taken_as_they_come() -> None:
    """Mean and size of the activations are part of the model: other units of measure change nothing."""
    rows = _rows()
    config = DictionaryConfig(units=16, active=4, steps=30, batch_size=32)
    plain, moved = train_dictionary(rows, config), train_dictionary(100 * rows - 7, config)
    assert torch.allclose(moved(100 * rows - 7), 100 * plain(rows) - 7, rtol=1e-3, atol=0.5)


def _planted(num: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations that are sums of 2 of 20 directions in 16 dimensions."""
    rng = library_torch_rng(7)
    directions = torch.nn.functional.normalize(torch.randn(20, 16, generator=rng), dim=1)
    rng = library_torch_rng(seed)
    chosen = torch.rand(num, 20, generator=rng).topk(2, dim=1).indices
    codes = torch.zeros(num, 20).scatter(1, chosen, 1 + torch.rand(num, 2, generator=rng))
    return codes @ directions, directions


def test_directions_that_were_planted_are_found_and_no_unit_is_dead() -> None:
    rows, directions = _planted(4000, seed=0)
    config = DictionaryConfig(units=20, active=2, steps=600, batch_size=256, lr=0.01)
    model = train_dictionary(rows, config)
    fresh, _ = _planted(1000, seed=1)
    unexplained = (model(fresh) - fresh).square().sum() / (fresh - fresh.mean(dim=0)).square().sum()
    assert unexplained < 0.1
    centred = directions - directions.mean(dim=0)
    assert matched_cosines(centred, model.directions).mean() > 0.85
    assert bool((model.encode(fresh) > 0).any(dim=0).all())


def test_the_seed_fixes_a_dictionary_and_torch_is_left_as_it_was() -> None:
    rows, _ = _planted(500, seed=0)
    config = DictionaryConfig(units=20, active=2, steps=20, batch_size=64)
    before = torch.random.get_rng_state()
    first, second = train_dictionary(rows, config), train_dictionary(rows, config)
    other = train_dictionary(rows, config.model_copy(update={"seed": 1}))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.decoder, second.decoder)
    assert not torch.equal(first.decoder, other.decoder)


def test_controls_keep_their_directions() -> None:
    rows, _ = _planted(500, seed=0)
    config = DictionaryConfig(units=20, active=2, steps=50, batch_size=64)
    longer = config.model_copy(update={"steps": 60})
    random, later = train_dictionary(rows, config, "random"), train_dictionary(rows, longer, "random")
    assert torch.allclose(random.decoder, later.decoder, atol=1e-5)
    assert not torch.allclose(random.encoder, later.encoder, atol=1e-5)
    untrained = train_dictionary(rows, config, "untrained")
    begun = SparseAutoencoder.begin(rows, 20, 2, library_torch_rng(0))
    assert torch.equal(untrained.encoder, begun.encoder)


@pytest.mark.parametrize("source", ["", "random"])
def test_directions_are_as_long_as_1(source: str) -> None:
    rows, _ = _planted(500, seed=0)
    model = train_dictionary(rows, DictionaryConfig(units=20, active=2, steps=10, batch_size=64), source)
    assert torch.allclose(model.decoder.norm(dim=1), torch.ones(20), atol=1e-5)
