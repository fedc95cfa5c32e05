"""An evaluation is made of its parts: every row, bin and headline is what the measures say of the same images."""

import dataclasses
import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from draws import library_numpy_rng
from made_up import ONE, SHAPE, K, Spy, data, network, no, source

from netinv.classifiers import predict
from netinv.core import InputError
from netinv.data import LabelledImages, to_float, to_uint8
from netinv.evaluation import EvaluationConfig, evaluate, rows
from netinv.evaluation.controls import one_picture
from netinv.evaluation.diversity import (
    overall_diversity,
    resemblance,
    vendi_by_class,
    vendi_mean,
    vendi_ratio,
    vendi_scores,
)
from netinv.evaluation.evaluate import BATCH
from netinv.evaluation.headline import headline
from netinv.evaluation.measures import (
    accuracies,
    accuracies_by_class,
    accuracies_by_gap,
    accuracies_off_ties,
    accuracy_bin,
    calibration,
    confusion,
    intensity,
    survival,
)
from netinv.evaluation.metrics import ball_radii
from netinv.evaluation.privacy import Pools, membership, memorisation_test, not_audited
from netinv.evaluation.rows import MEASURES, Reference, empty_row, measured_row, reference_for
from netinv.evaluation.samples import ensemble, first, observe
from netinv.generators import draw_images
from netinv.results import Bootstrap, Estimate, Measure

SHARPNESS = (2.0, 4.0)
CONFIG = ONE.model_copy(update={"num_samples": 48, "privacy_pool": 55, "seed": 3, "sharpness": (5.0, 0.5)})


def drawn(generator: Spy, name: str, num: int, sharpness: tuple[float, float], dropout: bool = False) -> Any:
    images, vector = draw_images(generator, num, seed=3, sharpness=sharpness, dropout=dropout, batch_size=BATCH)
    return observe(name, "generator", images, vector.argmax(1), vector, classifier=network(7), evaluator=network(1))


def expected_measures(given: Any, real: Any, bootstrap: Bootstrap, n: int, num: int) -> dict[str, Measure]:
    """All but the student's, plainly."""
    curve = survival(given, network(7), CONFIG.epsilons, CONFIG.attack_steps, CONFIG.robust_samples, CONFIG.seed)
    robust = curve[:, CONFIG.epsilons.index(CONFIG.robust_epsilon)].numpy()
    found = accuracies(given, bootstrap) | accuracies_off_ties(given, bootstrap) | intensity(given, bootstrap)
    vectors = {
        "vendi": lambda s: s.features,
        "vendi_centred": lambda s: s.features - real.features.mean(dim=0),
        "vendi_pixels": lambda s: s.images.flatten(1),
    }
    for name, take in vectors.items():
        mine, theirs = (vendi_scores(take(s), s, n, bootstrap) for s in (given, real))
        found[name], found[f"{name}_ratio"] = vendi_mean(mine), vendi_ratio(mine, theirs)
    found |= overall_diversity(given, num, bootstrap)
    found |= resemblance(given, real, ball_radii(real.features, 5), num, bootstrap)
    found["robust_accuracy"] = bootstrap.mean(robust)
    found["student_accuracy"] = no("evaluate.student is null")
    return found


