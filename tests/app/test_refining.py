"""Counterfactuals in one call."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import seed_torch, torch_rng
from torch import nn

import netinv
from netinv.core import InputError
from netinv.data import to_float, to_uint8


def network() -> nn.Module:
    """One that drops, normalises by the batch in training, and wants gradients: all of that is its owner's."""
    seed_torch(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2)])
def test_images_become_those_of_another_class_and_the_network_stays_as_it_was(shape: tuple[int, int, int]) -> None:
    classifier = network().train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    images = torch.rand(6, *shape, generator=torch_rng(1))
    with torch.inference_mode():
        label = torch.tensor([0, 1, 2, 0, 1, 2])
        found = netinv.refine(images, classifier, label, epsilon=5.0)
        one = netinv.refine(images, classifier, 2, epsilon=5.0)
    assert classifier.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    read = classifier.eval()(found.images).argmax(dim=1)
    assert torch.equal(read == label, found.succeeded)
    assert found.succeeded.any()
    assert torch.equal(one.images[2], found.images[2])
    assert one.distance[5] == found.distance[5]


def test_the_adapter_says_what_the_network_takes() -> None:
    images = torch.rand(4, 1, 3, 4, generator=torch_rng(1))
    adapter = netinv.AdapterConfig(mean=(0.5,), std=(0.25,))
    classifier = network().eval()
    label = int(classifier((images - 0.5) / 0.25).argmax(dim=1)[0])  # any other may lie nowhere
    found = netinv.refine(images, classifier, label, epsilon=5.0, norm="linf", adapter=adapter)
    assert found.succeeded[0]
    read = classifier((found.images - 0.5) / 0.25).argmax(dim=1) == label
    assert torch.equal(read, found.succeeded)


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.uint8, "resized"])
def test_images_of_any_kind_are_searched_in_float32(given: Any) -> None:
    """Half precision and uint8 have no images between their own, where the nearest ones lie."""
    single, classifier = torch.rand(4, 1, 3, 4, generator=torch_rng(1)).round(decimals=1), network()
    if given == "resized":  # which may take white a little beyond 1
        single[0] = 1
        images = torch.where(single == 1, 1 + 2.4e-7, single)
    else:
        images = to_uint8(single) if given == torch.uint8 else single.to(given)
        single = to_float(images)
    found, expected = (netinv.refine(x, classifier, 1, epsilon=5.0, steps=2) for x in (images, single))
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.distance, expected.distance)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": torch.zeros(3, 4)}, "shape"),
        ({"images": torch.full((1, 1, 3, 4), 255.0)}, "reach from 255 to 255: give uint8, or floats"),
        ({"images": torch.full((1, 1, 3, 4), float("nan"))}, "reach from nan to nan"),
        ({"images": torch.zeros(1, 1, 3, 4, dtype=torch.int64)}, "uint8 or floats"),
        ({"images": torch.zeros(0, 1, 3, 4)}, "no images"),
        ({"label": 3}, "0 to 2"),
        ({"label": torch.tensor([0, 1])}, "one for each"),
        ({"label": 0.7}, "whole numbers, and these are torch.float32"),
        ({"label": torch.tensor([True])}, "whole numbers, and these are torch.bool"),
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": float("inf")}, "epsilon is inf: a finite bound"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"norm": "l1"}, "norm is 'l1': give one of linf, l2"),
        ({"norm": "Linf"}, "norm is 'Linf'"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5: give a whole number"),
        ({"steps": True}, "steps is True: give a whole number"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(change: dict[str, Any], told: str) -> None:
    arguments = {"images": torch.zeros(1, 1, 3, 4), "label": 0, "epsilon": 1.0} | change
    with pytest.raises(InputError, match=told):
        netinv.refine(arguments.pop("images"), network(), **arguments)


def test_the_lines_of_counterfactuals_md_run_as_written(root: Path) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "counterfactuals.md").read_text(), re.DOTALL)
    seed_torch(0)
    names: dict[str, Any] = {
        "images": torch.rand(4, 1, 5, 5, generator=torch_rng(1)),
        "classifier": nn.Sequential(nn.Flatten(), nn.Linear(25, 10)),
    }
    exec(lines, names)
    found = names["found"]
    assert found.succeeded.any()
    assert names["classifier"](found.images[found.succeeded]).argmax(dim=1).tolist() == [8] * int(found.succeeded.sum())
