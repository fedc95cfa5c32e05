"""What is asked for reaches the file: tiny models whose images are their own inputs, and the bounds of arguments."""

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from draws import library_numpy_rng
from onnx import TensorProto, helper
from PIL import Image

from netinv.core import InputError
from netinv.sampling import Metadata, OnnxClassifier, OnnxGenerator, Samples, draw, grid, save, softmax, to_pixels
from netinv.sampling.draws import draw_batches
from netinv.sampling.onnx_models import _great_circle
from netinv.sampling.sessions import open_session

Z, K, U = 2, 3, 2
SHARPNESS = (2.0, 5.0)
ABOUT = Metadata(
    kind="generator",
    dataset="made up",
    variant="standard",
    classes=("zero", "one", "two"),
    image_shape=(1, 2, 4),
    run_id="",
    licence="Nobody's",
    versions={},
    latent_dim=Z,
    sharpness=SHARPNESS,
)


def write(path: Path, about: Metadata, nodes: list[Any], inputs: dict[str, tuple[int, Any]], output: str) -> Path:
    infos = [helper.make_tensor_value_info(name, kind, ["N", *shape]) for name, (kind, shape) in inputs.items()]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 1, 2, 4])
    column = helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1])
    graph = helper.make_graph(nodes, "tiny", infos, outputs, [shape, column])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, about.to_entries())
    onnx.save(model, path)
    return path


def generator(folder: Path, stochastic: bool = False, ensemble: int = 0, **changes: Any) -> OnnxGenerator:
    """Latent, condition, noise and the number of the generator are the pixels, in this order; what is absent is 0."""
    about = replace(ABOUT, noise_dim=U if stochastic else 0, num_generators=ensemble, **changes)
    inputs: dict[str, tuple[int, Any]] = {"latent": (TensorProto.FLOAT, [Z]), "condition": (TensorProto.FLOAT, [K])}
    nodes = []
    parts = ["latent", "condition"]
    if stochastic:
        inputs["noise"] = (TensorProto.FLOAT, [U])
        parts.append("noise")
    else:
        nodes.append(helper.make_node("Sub", ["latent", "latent"], ["silence"]))
        parts.append("silence")
    if ensemble:
        inputs["generator"] = (TensorProto.INT64, [])
        nodes += [
            helper.make_node("Cast", ["generator"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["number", "column"], ["turn"]),
        ]
    else:
        nodes += [
            helper.make_node("ReduceSum", ["latent"], ["sum"]),
            helper.make_node("Slice", ["latent", "from", "to", "axis"], ["left"]),
            helper.make_node("Sub", ["left", "left"], ["turn"]),
        ]
        constants = {"from": 0, "to": 1, "axis": 1}
        nodes = [
            *(
                helper.make_node(
                    "Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [value])
                )
                for name, value in constants.items()
            ),
            *(node for node in nodes if node.op_type != "ReduceSum"),
        ]
    nodes += [
        helper.make_node("Concat", [*parts, "turn"], ["row"], axis=1),
        helper.make_node("Reshape", ["row", "shape"], ["images"]),
    ]
    path = folder / f"{'stochastic' if stochastic else 'plain'}-{ensemble}.onnx"
    return OnnxGenerator(write(path, about, nodes, inputs, "images"), num_threads=1)


def classifier(folder: Path, **changes: Any) -> OnnxClassifier:
    """The second to fourth pixel are the logits: those that hold the condition of the generators above."""
    about = replace(ABOUT, kind="classifier", variant="classifier", latent_dim=0, **changes)
    nodes = [
        helper.make_node("Flatten", ["images"], ["row"]),
        *(
            helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [value]))
            for name, value in {"from": Z, "to": Z + K, "axis": 1}.items()
        ),
        helper.make_node("Slice", ["row", "from", "to", "axis"], ["logits"]),
    ]
    path = folder / "classifier.onnx"
    return OnnxClassifier(write(path, about, nodes, {"images": (TensorProto.FLOAT, [1, 2, 4])}, "logits"))