def test_an_evaluation_is_made_of_its_parts() -> None:
    train, test = data(70, 1), data(60, 2)
    generators = [Spy(0), Spy(1)]
    results = evaluate(generators, network(7), network(1), "abc", train, test, CONFIG, SHARPNESS).results
    bootstrap = Bootstrap(3, 100)
    rng = library_numpy_rng(3)
    order = [rng.permutation(70)[:55], rng.permutation(60)[:55]]
    real = [
        observe(
            name,
            "reference",
            to_float(part.images[index]),
            part.labels[index],
            None,
            classifier=network(7),
            evaluator=network(1),
        )
        for name, part, index in zip(("real_train", "real_test"), (train, test), order, strict=True)
    ]
    seen = partial(observe, classifier=network(7), evaluator=network(1))
    pixels = torch.from_numpy(rng.random((48, *SHAPE), dtype=np.float32))
    noise = seen("noise", "reference", pixels, torch.zeros(48).long())
    noise = dataclasses.replace(noise, label=noise.logits.argmax(1))
    one = one_picture(real[0], 48, generators[0], seen, rng)
    sources = [drawn(g, f"generator {i}", 48, SHARPNESS) for i, g in enumerate(generators)]
    dropped = [drawn(g, f"generator {i}", 48, SHARPNESS, dropout=True) for i, g in enumerate(generators)]
    bins = [[drawn(g, "bin", 30, (s, s)) for s in CONFIG.sharpness] for g in generators]
    sources.append(ensemble(sources)), dropped.append(ensemble(dropped))
    bins.append([ensemble([bins[0][i], bins[1][i]]) for i in range(2)])
    shown = [first(part, 48) for part in real]
    counts = np.concatenate([np.bincount(s.label, minlength=K) for s in [*sources, *shown]])
    n = min(12, *counts[counts >= 10])
    assert results.vendi_n == n
    parts = [real[i].images for i in (0, 1)], [real[i].features for i in (0, 1)]
    pools = Pools(*parts[0], *parts[1], *order)

    assert [row.name for row in results.rows] == [s.name for s in (*sources, *shown, noise, one)]
    for i, (row, given) in enumerate(zip(results.rows, [*sources, *shown, noise, one], strict=True)):
        assert (row.kind, row.samples) == (given.kind, 48)
        assert tuple(row.measures) == tuple(row.dropout) == MEASURES
        assert row.measures == expected_measures(given, shown[1], bootstrap, n, 48)
        if i < 3:
            assert row.dropout == expected_measures(dropped[i], shown[1], bootstrap, n, 48)
            assert row.by_sharpness == tuple(
                accuracy_bin(part, bootstrap, s, s) for s, part in zip(CONFIG.sharpness, bins[i], strict=True)
            )
        else:
            assert row.dropout == dict.fromkeys(MEASURES, no("these images are not generated"))
            assert row.by_sharpness == ()
        vendi = vendi_by_class(vendi_scores(given.features, given, n, bootstrap))
        assert row.by_class == accuracies_by_class(given, bootstrap) | {"vendi": vendi}
        assert row.confusion == confusion(given)
        assert row.by_gap == accuracies_by_gap(given, bootstrap)
        assert row.calibration == calibration(given, bootstrap)
        kept = survival(given, network(7), CONFIG.epsilons, 1, 50, 3)
        assert [(point.epsilon, point.accuracy) for point in row.robustness] == [
            (e, bootstrap.mean(kept[:, j].numpy())) for j, e in enumerate(CONFIG.epsilons)
        ]
        chosen = slice(40)
        args = (given.images[chosen], given.features[chosen], given.label[chosen], K, 3)
        # Two generators and their ensemble.
        assert row.audit == memorisation_test(pools, *args, sets=3)
    told = membership(real[0].logits, real[0].label, real[1].logits, real[1].label, bootstrap)
    assert results.headline == headline(results.rows) | {
        "membership_auc": told,
        **dict.fromkeys(
            ("distilled_accuracy", *(f"distilled_{row}_accuracy" for row in ("real", "noise", "one_picture"))),
            no("evaluate.distillation is null"),
        ),
    }
    assert (results.classes, results.image_shape, results.sharpness) == (tuple("abc"), SHAPE, SHARPNESS)
    assert results.settings == json.loads(CONFIG.model_dump_json())


def test_the_images_behind_an_evaluation_are_kept() -> None:
    train, test = data(70, 1), data(60, 2)
    config = ONE.model_copy(update={"num_samples": 20, "epsilons": (0.1,), "sharpness": ()})
    found = evaluate([Spy(0)], network(7), None, "abc", train, test, config)
    assert list(found.images) == ["generator 0", "ensemble", "real_train", "real_test", "noise", "one_picture"]
    images, vector = draw_images(Spy(0), 20, seed=0, sharpness=(1.0, 1.0))
    for name in ("generator 0", "ensemble"):
        assert torch.equal(found.images[name].images, to_uint8(images))
        assert torch.equal(found.images[name].labels, vector.argmax(1))
    index = library_numpy_rng(0).permutation(70)[:20]
    assert torch.equal(found.images["real_train"].images, train.images[index])
    assert torch.equal(found.images["real_train"].labels, train.labels[index])
    # One generator and its ensemble are the same thing.
    rows = {row.name: row for row in found.results.rows}
    alike = rows["generator 0"].model_copy(update={"name": "ensemble", "kind": "ensemble"})
    assert rows["ensemble"] == alike
    assert found.results.sharpness == (1.0, 1.0)


