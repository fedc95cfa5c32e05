"""The latent field: cells that a person holds, in Python, on the command line, and in what a generator then draws."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from draws import seed_torch
from PIL import Image

from netinv.app import command
from netinv.app.inversions import Inversion
from netinv.core import InputError
from netinv.export import write_model
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert
from netinv.sampling import OnnxGenerator, grid
from tests.conftest import Exported

Z, SIDE = 8, 2
SHAPE = (1, 12, 12)
PLACES = {(0, 0): 4, (0, 1): 5, (1, 0): 6, (1, 1): 7}
"""Where the cells of a field of 2 x 2 are among 8 latents."""


@pytest.fixture
def steered(exported: Exported, tmp_path: Path) -> OnnxGenerator:
    """The ensemble of two, whose file says that it has a field."""
    model = onnx.load(exported.folder / "ensemble.onnx")
    write_model(tmp_path / "steered.onnx", model, replace(exported.metadata, field_side=SIDE, num_generators=2))
    return OnnxGenerator(tmp_path / "steered.onnx", num_threads=1)


@pytest.mark.parametrize("field", [{}, {(0, 1): 2.0}, {(1, 0): -1.5, (0, 0): 0.0}, dict.fromkeys(PLACES, 0.25)])
def test_held_cells_are_the_same_in_all_images_and_the_others_stay_drawn(
    exported: Exported, steered: OnnxGenerator, field: dict[tuple[int, int], float]
) -> None:
    drawn, samples = steered.sample(70, seed=3, labels=1), steered.sample(70, seed=3, labels=1, field=field)
    expected = drawn.latent.copy()
    for cell, value in field.items():
        expected[:, PLACES[cell]] = value
    assert np.array_equal(samples.latent, expected)
    assert np.array_equal(samples.condition, drawn.condition)
    for turn, generator in enumerate(exported.generators):
        with torch.no_grad():
            images = generator(torch.from_numpy(expected[turn::2]), torch.from_numpy(drawn.condition[turn::2]))
        np.testing.assert_allclose(samples.images[turn::2], images.numpy(), atol=1e-5)


def test_a_way_keeps_the_cells_that_are_held(steered: OnnxGenerator) -> None:
    free = steered.interpolate(5, seeds=(3, 4), label=1)
    way = steered.interpolate(5, seeds=(3, 4), label=1, field={(1, 1): 2.0})
    assert (way.latent[:, 7] == 2).all()
    assert np.array_equal(way.images[:1], steered.sample(1, seed=3, labels=1, field={(1, 1): 2.0}, generator=0).images)
    assert np.abs(way.images - free.images).max() > 1e-3


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ({(2, 0): 1.0}, "The cell 2,0 does not exist: the field has 2 rows and columns, counted from 0."),
        ({(0, 2): 1.0}, "The cell 0,2 does not exist"),
        ({(-1, 0): 1.0}, "The cell -1,0 does not exist"),
        ({(0, -1): 1.0}, "The cell 0,-1 does not exist"),
        ({(0.5, 0): 1.0}, "A row of the field is 0.5: give a whole number."),
        ({(0, 1): float("nan")}, "The cell 0,1 of the field is to be nan: give -1,000 to 1,000."),
        ({(0, 1): 1e300}, "The cell 0,1 of the field is to be 1e\\+300: give -1,000 to 1,000."),
        ({(1, 1): -1000.1}, "is to be -1000.1"),
        ({(0, 1): float("inf")}, "is to be inf"),
    ],
)
def test_cells_that_cannot_be_held_are_refused(steered: OnnxGenerator, field: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        steered.sample(2, field=field)
    with pytest.raises(InputError, match=sentence):
        steered.interpolate(2, seeds=(0, 1), field=field)


def test_a_generator_without_a_field_says_so(exported: Exported) -> None:
    generator = OnnxGenerator(exported.folder / "generator-0.onnx")
    assert len(generator.sample(2, field={}).images) == 2
    with pytest.raises(InputError, match=r"generator-0\.onnx has no latent field: it is one of an inversion with a"):
        generator.sample(2, field={(0, 0): 1.0})


def test_files_of_before_have_no_field_and_too_large_ones_are_refused(exported: Exported, tmp_path: Path) -> None:
    model, path = onnx.load(exported.folder / "generator-0.onnx"), tmp_path / "model.onnx"
    kept = [entry for entry in model.metadata_props if entry.key != "netinv.field_side"]
    assert len(kept) == len(model.metadata_props) - 1
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    assert OnnxGenerator(path).metadata == exported.metadata
    write_model(path, model, replace(exported.metadata, field_side=3))
    with pytest.raises(InputError, match=r"damaged metadata \(a field_side of 3 asks for more than the latent_dim\)"):
        OnnxGenerator(path)


def test_the_command_holds_cells(steered: OnnxGenerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    arguments = ["--label", "1", "--num", "4", "--field", "0,1:2", "--field", " 1, 0 : -1.5", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["netinv", "sample", str(steered.path), *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code in (0, None)
    images = steered.sample(4, labels=1, field={(0, 1): 2.0, (1, 0): -1.5}).images
    assert np.array_equal(np.asarray(Image.open(out)), grid([images], 4, SHAPE))


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["0,1"], "The field '0,1' is no cell: write row, column and value like 0,3:1.5."),
        (["0:1"], "is no cell"),
        (["0,1:much"], "is no cell"),
        (["-1,1:1"], "is no cell"),
        (["0,1:1", "0,1:2"], "The cell 0,1 of the field is given twice: give it one value."),
        (["0,1:nan"], "is to be nan"),
        (["0,1:1e300"], "is to be 1e+300: give -1,000 to 1,000."),
        (["9,9:1"], "The cell 9,9 does not exist"),
    ],
)
def test_what_is_no_cell_is_one_sentence(
    steered: OnnxGenerator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    cells: list[str],
    sentence: str,
) -> None:
    held = [part for cell in cells for part in ("--field", cell)]
    out = tmp_path / "grid.png"
    monkeypatch.setattr("sys.argv", ["netinv", "sample", str(steered.path), *held, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_trained_field_moves_strokes_where_it_says(exported: Exported, tmp_path: Path) -> None:
    """From -2 to 2 a cell grows brighter, and more so than any other, in each of the four."""
    seed_torch(0)
    config = InversionConfig(steps=150, batch_size=48, lr=5e-3, sharpness=(3.0, 3.0), latent_field=2.0)
    generator = ConditionedGenerator(GeneratorConfig(latent_dim=Z, hidden_dim=32, width=8, max_width=16), 3, SHAPE)
    assert list(invert(generator, exported.classifier, config, seed=0))
    path = tmp_path / "field.onnx"
    Inversion(generator.eval(), config, [], exported.metadata.classes, 1.0).to_onnx(path)
    network = OnnxGenerator(path)
    assert network.metadata.field_side == SIDE
    for cell in PLACES:
        dark, bright = (network.sample(60, field={cell: value}).images for value in (-2.0, 2.0))
        change = (bright - dark).reshape(60, 2, 6, 2, 6).mean(axis=(0, 2, 4))  # rows and columns of the field
        assert change[cell] > 0.02
        assert change[cell] == change.max()


def test_without_a_weight_there_is_no_field(exported: Exported, tmp_path: Path) -> None:
    Inversion(exported.generators[0], InversionConfig(), [], exported.metadata.classes, 1.0).to_onnx(
        tmp_path / "g.onnx"
    )
    assert OnnxGenerator(tmp_path / "g.onnx").metadata.field_side == 0
