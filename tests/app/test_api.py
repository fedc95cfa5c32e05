"""Inversion in one call: as the first page of the documentation shows it, in a notebook, and back from disk."""

import io
import json
import os
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from draws import seed_torch, torch_rng
from foreign_networks import ConvNet
from PIL import Image
from torch import Tensor, nn

import netinv
from netinv.app import inversions
from netinv.app.api import settings_of
from netinv.app.inversions import DoubtfulClassifier, Inversion, classifier_vendi, inversion_accuracy
from netinv.app.messages import print_inversion
from netinv.classifiers import AdaptedClassifier, adapt
from netinv.core import InputError
from netinv.data import load_digits, to_float
from netinv.evaluation import vendi_score
from netinv.generators import ConditionedGenerator, draw_images
from netinv.inversion import class_accuracies
from netinv.sampling import OnnxGenerator

# Most are trained too briefly to draw every class, and some classifiers not at all; and they say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Of the classes"),
    pytest.mark.filterwarnings("ignore:Was it trained"),
]

SHAPE = (1, 16, 16)
QUICK: dict[str, Any] = {
    "config": netinv.InversionConfig(steps=150, batch_size=64, log_every=50, lr=5e-3),
    "generator": netinv.GeneratorConfig(width=8, max_width=16),
    "progress": False,
    "attempts": 1,
}


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """Handwritten digits, as somebody without this library would train on them: normalised, in training mode."""
    seed_torch(0)
    train = load_digits().train
    images, labels = (to_float(train.images) - 0.3) / 0.38, train.labels
    network = ConvNet(in_channels=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for epoch in range(4):
        for index in torch.randperm(len(labels), generator=torch_rng(epoch)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[index]), labels[index]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return network


ADAPTER = netinv.AdapterConfig(mean=(0.3,), std=(0.38,))


def test_a_variant_goes_by_its_name(classifier: nn.Module) -> None:
    steps = {"steps": 2, "batch_size": 50}
    for name in ("standard", "robust"):
        config = netinv.variant_config(name)
        assert settings_of(name, adapt(classifier, SHAPE, 10, ADAPTER)) == (config, "")
        quick = config.model_copy(update=steps)
        settings: dict[str, Any] = {"adapter": ADAPTER, "config": quick, "attempts": 1, "progress": False}
        assert netinv.invert(classifier, image_shape=SHAPE, **settings).config == quick
    assert netinv.InversionConfig() == netinv.variant_config("standard")
    with pytest.raises(InputError, match="no variant 'bold': the variants are standard, robust"):
        netinv.invert(classifier, image_shape=SHAPE, adapter=ADAPTER, variant="bold")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Both a variant or changes and a config"):
        netinv.invert(classifier, image_shape=SHAPE, adapter=ADAPTER, variant="robust", config=netinv.InversionConfig())
    with pytest.raises(InputError, match="Both a variant or changes and a config"):
        netinv.invert(classifier, image_shape=SHAPE, adapter=ADAPTER, changes={}, config=netinv.InversionConfig())


def test_without_mean_and_std_the_robust_variant_says_what_it_leaves_out(classifier: nn.Module) -> None:
    config, left_out = settings_of("robust", adapt(classifier, SHAPE, 10, netinv.AdapterConfig()))
    assert config == netinv.variant_config("robust").model_copy(update={"pixel_statistics": 0.0})
    assert "not known (a mean of 0 or 0.5 is a scale): this is left out." in left_out


@pytest.fixture(scope="module")
def inversion(classifier: nn.Module) -> Inversion:
    return netinv.invert(classifier, image_shape=SHAPE, num_classes=10, adapter=ADAPTER, **QUICK)


def test_import_is_light(root: Path) -> None:
    code = (
        "import sys, netinv, netinv.app.command, netinv.sampling, netinv.app.commands; "
        "assert 'invert' in dir(netinv); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    for name in {*netinv.__all__} - {"__version__"}:
        assert getattr(netinv, name).__name__ == name
    with pytest.raises(AttributeError, match="attribute inverse"):
        _ = netinv.inverse


@pytest.mark.parametrize(
    ("settings", "accuracy"), [(QUICK, 0.5), pytest.param({}, 0.9, marks=pytest.mark.slow)], ids=["quick", "default"]
)
def test_the_lines_of_the_first_page_work(
    settings: dict[str, Any],
    accuracy: float,
    classifier: nn.Module,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run as they stand but for the shape of the images, which is the digits' here, and at first fewer steps."""
    monkeypatch.setattr(netinv, "invert", partial(netinv.invert, **settings), raising=False)
    pages = [root / "docs" / "index.md", root / "README.md"]
    blocks = [
        block
        for page in pages
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if "netinv.invert(" in block
    ]
    assert blocks
    monkeypatch.chdir(tmp_path)
    block = blocks[0]
    assert all(other == block for other in blocks)
    assert "(1, 28, 28)" in block
    names: dict[str, Any] = {"classifier": nn.Sequential(nn.BatchNorm2d(1, affine=False), classifier)}
    names["classifier"][0].running_mean.fill_(0.3)
    names["classifier"][0].running_var.fill_(0.38**2)
    exec(block.replace("(1, 28, 28)", "(1, 16, 16)"), names)
    assert names["inversion"].accuracy > accuracy
    assert names["images"].shape == (16, 1, 16, 16)
    assert (tmp_path / "inversion" / "weights.safetensors").exists()
    assert OnnxGenerator("generator.onnx").sample(2, labels=3).images.shape == (2, 1, 16, 16)


def test_inverts(inversion: Inversion, classifier: nn.Module) -> None:
    assert inversion.accuracy > 0.5  # far fewer steps than by default; chance is 0.1
    images = inversion.sample(200, label=7)
    assert images.shape == (200, *SHAPE)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    logits = AdaptedClassifier(classifier, SHAPE, config=ADAPTER)(images)
    assert (logits.argmax(dim=1) == 7).float().mean() > 0.3
    assert [record["step"] for record in inversion.history] == [50, 100, 150]
    assert inversion.history[-1]["samples"] == 150 * 64
    assert inversion.config == QUICK["config"]
    assert inversion.classes == tuple("0123456789")
    assert not inversion.generator.training


def test_accuracy_is_a_share_of_fresh_images(inversion: Inversion) -> None:
    class Fixed(nn.Module):
        device = torch.device("cpu")

        def forward(self, images: Tensor) -> Tensor:
            return F.one_hot(torch.full((len(images),), 4), 10).float()

    _, vectors = draw_images(inversion.generator, 1000, seed=1, sharpness=inversion.config.sharpness)
    labels = vectors.argmax(dim=1)
    fixed: Any = Fixed()
    assert inversion_accuracy(inversion, fixed, num=1000) == pytest.approx(float((labels == 4).float().mean()))


@pytest.mark.parametrize(("most", "chosen"), [(20, range(10)), (4, range(0, 10, 3))])
def test_diversity_within_the_classifier_is_of_mixed_batches_of_so_many_classes_at_most(
    inversion: Inversion, monkeypatch: pytest.MonkeyPatch, most: int, chosen: range
) -> None:
    class Pixels(nn.Module):
        device = torch.device("cpu")

        def forward(self, images: Tensor, return_features: bool) -> tuple[None, Tensor]:
            assert len(images) == 50
            seen.append(images)
            return None, images.flatten(1)

    seen: list[Tensor] = []
    pixels: Any = Pixels()
    monkeypatch.setattr(inversions, "VENDI_CLASSES", most)
    found = classifier_vendi(inversion, pixels)
    labels = torch.tensor(chosen).repeat(50)
    sharpness = inversion.config.sharpness
    expected, _ = draw_images(inversion.generator, len(labels), seed=2, sharpness=sharpness, labels=labels.tolist())
    torch.testing.assert_close(torch.cat(seen), expected)
    scores = [float(vendi_score(expected[labels == label].flatten(1))) for label in chosen]
    assert found == pytest.approx(sum(scores) / len(chosen), rel=1e-4)


def test_the_classifier_and_the_random_state_are_left_as_found(classifier: nn.Module) -> None:
    classifier.train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    state = torch.random.get_rng_state()
    netinv.invert(classifier, image_shape=SHAPE, **QUICK | {"config": netinv.InversionConfig(steps=2)})
    assert all(module.training for module in classifier.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in classifier.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_gives_the_same_generator(classifier: nn.Module) -> None:
    quick = QUICK | {"config": netinv.InversionConfig(steps=3)}
    a, b, c = (netinv.invert(classifier, image_shape=SHAPE, seed=seed, **quick).sample(4) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_sample_is_steady_and_takes_names(inversion: Inversion) -> None:
    named = Inversion(inversion.generator, inversion.config, inversion.history, tuple("abcdefghij"), 0.0)
    torch.testing.assert_close(named.sample(5, label="d"), inversion.sample(5, label=3))
    torch.testing.assert_close(inversion.sample(3, seed=4), inversion.sample(8, seed=4)[:3], atol=1e-6, rtol=1e-5)
    assert not torch.equal(inversion.sample(3), inversion.sample(3, sharpness=(9, 9)))
    with pytest.raises(InputError, match=r"Label z does not exist: the classes are 0 \(a\), 1 \(b\)"):
        named.sample(label="z")
    with pytest.raises(InputError, match="Label 10 does not exist"):
        named.sample(label=10)


def test_shows_as_a_grid_in_a_notebook(inversion: Inversion) -> None:
    with Image.open(io.BytesIO(inversion._repr_png_())) as picture:
        assert picture.size == (8 * 49 - 1, 10 * 49 - 1)
        pixels = np.asarray(picture)
    first = inversion.sample(8, label=0)[0, 0]
    np.testing.assert_allclose(pixels[:48:3, :48:3], first.numpy() * 255, atol=1)


def test_prints_in_a_line() -> None:
    generator = ConditionedGenerator(netinv.GeneratorConfig(width=4, max_width=4), 2, SHAPE)
    whole = Inversion(generator, netinv.InversionConfig(), [{"step": 1.0}], ("a", "b"), 0.99876, (1.0, 0.99))
    assert repr(whole) == "Inversion(standard, 2 classes, accuracy 0.9988)"
    lost = Inversion(
        generator, netinv.InversionConfig(perturbation="pgd", epsilon=0.1), [], ("a", "b"), 0.5, (1.0, 0.0)
    )
    assert repr(lost) == "Inversion(robust, 2 classes, accuracy 0.5000, missing b)"


@pytest.mark.parametrize(("num", "shown"), [(10, "each class"), (12, "each of the first 10 of 12 classes")])
def test_the_command_says_of_which_classes_its_grid_is(
    num: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = ConditionedGenerator(netinv.GeneratorConfig(width=4, max_width=4), num, SHAPE)
    classes = tuple(f"c{k}" for k in range(num))
    made = Inversion(generator, netinv.InversionConfig(), [{"step": 1.0}], classes, 0.99, (1.0,) * num)
    print_inversion(made, Path("out"), as_json=False)
    assert capsys.readouterr().out.endswith(f"; see {Path('out/grid.png')} for {shown}\n")
    assert made.grid().height == 10 * 49 - 1


def test_comes_back_from_disk(inversion: Inversion, tmp_path: Path) -> None:
    inversion.save(tmp_path / "a" / "inversion")
    inversion.save(tmp_path / "a" / "inversion")  # replaces an earlier one
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["inversion"]
    back = Inversion.load(tmp_path / "a" / "inversion")
    assert torch.equal(back.sample(4), inversion.sample(4))
    assert (back.config, back.classes, back.accuracy) == (inversion.config, inversion.classes, inversion.accuracy)
    assert back.history == inversion.history


def test_other_files_are_not_overwritten(inversion: Inversion, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        inversion.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match=r"inversion\.json is not readable"):
        Inversion.load(tmp_path)


def test_an_inversion_of_two_parts_is_refused(inversion: Inversion, tmp_path: Path) -> None:
    inversion.save(tmp_path / "inversion")
    record = tmp_path / "inversion" / "inversion.json"
    record.write_text(record.read_text().replace('"9"', '"9", "10"'))
    with pytest.raises(InputError, match=r"names 11 classes, but the generator has 10"):
        Inversion.load(tmp_path / "inversion")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": [*"012345678", ""]}, r"inversion\.json\.classes\.9: expected at least 1 character"),
        ({"classes": [*"0123456788"]}, r"inversion\.json\.classes: 8 is there more than once"),
        ({"classes": []}, r"inversion\.json\.classes: .* at least 1 item"),
        ({"seed": -1}, r"inversion\.json\.seed: expected greater than or equal to 0, got -1"),
    ],
)
def test_a_record_that_no_code_writes_is_refused(
    inversion: Inversion, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    inversion.save(tmp_path / "inversion")
    record = tmp_path / "inversion" / "inversion.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    with pytest.raises(InputError, match=told):
        Inversion.load(tmp_path / "inversion")


def test_the_exported_generator_draws_the_same(inversion: Inversion, tmp_path: Path) -> None:
    inversion.to_onnx(tmp_path / "generator.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["generator.onnx"]
    samples = OnnxGenerator(tmp_path / "generator.onnx").sample(6, seed=3, labels=2)
    np.testing.assert_allclose(samples.images, inversion.sample(6, seed=3, label=2).numpy(), atol=1e-5)


def test_records_are_told_as_they_come(classifier: nn.Module) -> None:
    told: list[dict[str, float]] = []
    quick = QUICK | {"config": netinv.InversionConfig(steps=4, log_every=2)}
    inversion = netinv.invert(classifier, image_shape=SHAPE, on_record=told.append, **quick)
    assert told == inversion.history
    assert [record["step"] for record in told] == [2, 4]


def test_progress_is_shown(
    classifier: nn.Module, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for progress in (True, False):
        quick = QUICK | {"config": netinv.InversionConfig(steps=2), "progress": progress}
        netinv.invert(classifier, image_shape=SHAPE, **quick)
        assert not capsys.readouterr().err  # no bar in a log file
    terminal = io.StringIO()
    for name, value in (("isatty", True), ("fileno", 2)):
        monkeypatch.setattr(terminal, name, lambda value=value: value)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((40, 24)))
    netinv.invert(classifier, image_shape=SHAPE, **quick | {"progress": True})
    last = terminal.getvalue().rsplit("\r", 1)[1].rstrip("\n")
    assert re.match(r"invert 100%, accuracy [01]\.\d{3}, worst [01]\.\d\d", last)
    assert len(last) < 40


def test_it_is_tried_again_while_a_class_is_missing_and_the_best_attempt_counts(classifier: nn.Module) -> None:
    brief: dict[str, Any] = QUICK | {"config": netinv.InversionConfig(steps=8, log_every=8), "image_shape": SHAPE}
    alone = [netinv.invert(classifier, **brief, seed=seed) for seed in (5, 6, 7)]
    assert all(inversion.missing for inversion in alone)  # so that none of them ends the attempts
    steps: list[float] = []
    with pytest.warns(UserWarning, match="Of the classes .* are read as asked"):
        best = netinv.invert(
            classifier, **brief | {"attempts": 3}, seed=5, on_record=lambda record: steps.append(record["step"])
        )
    assert steps == [8, 8, 8]
    expected = max(alone, key=lambda inversion: (-len(inversion.missing), inversion.accuracy))
    assert best.class_accuracy == expected.class_accuracy
    torch.testing.assert_close(best.sample(4), expected.sample(4))
    with pytest.raises(InputError, match="attempts is 0: give 1 or more"):
        netinv.invert(classifier, **brief | {"attempts": 0})


def test_missing_classes_are_those_below_nine_in_ten(classifier: nn.Module, tmp_path: Path) -> None:
    inversion = netinv.invert(classifier, image_shape=SHAPE, **QUICK | {"config": netinv.InversionConfig(steps=2)})
    adapted = adapt(classifier, SHAPE)
    accuracies = class_accuracies(inversion.generator, adapted, inversion.config)
    assert inversion.class_accuracy == accuracies
    assert inversion.missing == tuple(str(label) for label, share in enumerate(accuracies) if share < 0.9) != ()
    inversion.save(tmp_path / "inversion")
    assert Inversion.load(tmp_path / "inversion").missing == inversion.missing


def test_what_makes_an_inversion_doubtful_is_a_warning() -> None:
    seed_torch(0)
    network = ConvNet(in_channels=1)
    norm = network.convolutions[1]
    norm.num_batches_tracked.fill_(1)
    quick: dict[str, Any] = QUICK | {"config": netinv.InversionConfig(steps=1, batch_size=50)}
    said = "Its first batch norm remembers"
    for variance, times in ((1e5, 1), (1.0, 0)):
        norm.running_var.fill_(variance)
        with warnings.catch_warnings(record=True, action="always") as warned:
            netinv.invert(network, image_shape=(1, 8, 8), **quick)
        doubts = [warning for warning in warned if warning.category is DoubtfulClassifier]
        assert sum(said in str(warning.message) for warning in doubts) == times
        assert all(warning.filename == __file__ for warning in doubts)
