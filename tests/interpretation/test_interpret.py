"""A classifier interpreted from end to end, in the library, by the command and by the stage's own parts."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner
from draws import library_torch_rng, seed_torch
from torch import nn

import netinv
from netinv.app import interpreting
from netinv.core import InputError
from netinv.data import LabelledImages
from netinv.interpretation import DictionaryConfig, Drawn, Interpretation, InterpretationConfig, interpret
from netinv.results import INTERPRETATION, Estimate, NotMeasured, load_interpretation

if TYPE_CHECKING:
    from conftest import Exported

SMALL = DictionaryConfig(units=24, active=3, steps=20, batch_size=64)
CONFIG = InterpretationConfig(
    images=200, measured=120, dictionary=SMALL, sweep=(2,), concepts=4, examples=3, ascent_steps=2, resamples=100
)


def _variants(exported: "Exported") -> dict[str, Drawn]:
    return {name: Drawn([g], (3.0, 3.0)) for name, g in zip(("standard", "robust"), exported.generators, strict=True)}


def _real(num: int) -> LabelledImages:
    rng = library_torch_rng(num)
    return LabelledImages(
        torch.randint(0, 256, (num, 1, 12, 12), generator=rng, dtype=torch.uint8),
        torch.randint(0, 3, (num,), generator=rng),
    )


@pytest.fixture(scope="module")
def found(exported: "Exported") -> Interpretation:
    return interpret(
        exported.classifier,
        _variants(exported),
        ("zero", "one", "two"),
        CONFIG,
        evaluator=exported.evaluator,
        train=_real(150),
        test=_real(130),
    )


def test_every_dictionary_is_measured_on_both_kinds_of_images(found: Interpretation) -> None:
    names = [row.name for row in found.results.dictionaries]
    assert set(names) == {
        *("generated", "standard", "robust", "real", "noise", "random", "untrained"),
        *("generated, again", "real, again", "generated, 2 active"),
    }
    assert set(found.dictionaries) == set(names)
    for row in found.results.dictionaries:
        assert set(row.on) == {"generated", "real"}
        active = row.on["generated"]["active_units"]
        assert isinstance(active, Estimate)
        assert active.value <= row.active
        assert len({frozenset(measures) for measures in row.on.values()}) == 1


def test_the_question_is_answered_beside_its_controls(found: Interpretation) -> None:
    headline = found.results.headline
    for name in ("transfer", "transfer_noise", "transfer_random", "transfer_untrained", "found", "found_ceiling"):
        assert name in headline
    assert isinstance(headline["found"], Estimate)
    assert isinstance(headline["found_random"], Estimate)
    match = next(m for m in found.results.matches if (m.wanted, m.among) == ("real", "generated"))
    assert headline["found"] == match.cosine


def test_units_have_numbers_and_pictures(found: Interpretation) -> None:
    assert len(found.results.units) == len(found.pictures) == 4
    for unit, picture in zip(found.results.units, found.pictures, strict=True):
        assert sum(unit.labels) == pytest.approx(1)
        assert len(unit.effect) == len(unit.accuracy_lost) == 3
        assert picture.made.shape == (1, 12, 12)
        assert 1 <= len(picture.generated) <= 3
        assert picture.heat.shape == (12, 12)


def test_it_is_read_again_as_it_was_written(found: Interpretation, tmp_path: Path) -> None:
    found.save(tmp_path / "out")
    assert load_interpretation(tmp_path / "out") == found.results
    units = {f"unit-{unit.unit}.png" for unit in found.results.units}
    assert units | {"units.png", "dictionary.safetensors", INTERPRETATION} == {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1  # whoever reads one reads all
    found.save(tmp_path / "out")  # an earlier one is replaced
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError):
        found.save(tmp_path / "other")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"units": [{"unit": 1}]},
        {"dictionaries": [{"name": "real"}]},
        {"headline": {"found": {"value": 1e99, "low": 0, "high": 1, "n": 3}}},
        {"classes": ["zero", "one"]},
    ],
)
def test_what_was_changed_by_hand_is_refused(found: Interpretation, change: dict[str, Any], tmp_path: Path) -> None:
    values = found.results.model_dump(mode="json") | change
    (tmp_path / INTERPRETATION).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"interpretation\.json"):
        load_interpretation(tmp_path)


def test_without_data_and_evaluator_all_else_is_there(exported: "Exported") -> None:
    found = interpret(exported.classifier, {"standard": _variants(exported)["standard"]}, ("a", "b", "c"), CONFIG)
    assert {row.source for row in found.results.dictionaries} == {"generated", "noise", "random", "untrained"}
    assert isinstance(found.results.headline["transfer"], NotMeasured)
    assert isinstance(found.results.headline["monosemanticity"], NotMeasured)
    assert isinstance(found.results.headline["stability"], Estimate)
    assert all(unit.real_labels == () and unit.monosemanticity is None for unit in found.results.units)


def test_the_same_seed_gives_the_same_and_nothing_is_left_changed(exported: "Exported", found: Interpretation) -> None:
    state = {name: value.clone() for name, value in exported.classifier.state_dict().items()}
    config = CONFIG.model_copy(update={"sweep": ()})
    first, second = (interpret(exported.classifier, _variants(exported), ("a", "b", "c"), config) for _ in range(2))
    assert first.results == second.results
    assert all(torch.equal(value, state[name]) for name, value in exported.classifier.state_dict().items())


def test_positions_of_a_layer_are_interpreted(exported: "Exported") -> None:
    config = CONFIG.model_copy(update={"layer": "body.0", "sweep": ()})
    found = interpret(exported.classifier, _variants(exported), ("a", "b", "c"), config)
    assert (found.results.layer, found.results.dim, found.results.positions) == ("body.0", 8, 144)


def test_too_few_activations_are_refused(exported: "Exported") -> None:
    config = CONFIG.model_copy(update={"dictionary": SMALL.model_copy(update={"units": 2000})})
    with pytest.raises(InputError, match="200 activations are too few for 2000 units"):
        interpret(exported.classifier, _variants(exported), ("a", "b", "c"), config)


class _Constant(nn.Module):
    """Its hidden numbers do not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(144, 5), nn.Linear(5, 3)
        nn.init.zeros_(self.first.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(images.flatten(1)))


