"""The report's chapter on what a classifier has learned: sentences follow from numbers beside their controls."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netinv.core import InputError
from netinv.interpretation import DictionaryConfig, Drawn, Interpretation, InterpretationConfig, interpret
from netinv.report import Interpreted
from netinv.report.learned import learned, sentences
from netinv.results import Estimate, InterpretationResults, NotMeasured

if TYPE_CHECKING:
    from conftest import Exported


@pytest.fixture(scope="module")
def found(exported: "Exported") -> Interpretation:
    config = InterpretationConfig(
        images=150,
        measured=100,
        dictionary=DictionaryConfig(units=24, active=3, steps=10, batch_size=64),
        sweep=(2,),
        concepts=3,
        examples=3,
        ascent_steps=1,
        resamples=100,
    )
    return interpret(
        exported.classifier,
        {"standard": Drawn(exported.generators, (3.0, 3.0))},
        ("zero", "<b>one</b>", "two"),
        config,
        evaluator=exported.evaluator,
    )


def _with(results: InterpretationResults, **numbers: float) -> InterpretationResults:
    headline = dict(results.headline)
    for name, value in numbers.items():
        headline[name] = Estimate(value=value, low=value - 0.02, high=value + 0.02, n=100)
    return results.model_copy(update={"headline": headline})


def test_without_real_images_the_question_is_not_answered(found: Interpretation) -> None:
    told = sentences(found.results)
    assert "24 units, of which an activation uses 3" in told[0]
    assert not any("real images" in sentence for sentence in told)


def test_units_stand_beside_the_numbers_of_the_layer_itself(found: Interpretation) -> None:
    results = _with(found.results, monosemanticity=0.375)
    own = Estimate(value=0.125, low=0.1, high=0.15, n=20)
    told = sentences(results.model_copy(update={"neurons": own}))
    assert told[1] == (
        "Images that fire one of its units are alike by 0.375 (monosemanticity), those that raise one of the layer's "
        "own numbers by 0.125."
    )


@pytest.mark.parametrize(
    ("transfer", "noise", "verdict"),
    [
        (0.95, 0.50, "more than the best control, the random dictionary, with 0.7"),
        (0.95, 0.94, "tells nothing yet: the noise dictionary, a control, has 0.94"),
        (0.40, 0.10, "tells nothing yet: the random dictionary"),
    ],
)
def test_a_number_that_a_control_has_as_well_tells_nothing(
    found: Interpretation, transfer: float, noise: float, verdict: str
) -> None:
    results = _with(found.results, transfer=transfer, transfer_noise=noise, transfer_random=0.7, transfer_untrained=0.2)
    told = [sentence for sentence in sentences(results) if "On real images" in sentence]
    assert len(told) == 1
    assert verdict in told[0]


def test_where_the_question_has_no_answer_it_is_told_why(found: Interpretation) -> None:
    row = found.results.dictionaries[0]
    both = row.model_copy(update={"on": dict.fromkeys(("generated", "real"), row.on["generated"])})
    headline = found.results.headline | {"transfer": NotMeasured(not_measured="it has a reason")}
    results = found.results.model_copy(update={"headline": headline, "dictionaries": (both,)})
    told = [sentence for sentence in sentences(results) if "real images" in sentence]
    assert told == ["How much loss the dictionary recovers on real images is not measured: it has a reason."]


def test_directions_that_are_found_are_told_beside_another_seed(found: Interpretation) -> None:
    results = _with(found.results, found=0.8, found_noise=0.3, found_random=0.2, found_untrained=0.5, found_ceiling=0.9)
    told = sentences(results)[-1]
    assert "cosine of 0.800 (0.900 for another seed on real images)" in told
    assert "more than the best control, the untrained dictionary" in told


def test_every_unit_has_a_picture_and_its_facts(found: Interpretation, tmp_path: Path) -> None:
    found.save(tmp_path / "out")
    view = learned(Interpreted(found.results, tmp_path / "out"))
    assert [unit.title for unit in view.units] == [f"Unit {unit.unit}" for unit in found.results.units]
    assert all(unit.picture.uri.startswith("data:image/webp;base64,") for unit in view.units)
    told = {name for unit in view.units for name, _ in unit.facts}
    assert told >= {"fires on", "raises", "switched off", "made image"}
    assert len(view.curves) == 2
    assert [kind for kind, _ in view.tables] == ["generated"]
    still = found.results.model_copy(update={"constant": 2})
    assert ", 2 of them always the same" in learned(Interpreted(still, tmp_path / "out")).layer
    (tmp_path / "out" / f"unit-{found.results.units[0].unit}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"unit-\d+\.png is not a readable picture .*: interpret again"):
        learned(Interpreted(found.results, tmp_path / "out"))


def test_what_was_not_measured_says_why(found: Interpretation) -> None:
    assert found.results.headline["transfer"] == NotMeasured(not_measured="no real test images were given")
