"""Images that no generator drew here: rows of the measures that need none."""

import re
from functools import partial
from typing import Any

import pytest
import torch
from draws import library_numpy_rng
from made_up import ONE, SHAPE, K, data, network, source
from torch import Tensor

from netinv.core import InputError
from netinv.data import LabelledImages, to_float, to_uint8
from netinv.evaluation import measure_images
from netinv.evaluation.evaluate import _drawn
from netinv.evaluation.measures import survival
from netinv.evaluation.privacy import not_audited
from netinv.evaluation.rows import measured_row, reference_for
from netinv.evaluation.samples import first, observe
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.interpretation import interpret
from netinv.results import Bootstrap, Estimate

CONFIG = ONE.model_copy(update={"num_samples": 48, "privacy_pool": 55, "seed": 3})


@pytest.mark.parametrize("evaluator", [network(1), None])
@pytest.mark.parametrize("test", [data(60, 2), None])
def test_images_alone_are_rows_of_their_own_measures(evaluator: Any, test: LabelledImages | None) -> None:
    sets = {name: (source(num, seed=num).images, source(num, seed=num).label) for name, num in (("a", 60), ("b", 33))}
    rows = measure_images(sets, network(7), evaluator, test, CONFIG)
    seen = partial(observe, classifier=network(7), evaluator=evaluator)
    given = []
    for name, (images, label) in sets.items():
        shuffled = library_numpy_rng(3).permutation(len(label))
        given.append(seen(name, "generator", images[shuffled], label[shuffled]))
    real = {}
    if test is not None:
        order = library_numpy_rng(3).permutation(60)[:55]
        real["real_test"] = first(seen("real_test", "reference", to_float(test.images[order]), test.labels[order]), 48)
    why = "images alone are not audited"
    reference = reference_for([*given, *real.values()], real, test, why, CONFIG, Bootstrap(3, 100), network(7))
    assert list(rows) == ["a", "b"]
    for samples in given:
        assert rows[samples.name] == measured_row(samples, None, reference)
        assert rows[samples.name].audit == not_audited(why)
    assert [row.kind for row in rows.values()] == ["generator"] * 2
    assert isinstance(rows["a"].measures["coverage"], Estimate) == (evaluator is not None and test is not None)


def test_images_alone_are_not_measured_by_a_broken_evaluator() -> None:
    broken = network(1)
    for parameter in broken.parameters():
        parameter.fill_(float("nan"))
    given = {"a": (source().images, source().label)}
    with pytest.raises(InputError, match=r"^The evaluator gives values that are not finite for real images"):
        measure_images(given, network(7), broken, data(60, 2), CONFIG)


@pytest.mark.parametrize("name", ["a,b", "", "../a", "-a", "a\n"])
def test_a_name_that_no_row_can_have_is_refused_before_the_work(name: str) -> None:
    unasked: Any = None
    given = {"a": (source().images, source().label), name: (source().images, source().label)}
    with pytest.raises(InputError, match=rf"^{re.escape(repr(name))} cannot name a set of images: begin with a letter"):
        measure_images(given, unasked, None, None, CONFIG)


def test_images_that_the_classifier_cannot_be_shown_are_refused_and_bytes_are_not() -> None:
    images, label = to_uint8(source().images), source().label
    assert measure_images({"a": (images, label)}, network(7), None, None, CONFIG)["a"].samples == len(label)
    wrong = {
        "have labels from 3 to 3, but the classifier knows 3 classes": (images, torch.full_like(label, K)),
        r"have the shape \(1, 3, 4\), but the classifier takes": (torch.zeros(len(label), 1, 3, 4), label),
        "are none: give some, or leave them out": (images[:0], label[:0]),
    }
    for told, (x, y) in wrong.items():
        with pytest.raises(InputError, match=rf"^The images a {told}"):
            measure_images({"a": (x, y)}, network(7), None, None, CONFIG)
        with pytest.raises(InputError, match=rf"^The test images {told}"):
            measure_images({"a": (images, label)}, network(7), None, LabelledImages(x, y), CONFIG)
        with pytest.raises(InputError, match=rf"^The test images {told}"):
            interpret(network(7), {}, "", test=LabelledImages(x, y))


def test_the_seed_is_that_of_every_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def attacked(classifier: Any, images: Tensor, label: Tensor, epsilon: float, steps: int, seed: int = -1) -> Tensor:
        seeds.append(seed)
        return torch.ones(len(label), dtype=torch.bool)

    monkeypatch.setattr("netinv.evaluation.measures.robust_mask", attacked)
    survival(source(), network(7), (0.0, 0.1), 3, 20, 5)
    assert seeds == [5, 5]


def test_what_has_no_dropout_is_drawn_without_alone() -> None:
    seen = partial(observe, classifier=network(7), evaluator=None)
    for dropout in (0.0, 0.3):
        generator = ConditionedGenerator(GeneratorConfig(latent_dim=4, width=4, max_width=4, dropout=dropout), K, SHAPE)
        drawn = _drawn("generator 0", generator, seen, CONFIG, (1.0, 2.0))
        assert (drawn.dropout is None) == (dropout == 0)
