"""Every setting of an adapter, and of where a classifier comes from, reaches what it is for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from draws import library_seed_torch, library_torch_rng
from torch import Tensor, nn

from netinv.classifiers import (
    AdaptedClassifier,
    AdapterConfig,
    ClassifierSource,
    import_classifier,
    load_classifier_from,
)
from netinv.core import InputError

SHAPE = (1, 8, 8)


# AdapterConfig


class Open(nn.Module):
    """Gives what it is told, from what it was shown last."""

    def __init__(self, pixels: int = 3 * 4 * 4, outputs: int = 3) -> None:
        super().__init__()
        library_seed_torch(0)
        self.first = nn.Linear(pixels, 6)
        self.last = nn.Linear(6, outputs)
        self.shown = torch.empty(0)

    def forward(self, images: Tensor) -> Any:
        self.shown = images
        return self.last(torch.tanh(self.first(images.flatten(1))))


COLOUR = torch.rand(4, 3, 4, 4, generator=library_torch_rng(0))


def seen(images: Tensor, network: Open | None = None, **changes: Any) -> Tensor:
    network = network or Open()
    adapted = AdaptedClassifier(network, tuple(images.shape[1:]), None, AdapterConfig(**changes))  # type: ignore[arg-type]
    adapted(images)
    return network.shown


def test_mean_and_std_normalise_the_images() -> None:
    torch.testing.assert_close(seen(COLOUR), COLOUR)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.75)
    expected = (COLOUR - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen(COLOUR, mean=mean, std=std), expected)


def test_input_shape_is_what_the_network_gets() -> None:
    assert seen(COLOUR, Open(3 * 6 * 5), input_shape=(3, 6, 5)).shape == (4, 3, 6, 5)
    assert torch.equal(seen(COLOUR, input_shape=(48,)), COLOUR.flatten(1))
    grey = seen(COLOUR, Open(16), input_shape=(1, 4, 4))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close(grey, (COLOUR * weights).sum(1, keepdim=True))
    assert torch.equal(seen(COLOUR[:, :1], input_shape=(3, 4, 4)), COLOUR[:, :1].expand(-1, 3, -1, -1))


def test_channel_order_turns_the_channels_round() -> None:
    assert torch.equal(seen(COLOUR, channel_order="bgr"), COLOUR.flip(1))
    mean, std = (0.3, 0.2, 0.1), (0.75, 0.25, 0.5)  # in the network's own order
    expected = (COLOUR.flip(1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen(COLOUR, channel_order="bgr", mean=mean, std=std), expected)


class Soft(Open):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).softmax(dim=1)


def test_output_is_what_the_scores_are_taken_for() -> None:
    network = Soft()
    probabilities = network(COLOUR)
    for output, expected in (
        ("auto", probabilities.log()),
        ("probabilities", probabilities.log()),
        ("logits", probabilities),
        ("log_probabilities", probabilities),
        ("sigmoid", probabilities.logit()),
    ):
        adapted = AdaptedClassifier(network, (3, 4, 4), None, AdapterConfig.parse({"output": output}))
        torch.testing.assert_close(adapted(COLOUR), expected)
        assert adapted.detected_output == ("sigmoid" if output == "sigmoid" else "probabilities")


class Two(Open):
    def forward(self, images: Tensor) -> Any:
        scores = super().forward(images)
        return {"negative": -scores, "scores": scores}


class TwoInTuple(Two):
    def forward(self, images: Tensor) -> Any:
        return tuple(super().forward(images).values())


@pytest.mark.parametrize(("kind", "entries"), [(Two, ("negative", "scores")), (TwoInTuple, (0, 1))])
def test_output_entry_names_the_scores(kind: type[Open], entries: tuple[int | str, ...]) -> None:
    scores = Open()(COLOUR)
    for entry, sign in zip(entries, (-1, 1), strict=True):
        adapted = AdaptedClassifier(kind(), (3, 4, 4), None, AdapterConfig(output_entry=entry))
        torch.testing.assert_close(adapted(COLOUR), sign * scores)


def test_feature_layer_names_whose_input_the_features_are() -> None:
    network = Open()
    for layer, expected in (("first", COLOUR.flatten(1)), ("last", torch.tanh(network.first(COLOUR.flatten(1))))):
        adapted = AdaptedClassifier(network, (3, 4, 4), None, AdapterConfig(feature_layer=layer))
        torch.testing.assert_close(adapted(COLOUR, return_features=True)[1], expected)


class Tokens(nn.Module):
    """Its last layer sees tokens, or pixels, whose answers are averaged."""

    def __init__(self, pixels: bool) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 5, 1) if pixels else nn.Linear(3, 5)
        self.pixels = pixels

    def forward(self, images: Tensor) -> Any:
        if self.pixels:
            return self.last(images).mean(dim=(2, 3))
        return self.last(images.flatten(2).mT).mean(dim=1)


@pytest.mark.parametrize("pixels", [False, True])
def test_features_are_the_mean_over_tokens_or_pixels(pixels: bool) -> None:
    adapted = AdaptedClassifier(Tokens(pixels), (3, 4, 4), None, AdapterConfig(feature_layer="last"))
    torch.testing.assert_close(adapted(COLOUR, return_features=True)[1], COLOUR.mean(dim=(2, 3)))


# ClassifierSource

FACTORIES = """
import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.first, self.last = nn.Linear(48, 3), nn.Linear(48, 5)

    def forward(self, images):
        rows = self.factor * images.flatten(1)
        return self.first(rows), self.last(rows)