def test_what_is_not_given_is_told() -> None:
    config = ONE.model_copy(update={"num_samples": 20, "epsilons": (0.1,), "sharpness": ()})
    none = evaluate([Spy(0)], network(7), network(1), "abc", None, None, config).results
    rows = {row.name: row for row in none.rows}
    for name, split in (("real_train", "training"), ("real_test", "test"), ("one_picture", "training")):
        assert rows[name] == empty_row(name, "reference", 0, f"no real {split} images were given")
    assert none.headline["membership_auc"] == no("it needs real training and real test images")
    assert rows["noise"].audit == not_audited("it needs real training and real test images")
    half = evaluate([Spy(0)], network(7), network(1), "abc", data(70, 1), None, config).results
    assert half.headline["membership_auc"] == no("it needs real training and real test images")
    few = evaluate([Spy(0)], network(7), network(1), "abc", data(70, 1), data(49, 2), config).results
    assert few.rows[0].audit == not_audited("49 real images on one side, at least 50 are needed")
    just = evaluate([Spy(0)], network(7), network(1), "abc", data(70, 1), data(50, 2), config).results
    assert just.rows[0].audit.pool == 50


def test_one_generator_is_audited_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    together = []

    def counted(*arguments: Any, sets: int, **options: Any) -> Any:
        together.append(sets)
        return memorisation_test(*arguments, sets=sets, **options)

    monkeypatch.setattr("netinv.evaluation.rows.memorisation_test", counted)
    config = ONE.model_copy(update={"num_samples": 20, "epsilons": (0.1,), "sharpness": ()})
    evaluate([Spy(0)], network(7), None, "abc", data(70, 1), data(60, 2), config)
    assert set(together) == {1}


@pytest.mark.parametrize("which", ["classifier", "evaluator", "generator 1", "training split", "test split", "classes"])
def test_what_is_of_another_shape_is_named(which: str) -> None:
    parts: dict[str, Any] = {
        "generators": [Spy(0), Spy(1)],
        "classifier": network(7),
        "evaluator": network(1),
        "classes": "abc",
        "train": data(60, 1),
        "test": data(60, 2),
    }
    larger = (1, 9, 8)
    wide = LabelledImages(torch.zeros(60, *larger, dtype=torch.uint8), torch.zeros(60, dtype=torch.long))
    changes: dict[str, tuple[str, Any]] = {
        "classifier": ("classifier", network(7, larger)),
        "evaluator": ("evaluator", network(1, larger)),
        "generator 1": ("generators", [Spy(0), Spy(1, larger)]),
        "training split": ("train", wide),
        "test split": ("test", wide),
        "classes": ("classes", "abcd"),
    }
    name, value = changes[which]
    blamed = {"classifier": "the evaluator", "classes": "the classifier", "generator 1": "generator 1"}
    told = f"but {blamed.get(which, f'the {which}')} has {K} classes and images of shape"
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        evaluate(**(parts | {name: value}), config=ONE)
    with pytest.raises(InputError, match=r"^There is no generator to evaluate: invert the classifier first"):
        evaluate(**(parts | {"generators": []}), config=ONE)


# Rows


def reference(given: list[Any], real: dict[str, Any], config: EvaluationConfig = CONFIG) -> Reference:
    return reference_for(given, real, None, "no pools", config, Bootstrap(0, 100), network(7))