def test_constant_activations_are_refused(exported: "Exported") -> None:
    from netinv.classifiers import AdaptedClassifier

    network = AdaptedClassifier(_Constant(), (1, 12, 12), 3)
    with pytest.raises(InputError, match="All 5 numbers of penultimate features are constant"):
        interpret(network, _variants(exported), ("a", "b", "c"), CONFIG)


@pytest.mark.parametrize(
    ("train", "test", "reasons"),
    [
        (_real(20), _real(130), ["too few real images for a dictionary"] * 2),
        (None, _real(130), ["no real training images were given"] * 2),
        (_real(150), None, ["no real test images were given", None]),
    ],
)
def test_a_split_that_is_missing_or_small_is_named(
    exported: "Exported", train: LabelledImages | None, test: LabelledImages | None, reasons: list[str | None]
) -> None:
    quick = CONFIG.model_copy(update={"sweep": (), "concepts": 1, "dictionary": SMALL.model_copy(update={"steps": 2})})
    one = {"standard": _variants(exported)["standard"]}
    results = interpret(exported.classifier, one, ("a", "b", "c"), quick, train=train, test=test).results
    assert ("real" in {row.source for row in results.dictionaries}) == (reasons[1] is None)
    assert ("real" in results.dictionaries[0].on) == (test is not None)
    told = [results.headline[name] for name in ("transfer", "found")]
    assert [getattr(measure, "not_measured", None) for measure in told] == reasons


class _Pair(nn.Module):
    """A network of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(36, 16), nn.Linear(16, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(images.flatten(1))))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, "netinv.Inversion"]:
    seed_torch(0)
    network = _Pair()
    config = netinv.InversionConfig(steps=30, batch_size=16)
    with warnings.catch_warnings(action="ignore"):  # a class may be missing: it is one second's work
        inversion = netinv.invert(network, image_shape=(1, 6, 6), config=config, attempts=1, progress=False)
    return network, inversion


def test_three_lines_of_python(pair: tuple[nn.Module, "netinv.Inversion"], tmp_path: Path) -> None:
    network, inversion = pair
    inversion.generator.train()
    found = netinv.interpret(network, [inversion], config=CONFIG, progress=False)
    found.save(tmp_path / "out")
    assert found._repr_png_()[:4] == b"\x89PNG"
    assert len(repr(found)) < 100
    assert len(found.results.classes) == 2
    assert found.results.units
    assert network.training
    assert all(module.training for module in inversion.generator.modules())
    with pytest.raises(InputError, match="no inversion"):
        netinv.interpret(network, [])


def test_inversions_of_one_variant_and_sharpness_draw_together(pair: tuple[nn.Module, "netinv.Inversion"]) -> None:
    _, inversion = pair
    assert {name: len(d.generators) for name, d in interpreting.by_variant([inversion, inversion]).items()} == {
        "standard": 2
    }


@pytest.mark.filterwarnings("ignore:Of the classes")
def test_the_command_writes_what_it_found_and_refuses_what_is_wrong(
    pair: tuple[nn.Module, "netinv.Inversion"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, inversion = pair
    inversion.save(tmp_path / "inversion")
    (tmp_path / "my_pair.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    common = ["my_pair:make", "--image-shape", "1,6,6", "--inversion", str(tmp_path / "inversion")]
    small = ["--set", "images=200", "--set", "measured=120", "--set", "dictionary.units=24", "--set", "ascent_steps=2"]
    small += ["--set", "dictionary.active=3", "--set", "dictionary.steps=5", "--set", "sweep=[2]"]
    run = CliRunner().invoke(
        interpreting.interpret_command,
        [*common, *small, "--out", str(tmp_path / "out"), "--json"],
        catch_exceptions=False,
    )
    told = json.loads(run.stdout)
    assert told["headline"]["explained_variance"]["value"] <= 1
    assert (tmp_path / "out" / "units.png").exists()
    for wrong, message in (
        (["--layer", "conv9"], "no layer 'conv9'"),
        (["--set", "dictionary.unit=3"], "dictionary.unit is not a known key"),
        (["--set", "dictionary.active=600"], "above dictionary.units"),
    ):
        with pytest.raises(InputError, match=message):
            CliRunner().invoke(
                interpreting.interpret_command,
                [*common, *wrong, "--out", str(tmp_path / "other")],
                catch_exceptions=False,
            )
        assert not (tmp_path / "other").exists()