class Other(Wide):
    def forward(self, images):
        return tuple(-scores for scores in super().forward(images))
"""


def test_a_source_names_all_that_makes_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_for_this_test.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    rng = library_torch_rng(1)
    shapes = {"first.weight": (3, 48), "first.bias": (3,), "last.weight": (5, 48), "last.bias": (5,)}
    own, other = ({name: torch.randn(shape, generator=rng) for name, shape in shapes.items()} for _ in "ab")
    torch.save({"model": other, "ema": own}, tmp_path / "weights.pt")
    settings = {
        "model": "made_for_this_test:Wide",
        "arguments": {"factor": 2.0},
        "weights": "weights.pt",
        "weights_prefix": "ema",
        "image_shape": [3, 4, 4],
        "num_classes": 5,
        "adapter": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    rows = (COLOUR.flatten(1) - 0.5) / 0.25

    def scores(weights: dict[str, Tensor], layer: str, factor: float) -> Tensor:
        return factor * rows @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]

    for changes, expected in (
        ({}, scores(own, "last", 2.0)),
        ({"model": "made_for_this_test:Other"}, -scores(own, "last", 2.0)),
        ({"arguments": {"factor": 3.0}}, scores(own, "last", 3.0)),
        ({"weights_prefix": "model"}, scores(other, "last", 2.0)),
        ({"num_classes": 3}, scores(own, "first", 2.0)),
    ):
        adapted = load_classifier_from(ClassifierSource.parse(settings | changes))
        assert adapted.image_shape == (3, 4, 4)
        torch.testing.assert_close(adapted(COLOUR), expected)


def test_factory_is_what_a_stored_network_may_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_for_another_test.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    stored = {"model": "made_for_another_test:Wide", "arguments": {"factor": 2.0}, "image_shape": [3, 4, 4]}
    stored["num_classes"] = 5
    (tmp_path / "stored").mkdir()
    imported = import_classifier(ClassifierSource.parse(stored), tmp_path / "stored")
    settings = {"model": "stored", "factory": "made_for_another_test:Wide", "arguments": {"factor": 2.0}}
    torch.testing.assert_close(load_classifier_from(ClassifierSource.parse(settings))(COLOUR), imported(COLOUR))
    for changes in ({"factory": "made_for_another_test:Other"}, {"factory": None, "arguments": {}}):
        with pytest.raises(InputError, match="asks to call made_for_another_test:Wide"):
            load_classifier_from(ClassifierSource.parse(settings | changes))
