"""What is set for every data set is in force in each of its variants, whatever a preset says."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from netinv.core import VARIANTS, InputError
from pipeline.layers import NONE, at, overlaid
from pipeline.params import Params, load_params

TEXTS = ("residual", "conv", "float32", "embedding", "transposed", "noise", "l2")
COUPLED = {f"invert.standard.{name}" for name in ("perturbation", "epsilon", "survival")}
"""What is refused alone: none of them means anything without the others."""


def _others(value: Any) -> list[Any]:
    """What may stand in the place of a value, or not; the first one mostly."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [text for text in TEXTS if text != value]
    if isinstance(value, list):
        return [[part * 2 for part in value]]
    return [{"model": "mine:net"}, 7, 0.5, True] if value is None else [value * 2 or 1, value / 2 or 0.1]


def _leaves(values: dict[str, Any], where: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield from _leaves(value, f"{where}{key}.") if isinstance(value, dict) else [f"{where}{key}"]


def _nested(place: str, value: Any) -> Any:
    for name in reversed(place.split(".")):
        value = {name: value}
    return value


def _reached(params: Params, place: str, value: Any) -> list[Any]:
    """What is in force at the end where a value is set for every data set: in each variant, of what both share."""
    settings = params.model_copy(update={"train": {}, "invert": {}} | _nested(place, value)).for_dataset("digits")
    name = place.removeprefix("invert.common.generator.")
    if name == place:
        return [at(settings.model_dump(mode="json"), place)]
    return [settings.invert.common.architecture(variant).model_dump(mode="json")[name] for variant in VARIANTS]


@pytest.fixture
def settled(root: Path) -> Params:
    """Settings whose preset of digits has a value of its own for everything, of robust generators, too."""
    params = load_params(root / "params.yaml")
    return params.model_copy(
        update={"presets": {**params.presets, "digits": params.for_dataset("digits").model_dump(mode="json")}}
    )


def test_whatever_is_set_for_every_data_set_is_in_force_in_each_variant(root: Path, settled: Params) -> None:
    file = YAML(typ="safe", pure=True).load(root / "params.yaml")
    before = settled.for_dataset("digits").model_dump(mode="json")
    places = [*_leaves({"train": file["train"], "invert": file["invert"]})]
    assert len(places) > 80
    refused = set()
    for place in places:
        for value in _others(at(before, place)):
            with suppress(InputError):
                reached = _reached(settled, place, value)
                assert all(overlaid({"": found}, {"": value})[""] == found for found in reached), (place, reached)
                break
        else:
            refused.add(place)
    assert refused == COUPLED
    assert settled.for_dataset("digits").invert.common.architecture("robust").bending > 0


def test_none_is_null_where_there_can_be_null_and_nowhere_else(settled: Params) -> None:
    own = _nested("train.classifier.source", {"model": "mine:net", "weights": "w.pt"})
    own = overlaid(own, _nested("invert.robust.images_at_once", 7))
    params = settled.model_copy(
        update={"presets": {**settled.presets, "digits": overlaid(settled.presets["digits"], own)}}
    )
    for place in ("train.classifier.source", "train.classifier.source.weights", "invert.robust.images_at_once"):
        assert _reached(params, place, None) != [None]
        assert _reached(params, place, NONE) == [None]
    assert _reached(params, "invert.robust", {"perturbation": NONE, "epsilon": 0.0})[0]["perturbation"] == NONE
    assert _reached(params, "invert.common.robust_generator.bending", NONE) == [None]
    with pytest.raises(InputError, match=r"robust\.steps: expected a valid integer, got 'none'"):
        _reached(params, "invert.robust.steps", NONE)
    arguments = _reached(params, "train.classifier.source.arguments", {"pretrained": None})
    assert arguments == [{"pretrained": None}]