def rows(samples: Samples) -> dict[str, np.ndarray]:
    """What the images say that the file was given."""
    flat = samples.images.reshape(len(samples.images), 8)
    return {"latent": flat[:, :2], "condition": flat[:, 2:5], "noise": flat[:, 5:7], "generator": flat[:, 7]}


def drawn(num: int, seed: int, sharpness: tuple[float, float] = SHARPNESS, **labels: Any) -> tuple[Any, Any]:
    return draw(num, latent_dim=Z, num_classes=K, seed=seed, sharpness=sharpness, **labels)


def noise(num: int, seed: int) -> np.ndarray:
    return library_numpy_rng(seed).spawn(3)[2].random((num, U), dtype=np.float32)


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
        ({"labels": "1"}, "A label is 1: give a whole number."),
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


def test_a_classifier_fits_what_it_can_judge(tmp_path: Path) -> None:
    ours = classifier(tmp_path)
    ours.check_fits(generator(tmp_path))
    theirs = generator(tmp_path, classes=("zero", "two", "one"))
    told = r"their classes are \('zero', 'one', 'two'\) and \('zero', 'two', 'one'\)\.$"
    with pytest.raises(InputError, match=told):
        ours.check_fits(theirs)
    larger = generator(tmp_path, image_shape=(1, 4, 2))
    with pytest.raises(InputError, match=r"their image_shape are \(1, 2, 4\) and \(1, 4, 2\)\.$"):
        ours.check_fits(larger)


# Sessions


def test_threads_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = generator(tmp_path).path, classifier(tmp_path).path
    opened: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, **rest: Any) -> Any:
        opened.append((options.intra_op_num_threads, options.log_severity_level, rest))
        return real(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    for kind, path in zip((OnnxGenerator, OnnxClassifier), paths, strict=True):
        kind(path, num_threads=3), kind(path)
    rest = {"providers": ["CPUExecutionProvider"]}
    assert opened == [(3, 4, rest), (0, 4, rest)] * 2


def test_any_number_of_rows_goes_through_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = classifier(tmp_path)
    sizes: list[int] = []

    class Counting:
        get_inputs = network._session.get_inputs

        def run(self, outputs: None, feeds: dict[str, np.ndarray], options: Any) -> list[np.ndarray]:
            assert outputs is None
            sizes.append(len(feeds["images"]))
            return [feeds["images"].reshape(-1, 8)[:, :3], np.zeros(1)]

    images = np.arange(130 * 8, dtype=np.float32).reshape(130, 1, 2, 4)
    network._session = Counting()  # type: ignore[assignment]
    assert np.array_equal(network(images), images.reshape(-1, 8)[:, :3])
    assert sizes == [64, 64, 2]
    assert network(images[:0]).shape == (0, 3)
    assert sizes[3:] == [0]


def test_a_file_is_opened_only_as_what_it_is(tmp_path: Path) -> None:
    path = generator(tmp_path).path
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} is a generator: name an exported classifier.$"):
        open_session(path, "classifier", None)
    missing = tmp_path / "missing.onnx"
    with pytest.raises(InputError, match=r"missing\.onnx is not a file: name an exported generator.$"):
        open_session(missing, "generator", None)
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key in ("netinv.noise_dim", "netinv.num_generators"):
            entry.value = "2"
    onnx.save(model, path)
    expected = "{'latent': (2,), 'condition': (3,), 'noise': (2,), 'generator': ()}"
    got = "{'latent': (2,), 'condition': (3,)}"
    told = f"does not fit its metadata: expected the inputs {expected}, got {got}."
    with pytest.raises(InputError, match=re.escape(told)):
        open_session(path, "generator", None)


