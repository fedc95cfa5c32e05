"""Draws, the classes for notebooks, and the command ``netinv sample``."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from netinv.app import command
from netinv.core import InputError
from netinv.sampling import Metadata, OnnxClassifier, OnnxGenerator, Samples, draw, grid, save, to_pixels
from netinv.sampling.draws import BATCH_SIZE, draw_batches
from tests.conftest import Exported

DRAW = {"latent_dim": 64, "num_classes": 10}


@pytest.fixture
def generator(exported: Exported) -> OnnxGenerator:
    return OnnxGenerator(exported.folder / "generator-0.onnx", num_threads=1)


def test_first_draws_do_not_depend_on_how_many_follow() -> None:
    latent, condition = draw(100, **DRAW, seed=3, sharpness=(0.5, 5.0))
    for num in (1, 7):
        first = draw(num, **DRAW, seed=3, sharpness=(0.5, 5.0))
        assert np.array_equal(first[0], latent[:num])
        assert np.array_equal(first[1], condition[:num])
    batches = [*draw_batches(100, **DRAW, seed=3, sharpness=(0.5, 5.0), batch_size=9)]
    assert np.array_equal(np.concatenate([batch[0] for batch in batches]), latent)
    assert np.array_equal(np.concatenate([batch[1] for batch in batches]), condition)
    assert not np.array_equal(draw(100, **DRAW, seed=4, sharpness=(0.5, 5.0))[0], latent)


def test_draws_are_distributed_as_the_paper_says() -> None:
    """At sharpness 1 the mean top probability of ten classes is 0.32 and the mean entropy 1.92 nats."""
    latent, condition = draw(20_000, **DRAW, seed=0, sharpness=(1.0, 1.0))
    assert latent.dtype == condition.dtype == np.float32
    assert np.abs(condition.sum(axis=1) - 1).max() < 1e-6
    assert abs(condition.max(axis=1).mean() - 0.32) < 0.01
    assert abs(-(condition * np.log(condition)).sum(axis=1).mean() - 1.92) < 0.01
    assert abs(latent.mean()) < 0.01
    assert abs(latent.std() - 1) < 0.01
    assert np.abs(np.corrcoef(latent[:, 0], condition[:, 0])[0, 1]) < 0.03
    # e is standard normal up to a shift of each row, so s is the spread of the log-probabilities.
    spread = np.log(draw(20_000, **DRAW, seed=0, sharpness=(0.1, 10.0))[1].astype(np.float64) + 1e-300)
    known = np.log(condition.astype(np.float64))
    scale = np.log10((spread[:, 0] - spread[:, 1]) / (known[:, 0] - known[:, 1]))
    quantiles = np.quantile(scale[np.isfinite(scale)], [0.0, 0.25, 0.5, 0.75, 1.0])
    assert np.abs(quantiles - [-1, -0.5, 0, 0.5, 1]).max() < 0.05


def test_wanted_labels_leave_the_distribution_alone() -> None:
    """What is drawn for a label is distributed as the free draws that happen to have it."""
    free = draw(40_000, **DRAW, seed=0, sharpness=(1.0, 3.0))[1]
    wanted = draw(4000, **DRAW, seed=1, sharpness=(1.0, 3.0), labels=[3] * 4000)[1]
    assert (wanted.argmax(axis=1) == 3).all()
    chance = free[free.argmax(axis=1) == 3]
    assert np.abs(wanted.mean(axis=0) - chance.mean(axis=0)).max() < 0.01
    assert np.abs(wanted.std(axis=0) - chance.std(axis=0)).max() < 0.01


@pytest.mark.parametrize(
    "wrong",
    [{"num": -1}, {"labels": [0, 10]}, {"labels": [0]}],
)
def test_impossible_draws_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        draw(**{"num": 2, "seed": 0, "sharpness": (1.0, 1.0), **DRAW, **wrong})  # type: ignore[arg-type]


def test_pixels_are_torchs(exported: Exported, generator: OnnxGenerator) -> None:
    import torch

    samples = generator.sample(2 * BATCH_SIZE + 5, seed=1, labels=2)
    with torch.no_grad():
        images = exported.generators[0](torch.from_numpy(samples.latent), torch.from_numpy(samples.condition))
    assert np.abs(samples.images - images.numpy()).max() < 1e-5
    assert (samples.labels == 2).all()


@pytest.mark.parametrize("name", ["generator-0", "generator-0-stochastic", "generator-0-int8", "ensemble"])
def test_same_arguments_same_pixels(exported: Exported, name: str) -> None:
    arguments = {"seed": 5, "sharpness": (1.0, 4.0)}
    first, again = (OnnxGenerator(exported.folder / f"{name}.onnx").sample(100, **arguments) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    few = OnnxGenerator(exported.folder / f"{name}.onnx").sample(3, **arguments)
    assert np.abs(few.images - first.images[:3]).max() < 1e-6
    other = OnnxGenerator(exported.folder / f"{name}.onnx").sample(100, **{**arguments, "seed": 6})
    assert np.abs(other.images - first.images).max() > 0.1


def test_stochastic_form_draws_its_dropout_from_the_seed(exported: Exported) -> None:
    plain, stochastic = (OnnxGenerator(exported.folder / f"generator-0{form}.onnx") for form in ("", "-stochastic"))
    without, with_dropout = plain.sample(8, seed=2), stochastic.sample(8, seed=2)
    assert np.array_equal(without.condition, with_dropout.condition)
    assert np.abs(without.images - with_dropout.images).max() > 0.01


def test_ensemble_takes_turns_or_obeys(exported: Exported) -> None:
    ensemble = OnnxGenerator(exported.folder / "ensemble.onnx")
    each = [OnnxGenerator(exported.folder / f"generator-{i}.onnx").sample(6, seed=1).images for i in range(2)]
    turns = np.stack([each[i % 2][i] for i in range(6)])
    assert np.abs(ensemble.sample(6, seed=1).images - turns).max() < 1e-6
    assert np.abs(ensemble.sample(6, seed=1, generator=1).images - each[1]).max() < 1e-6
    with pytest.raises(InputError, match="holds 2"):
        ensemble.sample(6, generator=2)


def test_mixture_is_the_condition(generator: OnnxGenerator) -> None:
    samples = generator.sample(3, mixture={0: 0.25, 2: 0.75})
    assert np.allclose(samples.condition, [[0.25, 0, 0.75]] * 3)
    assert (samples.labels == 2).all()
    named = generator.sample(3, mixture={"zero": 0.25, "2": 0.75})
    assert np.array_equal(named.images, samples.images)


def test_classes_go_by_number_or_name(generator: OnnxGenerator) -> None:
    assert len(generator.sample().images) == 16
    for labels in (2, "two", "2", ["two"] * 3, [2, "two", "2"]):
        assert np.array_equal(generator.sample(3, labels=labels).images, generator.sample(3, labels=2).images)
    ways = [generator.interpolate(2, seeds=(1, 2), label=label).images for label in (1, "one")]
    assert np.array_equal(*ways)


def test_interpolation_goes_from_seed_to_seed(generator: OnnxGenerator) -> None:
    first, last = generator.sample(1, seed=3, labels=1), generator.sample(1, seed=4, labels=1)
    way = generator.interpolate(9, seeds=(3, 4), label=1)
    assert np.allclose(way.latent[0], first.latent[0], atol=1e-6)
    assert np.allclose(way.latent[-1], last.latent[0], atol=1e-6)
    assert np.abs(way.images[0] - first.images[0]).max() < 1e-5
    steps = np.linalg.norm(np.diff(way.latent / np.linalg.norm(way.latent, axis=1, keepdims=True), axis=0), axis=1)
    assert steps.max() < 1.001 * steps.min()
    assert np.allclose(np.diff(np.linalg.norm(way.latent, axis=1), n=2), 0, atol=1e-5)
    assert (way.condition == first.condition).all()


def test_no_images_are_an_empty_batch(generator: OnnxGenerator) -> None:
    assert generator.sample(0).images.shape == (0, 1, 12, 12)


def test_grid_places_images_row_by_row() -> None:
    images = np.arange(5, dtype=np.float32)[:, None, None, None] / 5 * np.ones((1, 3, 2, 4), np.float32)
    canvas = grid([images[:2], images[2:]], 5, (3, 2, 4), columns=3)
    assert canvas.shape == (2 * 3 - 1, 3 * 5 - 1, 3)
    for i in range(5):
        top, left = i // 3 * 3, i % 3 * 5
        assert (canvas[top : top + 2, left : left + 4] == to_pixels(images)[i, 0, 0, 0]).all()
    assert (canvas[2] == 255).all()
    assert grid([images], 5, (3, 2, 4)).shape == (5, 14, 3)


def test_interrupted_writing_leaves_nothing(generator: OnnxGenerator, tmp_path: Path) -> None:
    def broken() -> Iterator[Samples]:
        yield generator.sample(1)
        raise KeyboardInterrupt

    for name in ("grid.png", "arrays.npz", "folder"):
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / name, broken(), 2, generator)
    assert not list(tmp_path.iterdir())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["netinv", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    return int(exit_.value.code or 0)


def test_command_writes_a_grid(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = exported.folder / "generator-0.onnx", tmp_path / "grid.png"
    command = ("sample", model, "--label", 2, "--num", 64, "--seed", 0, "--sharpness", 3, "--out")
    assert run(monkeypatch, *command, out) == 0
    samples = OnnxGenerator(model).sample(64, seed=0, labels=2, sharpness=3)
    expected = grid([samples.images], 64, (1, 12, 12))
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    assert run(monkeypatch, *command, tmp_path / "again.png") == 0
    assert out.read_bytes() == (tmp_path / "again.png").read_bytes()


def test_command_enlarges_pixels_and_tells_scripts(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, classifier = exported.folder / "generator-0.onnx", exported.folder / "classifier.onnx"
    out = tmp_path / "grid.png"
    command = ("sample", model, "--num", 4, "--scale", 3, "--json", "--out")
    assert run(monkeypatch, *command, out, "--verify", classifier) == 0
    samples = OnnxGenerator(model).sample(4)
    accuracy = OnnxClassifier(classifier).accuracy(samples.images, samples.labels)
    told = {"out": str(out), "images": 4, "seed": 0, "sharpness": [3.0, 3.0], "accuracy": accuracy}
    assert json.loads(capsys.readouterr().out) == told
    picture = np.asarray(Image.open(out))
    assert picture.shape == (2 * 36 + 1, 2 * 36 + 1)
    assert np.array_equal(picture[37::3, :36:3], to_pixels(samples.images)[2, 0])  # any pixel of the squares
    assert np.array_equal(picture[38::3, 2:36:3], to_pixels(samples.images)[2, 0])
    assert (picture[36] == 255).all()
    assert run(monkeypatch, *command, tmp_path / "images") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] is None
    assert run(monkeypatch, *command, tmp_path / "mixed.png", "--mixture", "0:1") == 0
    assert json.loads(capsys.readouterr().out)["sharpness"] is None
    with Image.open(sorted((tmp_path / "images").iterdir())[0]) as image:
        assert image.size == (36, 36)


def test_command_writes_arrays_and_verifies(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "arrays.npz"
    model, classifier = exported.folder / "ensemble.onnx", exported.folder / "classifier.onnx"
    command = ("sample", model, "--label", "two", "--label", 0, "--num", 70, "--verify", classifier, "--out", out)
    assert run(monkeypatch, *command) == 0
    with np.load(out) as arrays:
        samples = Samples(**arrays)
    assert samples.labels.tolist() == [2] * 70 + [0] * 70
    assert np.array_equal(samples.condition.argmax(axis=1), samples.labels)
    expected = OnnxGenerator(model).sample(140, labels=samples.labels.tolist())
    assert all(np.array_equal(a, b) for a, b in zip(samples, expected, strict=True))
    correct = (OnnxClassifier(classifier)(samples.images).argmax(axis=1) == samples.labels).sum()
    assert correct > 100
    assert f"accuracy under {classifier}: {correct / 140:.4f} ({correct} of 140)" in capsys.readouterr().out


def test_command_writes_a_folder_of_a_mixture(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = exported.folder / "generator-0.onnx", tmp_path / "images"
    assert run(monkeypatch, "sample", model, "--mixture", "zero:0.6,1:0.4", "--num", 3, "--out", out) == 0
    samples = OnnxGenerator(model).sample(3, mixture={0: 0.6, 1: 0.4})
    names = [path.name for path in sorted(out.iterdir())]
    assert names == ["000000-0.png", "000001-0.png", "000002-0.png"]
    for name, image in zip(names, to_pixels(samples.images), strict=True):
        assert np.array_equal(np.asarray(Image.open(out / name)), image[0])


def test_command_interpolates(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = exported.folder / "generator-0.onnx", tmp_path / "way.png"
    labels = ("--label", 0, "--label", 1)
    assert run(monkeypatch, "sample", model, *labels, "--num", 5, "--seed", 1, "--to-seed", 2, "--out", out) == 0
    network = OnnxGenerator(model)
    ways = [network.interpolate(5, seeds=(1, 2), label=label).images for label in (0, 1)]
    assert np.array_equal(np.asarray(Image.open(out)), grid(ways, 10, (1, 12, 12), columns=5))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--label", 3), "Label 3 does not exist: the classes are 0 (zero), 1 (one), 2 (two)."),
        (("--label", "cat"), "Label cat does not exist: the classes are 0 (zero), 1 (one), 2 (two)."),
        (("--mixture", "0:0.6,1:0.5"), "The shares of the mixture sum to 1.1: they must sum to 1."),
        (("--mixture", "0:1.5,1:-0.5"), "a share lies from 0 to 1"),
        (("--mixture", "0"), "write it like 3:0.6,8:0.4, with numbers for classes whose names have a comma."),
        (("--mixture", "0:0.5,zero:0.5"), "names the class zero twice"),
        (("--mixture", "0:1", "--label", 0), "Both --label and --mixture were given"),
        (("--mixture", "0:0.5,1:0.5", "--verify", "classifier.onnx"), "and a mixture wants several: leave one out."),
        (("--num", -1), "Invalid value for '--num': -1 is not in the range x>=1."),
        (("--seed", -1), "Invalid value for '--seed'"),
        (("--sharpness", "much"), "write it like 3, or 1:5 for a range"),
        (("--sharpness", 0), "give a number above 0"),
        (("--sharpness", "5:1"), "the lower first"),
        (("--sharpness", "1e308"), "give a number above 0 to 1,000"),
        (("--mixture", "0:1", "--sharpness", 3), "Both a sharpness and a mixture, which has none, were given"),
        (("--mixture", ""), "The mixture '' has no share in ''"),
        (("--label", "0", "--mixture", ""), "Both --label and --mixture were given"),
        (("--sharpness", ""), "The sharpness '' is no number"),
        (("--generator", 1), "holds 1, counted from 0"),
        (("--to-seed", 1, "--num", 1), "an interpolation needs its two ends"),
        (("--out", "grid.jpg"), "grid.jpg ends in .jpg"),
        (("--out", "generator-0.onnx/grid.png"), "generator-0.onnx/grid.png cannot be written (Not a directory)"),
        (("--out", "taken"), "taken is there already: name a new folder."),
        (("--out", "taken.png"), "taken.png is a folder already: name a file."),
        (("--verify", "taken"), "taken is not a file"),
        (("--verify", "generator-0.onnx"), "generator-0.onnx is a generator: name an exported classifier."),
        (("--verify", "coloured.onnx"), "The classes of coloured.onnx are red, green, blue, in this order"),
        (("--nonsense",), "No such option '--nonsense'"),
    ],
)
def test_bad_input_is_one_sentence(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    Path("taken.png").mkdir()
    Path("generator-0.onnx").write_bytes((exported.folder / "generator-0.onnx").read_bytes())
    other = onnx.load(exported.folder / "classifier.onnx")
    for entry in other.metadata_props:
        if entry.key == "netinv.classes":
            entry.value = '["red", "green", "blue"]'
    onnx.save(other, "coloured.onnx")
    before = sorted(Path().rglob("*"))
    assert run(monkeypatch, "sample", "generator-0.onnx", "--out", "grid.png", *arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert sorted(Path().rglob("*")) == before, "something was written"


def test_files_that_are_not_ours_are_refused(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="is not a file"):
        OnnxGenerator(path)
    path.write_text("not a network")
    with pytest.raises(InputError, match="is not an ONNX file that onnxruntime"):
        OnnxGenerator(path)
    data = (exported.folder / "generator-0.onnx").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="is not an ONNX file that onnxruntime"):
        OnnxGenerator(path)
    model = onnx.load_from_string(data)
    kept = [entry for entry in model.metadata_props if entry.key not in {"netinv.classes", "netinv.sharpness"}]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"lacks the metadata netinv\.classes, netinv\.sharpness\."):
        OnnxGenerator(path)
    model.metadata_props.extend(
        onnx.StringStringEntryProto(key=f"netinv.{k}", value="[0") for k in ("classes", "sharpness")
    )
    onnx.save(model, path)
    with pytest.raises(InputError, match="damaged metadata"):
        OnnxGenerator(path)
    model = onnx.load_from_string(data)
    for entry in model.metadata_props:
        if entry.key == "netinv.latent_dim":
            entry.value = "9"
    onnx.save(model, path)
    with pytest.raises(InputError, match="does not fit its metadata"):
        OnnxGenerator(path)


def test_metadata_survive_the_file(exported: Exported) -> None:
    assert Metadata.from_entries(exported.metadata.to_entries(), Path("x")) == exported.metadata


def test_sampling_needs_the_light_install_only(exported: Exported, tmp_path: Path) -> None:
    """In a process of its own, whose imports from outside the standard library are listed."""
    code = f"""
import sys
from netinv.app import command
sys.argv = ["netinv", "sample", {str(exported.folder / "generator-0.onnx")!r}, "--label", "1",
            "--verify", {str(exported.folder / "classifier.onnx")!r}, "--out", {str(tmp_path / "grid.png")!r}]
try:
    command.main()
finally:
    third_party = {{module.partition(".")[0] for module, value in sys.modules.items()
                   if "site-packages" in (getattr(value, "__file__", None) or "")}}
    print(sorted(third_party))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"PIL", "click", "lazy_loader", "numpy", "onnxruntime", "pydantic"}
    allowed |= {"annotated_types", "pydantic_core", "typing_extensions", "typing_inspection"}  # which pydantic needs
    imported = {name for name in eval(done.stdout.splitlines()[-1]) if not name.startswith("_")}
    assert imported - allowed == set()
    assert not done.stderr
