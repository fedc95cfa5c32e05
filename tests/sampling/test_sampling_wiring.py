"""What is asked for reaches the file: tiny models whose images are their own inputs, and the bounds of arguments."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draws import library_numpy_rng
from onnx import TensorProto
from tiny_models import SHARPNESS, classifier, drawn, ending_in, generator, noise, rows

from netinv.core import InputError
from netinv.sampling import OnnxClassifier, OnnxGenerator, Samples
from netinv.sampling.onnx_models import _great_circle

# OnnxGenerator


def test_the_file_gets_what_is_drawn(tmp_path: Path) -> None:
    samples = generator(tmp_path, stochastic=True, ensemble=3).sample(130, seed=4)  # more than two batches
    latent, condition = drawn(130, 4)
    given = rows(samples)
    assert np.array_equal(samples.latent, latent)
    assert np.array_equal(samples.condition, condition)
    assert np.array_equal(samples.labels, condition.argmax(axis=1))
    assert np.array_equal(given["latent"], latent)
    assert np.array_equal(given["condition"], condition)
    assert np.array_equal(given["noise"], noise(130, 4))
    assert given["generator"].tolist() == [i % 3 for i in range(130)]


def test_sample_defaults_to_seed_0_and_the_files_own_sharpness(tmp_path: Path) -> None:
    samples = generator(tmp_path).sample(5)
    assert np.array_equal(samples.latent, drawn(5, 0)[0])
    assert np.array_equal(samples.condition, drawn(5, 0)[1])


@pytest.mark.parametrize("sharpness", [0.5, (1.0, 30.0)])
def test_sharpness_overrules_the_files(tmp_path: Path, sharpness: Any) -> None:
    pair = sharpness if isinstance(sharpness, tuple) else (sharpness, sharpness)
    samples = generator(tmp_path).sample(7, seed=1, sharpness=sharpness)
    assert np.array_equal(samples.condition, drawn(7, 1, pair)[1])


@pytest.mark.parametrize("labels", [0, 2, [2, 0, 1, 1]])
def test_labels_are_those_of_the_condition(tmp_path: Path, labels: Any) -> None:
    samples = generator(tmp_path).sample(4, seed=1, labels=labels)
    wanted = [labels] * 4 if isinstance(labels, int) else labels
    assert samples.labels.tolist() == wanted
    assert np.array_equal(samples.condition, drawn(4, 1, labels=wanted)[1])


def test_mixture_is_the_condition_of_every_image(tmp_path: Path) -> None:
    samples = generator(tmp_path).sample(70, seed=1, mixture={0: 0.25, 2: 0.75})
    assert np.array_equal(samples.condition, np.tile(np.float32([0.25, 0, 0.75]), (70, 1)))
    assert np.array_equal(rows(samples)["condition"], samples.condition)
    assert samples.labels.tolist() == [2] * 70
    assert np.array_equal(samples.latent, drawn(70, 1)[0])


def test_generator_names_one_of_an_ensemble(tmp_path: Path) -> None:
    network = generator(tmp_path, ensemble=2)
    for number in (0, 1):
        assert rows(network.sample(70, generator=number))["generator"].tolist() == [number] * 70
    assert rows(generator(tmp_path).sample(3, generator=0))["generator"].tolist() == [0] * 3


def test_a_stream_is_the_same_in_batches_of_any_size(tmp_path: Path) -> None:
    network = generator(tmp_path, stochastic=True, ensemble=3)
    whole = network.sample(10, seed=2, mixture={1: 1.0}, generator=None)
    parts = list(network.stream(10, seed=2, mixture={1: 1.0}, batch_size=4))
    assert [len(part.images) for part in parts] == [4, 4, 2]
    for whole_array, *arrays in zip(whole, *parts, strict=True):
        assert np.array_equal(np.concatenate(arrays), whole_array)
    labelled = list(network.stream(10, seed=2, labels=[0, 1, 2, 0, 1, 2, 0, 1, 2, 0], sharpness=7.0, batch_size=4))
    assert np.concatenate([part.labels for part in labelled]).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    one = network.stream(5, generator=2, batch_size=2)
    assert [rows(part)["generator"].tolist() for part in one] == [[2, 2], [2, 2], [2]]


def test_a_stream_begins_with_seed_0(tmp_path: Path) -> None:
    (batch,) = generator(tmp_path).stream(3)
    assert np.array_equal(batch.latent, drawn(3, 0)[0])


def test_a_file_without_an_ensemble_holds_one_generator(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^Generator 1 does not exist: .*plain-0\.onnx holds 1, counted from 0\.$"):
        generator(tmp_path).sample(1, generator=1)


def test_the_call_hands_its_inputs_on(tmp_path: Path) -> None:
    network = generator(tmp_path, stochastic=True, ensemble=4)
    latent, condition = drawn(3, 0)
    images = network(latent, condition, noise=noise(3, 9), generator=np.array([3, 0, 2]))
    given = rows(Samples(images, np.zeros(3, np.int64), latent, condition))
    assert np.array_equal(given["noise"], noise(3, 9))
    assert given["generator"].tolist() == [3, 0, 2]
    assert network.num_classes == 3


def test_inputs_that_are_not_the_files_are_refused(tmp_path: Path) -> None:
    both, plain = generator(tmp_path, stochastic=True, ensemble=4), generator(tmp_path)
    latent, condition = drawn(3, 0)
    more: dict[str, Any] = {"noise": noise(3, 9), "generator": np.zeros(3, np.int64)}
    for name, given in more.items():
        with pytest.raises(
            InputError, match=r"takes inputs of the shapes {.*'noise': \(3, 2\), 'generator': \(3,\)}, b"
        ):
            both(latent, condition, **{name: given})
        with pytest.raises(InputError, match=rf"'condition': \(3, 3\)}}, but was given {{.*'{name}': "):
            plain(latent, condition, **{name: given})
    for fewer in ((latent[:2], condition), (latent, condition[:2]), (latent[:, :1], condition), (latent[0], condition)):
        with pytest.raises(InputError, match="The file takes inputs of the shapes"):
            plain(*fewer)
    with pytest.raises(InputError, match="The file takes inputs of the shapes"):
        both(latent, condition, **more | {"generator": np.zeros(2, np.int64)})
    with pytest.raises(InputError, match="The inputs hold numbers that are not finite"):
        plain(latent * np.float32(np.nan), condition)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"operator": "Concat", "axis": 1, "twice": True}, "float32 (2, 2, 2, 5)"),
        ({"operator": "Concat", "axis": 0, "twice": True}, "float32 (4, 1, 2, 5)"),
        ({"operator": "Flatten"}, "float32 (2, 10)"),
        ({"operator": "ReduceMax", "keepdims": 0}, "float32 ()"),
        ({"operator": "Cast", "to": TensorProto.UINT8, "kind": TensorProto.UINT8}, "uint8 (2, 1, 2, 5)"),
        ({"operator": "Cast", "to": TensorProto.DOUBLE, "kind": TensorProto.DOUBLE}, "float64 (2, 1, 2, 5)"),
        ({"operator": "Cast", "to": TensorProto.STRING, "kind": TensorProto.STRING}, "object (2, 1, 2, 5)"),
    ],
)
def test_images_are_what_the_metadata_say(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    network = OnnxGenerator(ending_in(generator(tmp_path).path, **changes))
    told = f"The generator gives {told} where its metadata ask for float32 (2, 1, 2, 5): export it again."
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        network.sample(2)


@pytest.mark.parametrize(
    ("operator", "told"),
    [
        ("Neg", r"pixels from -\S+ to -?0, beyond \[0, 1\]"),
        ("Exp", r"pixels from 1 to \S+, beyond \[0, 1\]"),
        ("Log", "numbers that are not finite"),
    ],
)
def test_pixels_are_in_their_range(tmp_path: Path, operator: str, told: str) -> None:
    network = OnnxGenerator(ending_in(generator(tmp_path).path, operator))
    with pytest.raises(InputError, match=f"^The generator gives {told}: export it again.$"):
        network.sample(2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"operator": "Concat", "axis": 1, "twice": True}, "float32 (4, 6)"),
        ({"operator": "Concat", "axis": 0, "twice": True}, "float32 (8, 3)"),
        ({"operator": "ReduceMax", "keepdims": 0}, "float32 ()"),
        ({"operator": "ArgMax", "axis": 1, "keepdims": 0, "kind": TensorProto.INT64}, "int64 (4,)"),
        ({"operator": "Cast", "to": TensorProto.STRING, "kind": TensorProto.STRING}, "object (4, 3)"),
    ],
)
def test_logits_are_what_the_metadata_say(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    samples = generator(tmp_path).sample(4)
    network = OnnxClassifier(ending_in(classifier(tmp_path).path, **changes))
    told = f"The classifier gives {told} where its metadata ask for float32 (4, 3): export it again."
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        network.accuracy(samples.images, samples.labels)


@pytest.mark.parametrize("how", [{"label": 1}, {"mixture": {0: 0.5, 1: 0.5}}, {"label": None}])
@pytest.mark.parametrize("sharpness", [None, 9.0])
def test_interpolation_keeps_all_but_the_latent(tmp_path: Path, how: Any, sharpness: Any) -> None:
    network = generator(tmp_path, stochastic=True, ensemble=3)
    if sharpness and "mixture" in how:
        with pytest.raises(InputError, match="Both a sharpness and a mixture"):
            network.interpolate(5, seeds=(3, 8), sharpness=sharpness, generator=2, **how)
        return
    way = network.interpolate(5, seeds=(3, 8), sharpness=sharpness, generator=2, **how)
    pair = SHARPNESS if sharpness is None else (9.0, 9.0)
    (first, condition), (last, _) = drawn(1, 3, pair), drawn(1, 8, pair)
    if "mixture" in how:
        condition = np.float32([[0.5, 0.5, 0]])
    elif how["label"] is not None:
        condition = drawn(1, 3, pair, labels=[1])[1]
    given = rows(way)
    assert np.array_equal(way.condition, np.repeat(condition, 5, axis=0))
    assert np.array_equal(given["condition"], way.condition)
    assert way.labels.tolist() == [int(condition.argmax())] * 5
    assert np.array_equal(given["noise"], np.repeat(noise(1, 3), 5, axis=0))
    assert given["generator"].tolist() == [2] * 5
    assert np.array_equal(given["latent"], way.latent)
    np.testing.assert_allclose(way.latent, _great_circle(first[0], last[0], np.linspace(0, 1, 5)))
    np.testing.assert_allclose(way.latent[[0, -1]], np.concatenate([first, last]), rtol=1e-5)


def test_an_interpolation_has_two_ends_and_begins_with_the_first_generator(tmp_path: Path) -> None:
    network = generator(tmp_path, ensemble=2)
    two = network.interpolate(2, seeds=(0, 1))
    assert len(two.images) == 2
    assert rows(two)["generator"].tolist() == [0, 0]
    with pytest.raises(InputError, match=r"^The number of images is 1: an interpolation needs its two ends"):
        network.interpolate(1, seeds=(0, 1))
    with pytest.raises(InputError, match=r"^Generator 2 does not exist"):
        network.interpolate(2, seeds=(0, 1), generator=2)
    nothing: Any = None
    with pytest.raises(InputError, match=r"^The generator is None: give a whole number\.$"):
        network.interpolate(2, seeds=(0, 1), generator=nothing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": -1}, "The number of images is -1: give 0 or more."),
        ({"labels": 0, "mixture": {0: 1.0}}, "Both labels and a mixture were given: give one of them."),
        ({"labels": [0]}, "1 labels were given for 2 images: give one for each, or one for all."),
        ({"labels": -1}, "Label -1 does not exist: the classes are 0 (zero), 1 (one), 2 (two)."),
        ({"labels": 3}, "Label 3 does not exist: the classes are 0 (zero), 1 (one), 2 (two)."),
        ({"mixture": {3: 1.0}}, "Label 3 does not exist: the classes are 0 (zero), 1 (one), 2 (two)."),
        ({"mixture": {-1: 1.0}}, "Label -1 does not exist: the classes are 0 (zero), 1 (one), 2 (two)."),
        ({"mixture": {0: -0.1}}, "The mixture gives label 0 a share of -0.1: a share lies from 0 to 1."),
        ({"mixture": {0: 1.1}}, "The mixture gives label 0 a share of 1.1: a share lies from 0 to 1."),
        ({"mixture": {0: 0.5, 1: 0.25}}, "The shares of the mixture sum to 0.75: they must sum to 1."),
        ({"mixture": {0: 0.5, 1: 0.500002}}, "The shares of the mixture sum to 1: they must sum to 1."),
        (
            {"sharpness": 0.0},
            "The sharpness is 0.0: give a number above 0 to 1,000, or a range of two, the lower first.",
        ),
        ({"sharpness": (2.0, 1.0)}, "The sharpness is (2.0, 1.0): give a number above 0 to 1,000, or a range of two,"),
        ({"sharpness": 1e308}, "The sharpness is 1e+308: give a number above 0 to 1,000"),
        (
            {"sharpness": 3.0, "mixture": {0: 1.0}},
            "Both a sharpness and a mixture, which has none, were given: give one",
        ),
        ({"num": 2.5}, "The number of images is 2.5: give a whole number."),
        ({"labels": np.array([1.9, 2.2])}, "A label is 1.9: give a whole number."),
        ({"labels": 1.9}, "A label is 1.9: give a whole number."),
        ({"labels": ["1", "z"]}, "Label z does not exist: the classes are 0 ("),
        ({"labels": True}, "A label is True: give a whole number."),
        ({"labels": [[1], [2]]}, "2 labels were given for 2 images: give one for each"),
        ({"mixture": {0.5: 1.0}}, "A label is 0.5: give a whole number."),
        ({"seed": 1.5}, "The seed is 1.5: give a whole number."),
        ({"generator": 0.5}, "The generator is 0.5: give a whole number."),
        ({"sharpness": np.inf}, "The sharpness is inf: give a number above 0"),
        ({"seed": -1}, "The seed is -1: give 0 or more."),
        ({"generator": 2}, "plain-2.onnx holds 2, counted from 0."),
        ({"generator": -1}, "Generator -1 does not exist"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    network = generator(tmp_path, ensemble=2)
    with pytest.raises(InputError, match=re.escape(message)):
        network.sample(**{"num": 2, **arguments})


def test_what_lies_on_a_bound_is_drawn(tmp_path: Path) -> None:
    network = generator(tmp_path, ensemble=2)
    assert len(network.sample(0).images) == 0
    for mixture in ({0: 1.0}, {0: 0.0, 2: 1.0}, {0: 0.5, 1: 0.5000001}):
        assert len(network.sample(1, mixture=mixture).images) == 1
    assert network.sample(1, sharpness=(0.5, 0.5)).labels.shape == (1,)
    assert rows(network.sample(1, generator=1))["generator"] == [1]
    assert network.sample(1, sharpness=1000).labels.shape == (1,)


def test_numbers_are_numpys_too(tmp_path: Path) -> None:
    network = generator(tmp_path, ensemble=2)
    plain = network.sample(2, seed=3, labels=2, sharpness=(1.0, 5.0), generator=1)
    one = np.int64(1)
    for labels, sharpness in ((np.int64(2), [1, 5]), (np.array([2, 2]), np.array([1.0, 5.0])), (np.array(2), (one, 5))):
        found = network.sample(2 * one, seed=3 * one, labels=labels, sharpness=sharpness, generator=one)
        assert all(map(np.array_equal, plain, found))


@pytest.mark.parametrize("sharpness", [1e-9, 1e-7, 1e-6, 5e-324])
def test_a_label_is_drawn_however_vague_the_condition(tmp_path: Path, sharpness: float) -> None:
    """There float32 has few numbers between the shares."""
    network = generator(tmp_path)
    samples = network.sample(200, labels=2, sharpness=sharpness)
    assert (samples.labels == 2).all()
    others = np.delete(samples.condition, 2, axis=1)
    assert (samples.condition[:, 2] > others.max(axis=1)).all()
    np.testing.assert_allclose(samples.condition, 1 / 3, rtol=1e-5)
    free, usual = network.sample(200, sharpness=sharpness), network.sample(200, sharpness=3.0)
    assert np.array_equal(free.labels, usual.labels)


def test_a_class_goes_by_its_name_or_its_number(tmp_path: Path) -> None:
    network = generator(tmp_path, classes=("zero", "0", "two"))
    assert [network.label(text) for text in ("two", "2", "zero", "0", "1")] == [2, 2, 0, 1, 1]
    for text in ("3", "-1", "²", "x", "1.0"):
        with pytest.raises(InputError, match=rf"^Label {text} does not exist: the classes are 0 \(zero\), 1 \(0\), 2"):
            network.label(text)


def test_a_great_circle_turns_evenly_and_lengthens_evenly() -> None:
    first, last = np.float32([2, 0, 0]), np.float32([0, 4, 0])
    way = _great_circle(first, last, np.array([0, 1 / 3, 0.5, 1]))
    angle = np.array([0, 30, 45, 90]) * np.pi / 180
    length = np.array([2, 2 + 2 / 3, 3, 4])
    np.testing.assert_allclose(way[:, 0], length * np.cos(angle), atol=1e-6)
    np.testing.assert_allclose(way[:, 1], length * np.sin(angle), atol=1e-6)
    assert way.dtype == np.float32


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_between_two_of_one_direction_the_way_is_straight(factor: float) -> None:
    first = np.float32([0.1, 0.2, 0.7])  # its cosine with itself may come out above 1
    way = _great_circle(first, np.float32(factor * first), np.array([0, 0.25, 1]))
    np.testing.assert_allclose(way, np.outer([1, 1 + 0.25 * (factor - 1), factor], first), rtol=1e-5)
    for seed in range(20):
        vector = library_numpy_rng(seed).standard_normal(64).astype(np.float32)
        opposite = _great_circle(vector, -vector, np.array([0.0, 1.0]))
        np.testing.assert_allclose(opposite, [vector, -vector], rtol=1e-5)


def test_a_label_may_be_numpys(tmp_path: Path) -> None:
    network = generator(tmp_path)
    own, theirs = network.sample(4, labels=2), network.sample(4, labels=np.int64(2))
    assert np.array_equal(own.images, theirs.images)
    assert theirs.labels.tolist() == [2] * 4


# OnnxClassifier


def test_accuracy_is_the_share_of_what_is_read_as_labelled(tmp_path: Path) -> None:
    samples = generator(tmp_path).sample(70, seed=0)
    network = classifier(tmp_path)
    assert np.array_equal(network(samples.images), samples.condition)
    labels = samples.labels.copy()
    labels[:7] = (labels[:7] + 1) % 3
    assert network.num_correct(samples.images, labels) == 63
    assert network.accuracy(samples.images, labels) == pytest.approx(0.9)


def test_an_accuracy_is_of_some_images_with_a_label_each(tmp_path: Path) -> None:
    network, samples = classifier(tmp_path), generator(tmp_path).sample(4)
    for labels in (samples.labels[:1], samples.labels[:2], samples.labels[:, None], samples.labels + 0.5):
        with pytest.raises(InputError, match=r"^4 images need a whole number each, not (int|float)64 \("):
            network.accuracy(samples.images, labels)
    with pytest.raises(InputError, match="There are no images to tell an accuracy of"):
        network.accuracy(samples.images[:0], samples.labels[:0])


def test_images_of_another_scale_are_refused_and_floats_of_any_precision_taken(tmp_path: Path) -> None:
    network, samples = classifier(tmp_path), generator(tmp_path).sample(4)
    for images in (samples.images.astype(float), samples.images.tolist()):
        assert np.array_equal(network(images), samples.condition)
    for images, told in (
        (samples.images * 255, r"The input images goes from 0 to [\d.]+: give floats in \[0, 1\]; divide pixels"),
        (samples.images - 1, r"The input images goes from -1 to "),
        ((samples.images * 255).astype(np.uint8), r"The input images holds uint8: give floats in \[0, 1\]; divide"),
        (samples.images.astype(str), r"The input images holds <U32: give floats"),
    ):
        with pytest.raises(InputError, match=told):
            network.accuracy(images, samples.labels)
    ensemble = generator(tmp_path, ensemble=2)
    latent, condition = samples.latent.astype(float), samples.condition.astype(float)
    images = ensemble(latent, condition, generator=np.array([0, 1, 0, 1], np.int32))
    assert (images.dtype, images.shape) == (np.float32, samples.images.shape)
    with pytest.raises(InputError, match="The input generator holds float64: give whole numbers"):
        ensemble(latent, condition, generator=np.zeros(4))


def test_a_classifier_fits_what_it_can_judge(tmp_path: Path) -> None:
    ours = classifier(tmp_path)
    ours.check_fits(generator(tmp_path))
    theirs = generator(tmp_path, classes=("zero", "two", "one"))
    told = r"are zero, one, two, in this order, but those of .* are zero, two, one: give both the same names"
    with pytest.raises(InputError, match=told):
        ours.check_fits(theirs)
    ours.check_fits(generator(tmp_path, classes=("0", "1", "2")))  # which are only numbered
    larger = generator(tmp_path, image_shape=(1, 4, 2))
    with pytest.raises(InputError, match=r"their image_shape are \(1, 2, 5\) and \(1, 4, 2\)\.$"):
        ours.check_fits(larger)