def test_what_onnxruntime_says_of_a_file_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = generator(tmp_path).path

    def refuse(*arguments: Any, **rest: Any) -> None:
        raise RuntimeError("it is\n  broken")

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", refuse)
        told = (
            rf"plain-0\.onnx is not an ONNX file that onnxruntime {onnxruntime.__version__} opens \(it is broken\)\.$"
        )
        with pytest.raises(InputError, match=told):
            open_session(path, "generator", None)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} was not written by this project's export"):
        open_session(path, "generator", None)


# Draws


def test_a_softmax_is_over_the_last_axis_and_bears_large_numbers() -> None:
    logits = library_numpy_rng(0).standard_normal((2, 3, 4))
    expected = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-6)
    assert softmax(np.array([1000.0, 1000.0, -1000.0])).tolist() == [0.5, 0.5, 0.0]
    assert softmax(logits).dtype == np.float32


def test_draws_are_those_of_their_definition() -> None:
    latent, condition = draw(6, latent_dim=4, num_classes=3, seed=5, sharpness=(0.5, 8.0))
    normal_rng, uniform_rng = library_numpy_rng(5).spawn(2)
    normal = normal_rng.standard_normal((6, 7), dtype=np.float32)
    logits = 0.5 * 16.0 ** uniform_rng.random((6, 1)) * normal[:, 4:]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.array_equal(latent, normal[:, :4])
    np.testing.assert_allclose(condition, expected, rtol=1e-6)
    assert condition.dtype == latent.dtype == np.float32
    assert latent.flags.owndata  # or all normal numbers are kept alive
    plain = draw(6, latent_dim=4, num_classes=3, seed=5, sharpness=(1.0, 1.0))[1]
    np.testing.assert_allclose(
        plain, np.exp(normal[:, 4:]) / np.exp(normal[:, 4:]).sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_a_wanted_label_swaps_places_with_the_largest() -> None:
    free = draw(3, latent_dim=1, num_classes=4, seed=0, sharpness=(1.0, 1.0))[1]
    wanted = draw(3, latent_dim=1, num_classes=4, seed=0, sharpness=(1.0, 1.0), labels=[0, 3, 1])[1]
    for before, after, label in zip(free, wanted, [0, 3, 1], strict=True):
        expected = before.copy()
        expected[[before.argmax(), label]] = expected[[label, before.argmax()]]
        assert np.array_equal(after, expected)


def test_batches_are_of_64_unless_told_and_take_their_own_labels() -> None:
    arguments: dict[str, Any] = {"latent_dim": 1, "num_classes": 2, "seed": 0, "sharpness": (1.0, 1.0)}
    assert [len(latent) for latent, _ in draw_batches(130, **arguments)] == [64, 64, 2]
    plain = [condition for _, condition in draw_batches(3, **arguments)]
    assert np.array_equal(plain[0], draw(3, **arguments)[1])
    labels = [0, 1, 1, 0, 1]
    batches = [condition.argmax(axis=1) for _, condition in draw_batches(5, **arguments, labels=labels, batch_size=2)]
    assert np.concatenate(batches).tolist() == labels
    assert [len(latent) for latent, _ in draw_batches(0, **arguments, batch_size=1)] == [0]
    assert [condition.shape for _, condition in draw_batches(0, **arguments, labels=[])] == [(0, 2)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num": -1}, "Expected num >= 0 and batch_size >= 1, got -1 and 1"),
        ({"num": 2.0}, "The number of images is 2.0: give a whole number."),
        ({"seed": 1.5}, "The seed is 1.5: give a whole number."),
        ({"seed": None}, "The seed is None: give a whole number."),
        ({"labels": np.array([0.0, 1.9])}, "A label is 0.0: give a whole number."),
        *(
            (
                {"sharpness": s},
                f"The sharpness is {s}: give a number above 0 to 1,000, or a range of two, the lower first.",
            )
            for s in ((0.0, 1.0), (2.0, 1.0), (1.0, 1e308), (5e-324, 1000.0), (1, 2, 3), "3", True, np.nan)
        ),
        ({"labels": [0, 3]}, "Expected 2 labels from 0 to 2, got 2: [0, 3]"),
        ({"labels": [0, -1]}, "Expected 2 labels from 0 to 2, got 2: [0, -1]"),
        ({"labels": [0]}, "Expected 2 labels from 0 to 2, got 1: [0]"),
    ],
)
def test_impossible_draws_say_why(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw(**{"num": 2, "latent_dim": 1, "num_classes": 3, "seed": 0, "sharpness": (1.0, 1.0), **wrong})
    with pytest.raises(ValueError, match="got 2 and 0"):
        next(draw_batches(2, latent_dim=1, num_classes=3, seed=0, sharpness=(1.0, 1.0), batch_size=0))


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


# Grids and files


def test_pixels_are_the_nearest_of_256_levels() -> None:
    images = np.float32([-1, 0, 0.4 / 255, 0.6 / 255, 1.5 / 255, 100.4 / 255, 1, 2]).reshape(1, 1, 2, 4)
    assert to_pixels(images).ravel().tolist() == [0, 0, 0, 1, 2, 100, 255, 255]
    assert to_pixels(images).dtype == np.uint8


@pytest.mark.parametrize(
    ("num", "columns", "shape"),
    [
        (0, None, (2, 4)),
        (1, None, (2, 4)),
        (2, None, (2, 9)),
        (4, None, (5, 9)),
        (5, None, (5, 14)),
        (9, None, (8, 14)),
        (10, None, (8, 19)),
        (5, 2, (8, 9)),
        (5, 5, (2, 24)),
    ],
)
def test_a_grid_is_about_square_or_as_wide_as_told(num: int, columns: int | None, shape: tuple[int, int]) -> None:
    images = np.linspace(0, 0.9, max(num, 1), dtype=np.float32)[:num, None, None, None] * np.ones(
        (1, 3, 2, 4), np.float32
    )
    canvas = grid([images[:3], images[3:]], num, (3, 2, 4), columns)
    assert canvas.shape == (*shape, 3)
    expected = np.full((*shape, 3), 255, np.uint8)
    across = columns or {2: 2, 4: 2, 5: 3, 9: 3, 10: 4}.get(num, 1)
    for i, image in enumerate(to_pixels(images)):
        top, left = i // across * 3, i % across * 5
        expected[top : top + 2, left : left + 4] = image.transpose(1, 2, 0)
    assert np.array_equal(canvas, expected)


def test_a_grid_takes_channels_last_and_places_rows_and_columns() -> None:
    image = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4) / 255
    assert np.array_equal(grid([image], 1, (3, 2, 4))[1, 2], [6, 14, 22])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_saved_is_what_was_drawn(tmp_path: Path, channels: int) -> None:
    network = generator(tmp_path)
    if channels == 3:
        network.metadata = replace(network.metadata, image_shape=(3, 2, 4))
    rng = library_numpy_rng(0)
    images = rng.random((5, channels, 2, 4), dtype=np.float32)
    latent, condition = drawn(5, 0)
    samples = Samples(images, condition.argmax(axis=1), latent, condition)
    batches = [Samples(*(array[:2] for array in samples)), Samples(*(array[2:] for array in samples))]
    pixels = to_pixels(images).transpose(0, 2, 3, 1)
    pixels = pixels[..., 0] if channels == 1 else pixels

    save(tmp_path / "grid.png", batches, 5, network, columns=4)
    picture = grid([images], 5, (channels, 2, 4), 4)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), picture[:, :, 0] if channels == 1 else picture)
    save(tmp_path / "square.png", batches, 5, network)
    with Image.open(tmp_path / "square.png") as image:
        assert image.size == (14, 5)

    save(tmp_path / "folder", batches, 5, network)
    names = [f"00000{i}-{label}.png" for i, label in enumerate(samples.labels)]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == names
    for name, expected in zip(names, pixels, strict=True):
        with Image.open(tmp_path / "folder" / name) as image:
            assert np.array_equal(np.asarray(image), expected)

    save(tmp_path / "arrays.npz", batches, 5, network)
    with zipfile.ZipFile(tmp_path / "arrays.npz") as archive:
        assert {part.compress_type for part in archive.infolist()} == {zipfile.ZIP_STORED}
        for part in archive.infolist():  # with room for the length of a part beyond 4 GiB, known only when it is there
            header = (tmp_path / "arrays.npz").read_bytes()[part.header_offset :]
            assert header[30 + len(part.filename) :][:2] == b"\x01\x00"
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert list(arrays) == ["images", "labels", "latent", "condition"]
        for name, expected in samples._asdict().items():
            assert np.array_equal(arrays[name], expected)
            assert arrays[name].dtype == expected.dtype
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["x.png", "x.npz", "x"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num": 3}, "3 images were to be saved, but more came: give their number."),
        ({"num": 9}, "9 images were to be saved, but fewer came: give their number."),
        ({"num": -1}, "-1 images at a scale of 1: give 0 or more"),
        ({"num": 4.5}, "The number of images is 4.5: give a whole number."),
        ({"scale": 0}, "4 images at a scale of 0: give 0 or more, and a scale of 1 at least."),
        ({"scale": 1.5}, "The scale is 1.5: give a whole number."),
        ({"columns": 0}, "The number of columns is 0: give 1 or more, or leave it out."),
    ],
)
def test_what_does_not_add_up_is_not_saved(tmp_path: Path, name: str, change: dict[str, Any], told: str) -> None:
    network = generator(tmp_path)
    arguments: dict[str, Any] = {"num": 4, **change}
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        save(tmp_path / name, network.stream(4, batch_size=2), generator=network, **arguments)
    assert list(tmp_path.iterdir()) == [network.path]


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    network = generator(tmp_path)
    samples = network.sample(1)
    for name in ("grid.png", "arrays.npz"):
        (tmp_path / name).write_text("old")
        save(tmp_path / name, [samples], 1, network)
        assert (tmp_path / name).read_bytes() != b"old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder is there already: name a new folder.$"):
        save(tmp_path / "folder", [samples], 1, network)
    with pytest.raises(InputError, match=r"grid.jpg ends in .jpg: give a .png, a .npz, or a new folder's name"):
        save(tmp_path / "grid.jpg", [samples], 1, network)
    with pytest.raises(InputError, match=r"grid.png/below.png cannot be written \(\w"):
        save(tmp_path / "grid.png" / "below.png", [samples], 1, network)


@pytest.mark.parametrize("scale", [0, -1, 1.5, True])
def test_a_scale_is_a_whole_number_from_1_on(scale: Any) -> None:
    with pytest.raises(InputError, match=f"The scale is {scale}: give"):
        to_pixels(np.zeros((1, 1, 2, 2), np.float32), scale)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_picture_of_other_channels_shows_their_mean(channels: int, tmp_path: Path) -> None:
    images = library_numpy_rng(0).random((3, channels, 2, 4), dtype=np.float32)
    expected = np.rint(images.mean(axis=1) * 255).astype(np.uint8)
    assert np.array_equal(to_pixels(images)[:, 0], expected)
    picture = grid([images], 3, (channels, 2, 4), columns=3)
    assert picture.shape == (2, 14, 1)
    assert np.array_equal(picture[:, 5:9, 0], expected[1])


def test_a_label_may_be_numpys(tmp_path: Path) -> None:
    network = generator(tmp_path)
    own, theirs = network.sample(4, labels=2), network.sample(4, labels=np.int64(2))
    assert np.array_equal(own.images, theirs.images)
    assert theirs.labels.tolist() == [2] * 4
