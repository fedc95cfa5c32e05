"""Every setting of an interpretation reaches what it is for."""

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from draws import library_torch_rng

from netinv.core import InputError
from netinv.interpretation import (
    DictionaryConfig,
    Drawn,
    Interpretation,
    InterpretationConfig,
    interpret,
    train_dictionary,
    training,
)
from netinv.results import Estimate

if TYPE_CHECKING:
    from conftest import Exported

SMALL = DictionaryConfig(units=16, active=3, steps=3, batch_size=32)
INTERPRET = sys.modules[interpret.__module__]
CONFIG = InterpretationConfig(
    images=120, measured=100, dictionary=SMALL, sweep=(), concepts=3, examples=3, ascent_steps=1, resamples=100
)


def _found(exported: "Exported", **changes: Any) -> Interpretation:
    config = InterpretationConfig.model_validate(CONFIG.model_dump() | changes)
    return interpret(exported.classifier, {"standard": Drawn(exported.generators, (3.0, 3.0))}, ("a", "b", "c"), config)


def _rows(num: int = 400) -> torch.Tensor:
    return torch.randn(num, 6, generator=library_torch_rng(0))


def test_layer_is_whose_output_is_interpreted(exported: "Exported") -> None:
    assert _found(exported).results.layer == "penultimate features"
    assert _found(exported, layer="body.1").results.layer == "body.1"


def test_images_are_trained_on_and_measured_are_measured_on(
    exported: "Exported", monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = set()
    plain = train_dictionary
    monkeypatch.setattr(
        INTERPRET,
        "train_dictionary",
        lambda rows, *rest: lengths.add(len(rows)) or plain(rows, *rest),
    )
    found = _found(exported, images=110, measured=105)
    assert lengths == {110}
    variance = found.results.headline["explained_variance"]
    assert isinstance(variance, Estimate)
    assert variance.n == 105


def test_dictionary_is_that_of_all_and_sweep_adds_to_it(exported: "Exported") -> None:
    found = _found(exported, sweep=(2, 5))
    assert {row.active for row in found.results.dictionaries} == {2, 3, 5}
    assert {len(model.bias) for model in found.dictionaries.values()} == {16}


def test_concepts_and_examples_are_shown(exported: "Exported") -> None:
    few, more = _found(exported, concepts=1, examples=2), _found(exported, concepts=3, examples=4)
    assert (len(few.pictures), len(more.pictures)) == (1, 3)
    assert len(few.pictures[0].generated) == 2
    assert max(len(picture.generated) for picture in more.pictures) == 4


def test_ascent_steps_are_climbed(exported: "Exported") -> None:
    short, long = _found(exported, ascent_steps=1), _found(exported, ascent_steps=30)
    assert not torch.equal(short.pictures[0].made, long.pictures[0].made)


def test_resamples_stand_behind_the_mean_of_units(exported: "Exported", monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    plain = INTERPRET.Bootstrap
    monkeypatch.setattr(INTERPRET, "Bootstrap", lambda *arguments: used.append(arguments) or plain(*arguments))
    _found(exported, resamples=170, seed=2)
    assert used == [(2, 170)]


def test_seed_fixes_every_draw(exported: "Exported") -> None:
    assert _found(exported, seed=1).results == _found(exported, seed=1).results
    first, other = _found(exported).results.headline, _found(exported, seed=1).results.headline
    assert first["explained_variance"] != other["explained_variance"]


def test_units_and_active_are_those_of_the_dictionary() -> None:
    model = train_dictionary(_rows(), SMALL)
    assert model.encoder.shape == (16, 6)
    assert int((model.encode(_rows()) > 0).sum(dim=1).max()) == 3
    with pytest.raises(InputError, match=r"above dictionary\.units"):
        InterpretationConfig(dictionary=DictionaryConfig(units=4, active=5))
    with pytest.raises(InputError, match="active already"):
        InterpretationConfig(sweep=(16,))


def test_steps_and_batch_size_are_those_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = training.loss
    monkeypatch.setattr(
        training, "loss", lambda model, rows, dead: (sizes.append(len(rows)), plain(model, rows, dead))[1]
    )
    train_dictionary(_rows(), SMALL.model_copy(update={"steps": 7, "batch_size": 19}))
    assert sizes == [19] * 7


def test_lr_is_that_of_the_first_steps_and_falls_to_0_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Spy(torch.optim.Adam):
        def step(self, *arguments: Any) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    train_dictionary(_rows(), SMALL.model_copy(update={"steps": 20, "lr": 0.02}))
    assert rates[:16] == [0.02] * 16
    assert rates[16:] == pytest.approx([0.02 * left / 4 for left in (4, 3, 2, 1)])


def test_auxiliary_is_the_weight_of_the_second_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "DEAD_AFTER", -1)  # every unit counts as dead
    monkeypatch.setattr(training, "RISE", 0.0)
    without, with_ = (
        train_dictionary(_rows(), SMALL.model_copy(update={"auxiliary": weight, "steps": 5})) for weight in (0.0, 5.0)
    )
    assert not torch.allclose(without.decoder, with_.decoder)


def test_seed_of_a_dictionary_is_of_its_first_directions_and_the_order() -> None:
    first, other = (train_dictionary(_rows(), SMALL.model_copy(update={"seed": seed})) for seed in (0, 1))
    assert not torch.equal(first.decoder, other.decoder)