def test_what_all_rows_share_is_what_the_smallest_has() -> None:
    real_test = source(40, 5, name="real_test")
    given = [source(30), source(25, 1), real_test]
    made = reference(given, {"real_test": real_test})
    counts = [int((s.label == k).sum()) for s in given for k in range(K)]
    assert min(counts) < 10
    assert made.vendi_n == min(12, *(count for count in counts if count >= 10))
    assert (made.num_compared, made.num_overall) == (25, 25)
    assert (made.pools, made.test, made.real_test) == ("no pools", None, real_test)
    assert torch.equal(made.radii, ball_radii(real_test.features, 5))  # type: ignore[arg-type]
    assert set(made.vendi) == {"vendi", "vendi_centred", "vendi_pixels"}
    less = reference([source(30), first(real_test, 20)], {"real_test": first(real_test, 20)})
    assert (less.num_compared, less.num_overall) == (30, 20)
    small = reference([source(30), source(9, 1), real_test], {"real_test": real_test})
    assert (small.num_compared, small.num_overall) == (30, 30)  # what is too small has no number anyway
    few = reference([source(30), first(real_test, 5)], {"real_test": first(real_test, 5)})
    assert few.radii is None
    six = reference([source(30), first(real_test, 6)], {"real_test": first(real_test, 6)})
    assert six.radii is not None
    blind = dataclasses.replace(real_test, features=None)
    made = reference([source(30), blind], {"real_test": blind})
    assert made.radii is None
    assert set(made.vendi) == {"vendi_pixels"}
    alone = reference([source(30)], {})
    assert (alone.real_test, alone.radii, alone.vendi) == (None, None, {})
    tiny = reference([source(12, label=torch.arange(12) % 3)], {})
    assert tiny.vendi_n == 10  # where no class is large enough, the fewest that would do


def test_a_row_without_evaluator_or_real_images_says_what_is_missing() -> None:
    given = dataclasses.replace(source(40), evaluator_logits=None, features=None)
    row = measured_row(given, None, reference([given], {}))
    for name in ("vendi", "vendi_ratio", "vendi_overall", "cosine_within", "evaluator_accuracy"):
        assert row.measures[name] == no("no evaluator was given")
    for name in ("vendi_centred", "vendi_centred_ratio", "vendi_pixels_ratio", "density", "frechet"):
        assert row.measures[name] == no("no real test images were given")
    assert isinstance(row.measures["vendi_pixels"], Estimate)
    assert row.by_class["vendi"] == (no("no evaluator was given"),) * K
    assert row.audit == not_audited("no pools")


def test_an_attack_is_as_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    real = rows.survival

    def noted(*arguments: Any) -> torch.Tensor:
        asked.append(arguments[2:])
        return real(*arguments)

    monkeypatch.setattr(rows, "survival", noted)
    given = source(40)
    measured_row(given, None, reference([given], {}))
    assert asked == [(CONFIG.epsilons, 1, 50, 3)]


def test_a_row_of_images_all_the_same_says_so() -> None:
    given = source(40, images=torch.zeros(40, *SHAPE))
    row = measured_row(given, None, reference([given], {}))
    for name in MEASURES:
        if name.startswith("vendi"):
            assert row.measures[name] == no("all 40 images are the same")
    assert row.by_class["vendi"] == (no("all 40 images are the same"),) * K


def test_a_broken_row_is_empty_but_for_its_reason() -> None:
    given = source(40)
    given.images[3] = torch.nan
    row = measured_row(given, None, reference([source(40)], {}))
    why = "1 of 40 images hold values that are not finite"
    assert row == empty_row("generator 0", "generator", 40, why)
    assert set(row.measures.values()) == set(row.dropout.values()) == {no(why)}
    assert (row.name, row.kind, row.samples) == ("generator 0", "generator", 40)
    assert (row.by_class, row.confusion) == ({}, {})
    assert row.by_gap == row.by_sharpness == row.calibration == row.robustness == ()
    assert row.audit == not_audited(why)


def test_the_classifiers_answers_are_those_of_its_images() -> None:
    images = data(30, 4)
    given = observe(
        "x", "reference", to_float(images.images), images.labels, None, classifier=network(7), evaluator=None
    )
    assert torch.equal(given.logits, predict(network(7), images.images)[0])
