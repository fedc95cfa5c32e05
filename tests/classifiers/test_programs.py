"""Exported programs: how they run, and what they are refused for."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import torch_rng
from foreign_networks import Bomb, ConvNet, K, NamedOutput, Residual, Transformer
from torch import Tensor, nn

from netinv.classifiers import (
    AdaptedClassifier,
    AdapterConfig,
    ClassifierSource,
    archives,
    load_classifier_from,
)
from netinv.classifiers.calls import frozen
from netinv.core import InputError
from tests.classifiers.test_adapters import Pieces

SHAPE = (3, 16, 16)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch_rng(1))


def export(network: nn.Module, path: Path, images: Tensor, batch: Any = None) -> Path:
    with frozen(network):
        torch.export.save(torch.export.export(network, (images,), dynamic_shapes=({0: batch},)), path)
    return path


# Exported programs


@pytest.mark.parametrize(
    ("network", "batch"),
    [
        (ConvNet(), None),
        (ConvNet(), torch.export.Dim("n")),
        (Residual(), torch.export.Dim("n", max=3)),
        (Transformer(), None),
    ],
    ids=["fixed", "any", "up to 3", "transformer"],
)
def test_exported_program(network: nn.Module, batch: Any, images: Tensor, tmp_path: Path) -> None:
    path = export(network, tmp_path / "network.pt2", images[:2], batch)
    classifier = load_classifier_from(ClassifierSource(model=str(path)))
    assert classifier.image_shape == SHAPE
    given = images.requires_grad_()
    logits, features = classifier(given, return_features=True)
    expected_logits, expected_features = AdaptedClassifier(network, SHAPE)(images, return_features=True)
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features, expected_features, atol=1e-5, rtol=1e-4)
    (logits.sum() + features.sum()).backward()
    assert given.grad is not None
    assert (given.grad.flatten(1).abs().sum(dim=1) > 0).all()
    one = classifier(images[:1].detach())
    torch.testing.assert_close(one, expected_logits[:1].detach(), atol=1e-5, rtol=1e-4)


def test_exported_program_of_core_operations(images: Tensor, tmp_path: Path) -> None:
    network, path = ConvNet().eval(), tmp_path / "network.pt2"
    torch.export.save(torch.export.export(network, (images[:2],)).run_decompositions({}), path)
    classifier = load_classifier_from(ClassifierSource(model=str(path)))
    torch.testing.assert_close(classifier(images), network(images), atol=1e-5, rtol=1e-4)


def test_exported_program_with_a_mapping_and_a_fixed_batch(images: Tensor, tmp_path: Path) -> None:
    network = NamedOutput()
    path = export(network, tmp_path / "network.pt2", images[:2])
    adapter = AdapterConfig(output_entry="logits")
    classifier = load_classifier_from(ClassifierSource(model=str(path), adapter=adapter))
    expected = AdaptedClassifier(network, SHAPE, config=adapter)(images)
    torch.testing.assert_close(classifier(images), expected, atol=1e-5, rtol=1e-4)


def test_exported_program_of_another_size(images: Tensor, tmp_path: Path) -> None:
    path = export(ConvNet(), tmp_path / "network.pt2", images[:2])
    classifier = load_classifier_from(ClassifierSource(model=str(path), image_shape=(1, 8, 8)))
    assert classifier(torch.rand(2, 1, 8, 8)).shape == (2, K)


def with_entry(source: Path, target: Path, ending: str, content: bytes) -> Path:
    """A copy of an archive with one more entry, or another content of the entry with that ending."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        for name in names:
            new.writestr(name, content if name.endswith(ending) else old.read(name))
        if not any(name.endswith(ending) for name in names):
            new.writestr(f"{names[0].split('/')[0]}/{ending}", content)
    return target


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("data/sample_inputs/model.pt", b"bomb"),
        ("data/constants/custom_obj_0", b""),
        ("data/aotinductor/model/model.so", b""),
        ("model_weights_config.json", b'{"config": {"out.weight": {"path_name": "weight_0", "use_pickle": true}}}'),
    ],
)
def test_no_exported_program_is_unpickled(ending: str, content: bytes, images: Tensor, tmp_path: Path) -> None:
    path = export(ConvNet(), tmp_path / "network.pt2", images[:2])
    if content == b"bomb":
        torch.save((Bomb(),), tmp_path / "bomb.pt")
        content = (tmp_path / "bomb.pt").read_bytes()
    crafted = with_entry(path, tmp_path / "crafted.pt2", ending, content)
    with pytest.raises(InputError, match="pickled objects or compiled code"):
        load_classifier_from(ClassifierSource(model=str(crafted)))
    assert "exploded" not in sys.modules


def edited(source: Path, target: Path, old: str, new: str) -> Path:
    """A copy of an archive with a text of its program replaced."""
    with zipfile.ZipFile(source) as archive:
        program = archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json"))).decode()
    assert old in program
    return with_entry(source, target, "models/model.json", program.replace(old, new).encode())


RELU, RANGES, LAST = '"target": "torch.ops.aten.relu.default"', '"range_constraints": {}', '"verifiers"'
SIZES = '"sym_int_values": {}'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (RELU, '"target": "torch.os.system"', "torch.os.system"),
        (RELU, '"target": "torch.ops.aten.from_file.default"', "from_file"),
        (RELU, '"target": "_operator.methodcaller"', "methodcaller"),
        (RELU, '"target": "#call:os"', "#call:os"),
        (SIZES, '"sym_int_values": {"s": {"as_expr": {"expr_str": "().__class__"}}}', "__class__"),
        (SIZES, '"sym_int_values": {"s": {"as_expr": {"expr_str": "exec(s1)"}}}', "exec"),
        (SIZES, """"sym_int_values": {"s": {"as_expr": {"expr_str": "S('exec(1)')"}}}""", "exec"),
        (RANGES, '"range_constraints": {"print(1)": {"min_val": 0, "max_val": 1}}', "print"),
        (LAST, '"default_factory_module": "this", "verifiers"', "a module"),
    ],
)
def test_no_exported_program_runs_python(old: str, new: str, told: str, images: Tensor, tmp_path: Path) -> None:
    path = export(ConvNet(), tmp_path / "network.pt2", images[:2])
    crafted = edited(path, tmp_path / "crafted.pt2", old, new)
    with pytest.raises(InputError, match=f"compiled code .*{told}"):
        load_classifier_from(ClassifierSource(model=str(crafted)))


def test_guards_of_a_program_are_not_executed(images: Tensor, tmp_path: Path) -> None:
    path = export(ConvNet(), tmp_path / "network.pt2", images[:2])
    guard = """__import__('sys').modules.__setitem__('exploded', 1) or True"""
    crafted = edited(path, tmp_path / "crafted.pt2", '"guards_code": []', f'"guards_code": ["{guard}"]')
    load_classifier_from(ClassifierSource(model=str(crafted)))(images[:2])
    assert "exploded" not in sys.modules


def test_a_program_is_in_its_archive_once(images: Tensor, tmp_path: Path) -> None:
    path = export(ConvNet(), tmp_path / "network.pt2", images[:2])
    crafted = with_entry(path, tmp_path / "crafted.pt2", "models/MODEL.JSON", b"{}")
    with pytest.raises(InputError, match=r"compiled code .*models/model\.json"):
        load_classifier_from(ClassifierSource(model=str(crafted)))


def test_structures_within_texts_are_looked_through() -> None:
    context = json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "y"}).replace("enum", "\\u0065num")
    for text in (context, json.dumps([1, {"context": context}]), " " + json.dumps({"context": json.dumps([context])})):
        assert next(archives._foreign({"in_spec": text})).startswith("a module")


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(2), Symbol('s34', positive=True, integer=True))",
        "s34",
        "2*s0 + 1",
        "Max(1, FloorDiv(s7, 2))",
        "u0 >= 2",
        "Mod(s0, 2) ** 2 + 1.5",
    ],
)
def test_formulas_of_sizes_pass(text: str) -> None:
    assert archives._is_formula(text)


def test_what_is_no_exported_program(images: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "network.pt2"
    whole = export(ConvNet(), tmp_path / "whole", images[:2])
    assert load_classifier_from(ClassifierSource(model=str(whole)))(images).shape == (5, K)
    lacking = tmp_path / "lacking.pt2"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(lacking, "w") as new:
        for name in old.namelist():
            if not name.endswith("weights/weight_0"):
                new.writestr(name, old.read(name))
    caplog.clear()
    for content in (None, b"no archive", whole.read_bytes()[:-100], lacking.read_bytes()):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"not a readable exported program .*: export it again"):
            load_classifier_from(ClassifierSource(model=str(path)))
    torch.save(ConvNet().state_dict(), path)
    with pytest.raises(InputError, match="holds no architecture: name the factory"):
        load_classifier_from(ClassifierSource(model=str(path)))
    assert not caplog.records


class Regular(nn.Module):
    """Layers that do something else in training."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.convolution, self.layer, self.linear = nn.Conv2d(3, 4, 3), layer, nn.Linear(4, K)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.layer(self.convolution(images)).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.BatchNorm2d(4), "batch norm"),
        (nn.Dropout(0.5), "dropout"),
        (nn.Dropout(0.0), ""),
        (nn.BatchNorm2d(4, track_running_stats=False), ""),  # takes those of the batch in any case
    ],
)
def test_a_program_that_was_exported_in_training_mode_is_refused(
    layer: nn.Module, name: str, images: Tensor, tmp_path: Path
) -> None:
    network = Regular(layer).train()
    path = tmp_path / "network.pt2"
    torch.export.save(torch.export.export(network, (images,)), path)
    source = ClassifierSource(model=str(path))
    if name:
        with pytest.raises(InputError, match=rf"was exported in training mode \(its {name} is at work\): call \.eval"):
            load_classifier_from(source)
        torch.export.save(torch.export.export(network.eval(), (images,)), path)
    assert load_classifier_from(source)(images).shape == (5, K)


class Constants(nn.Module):
    """It makes tensors by itself, also in a part without gradients, and keeps one that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = torch.linspace(1, 2, 3 * 16 * 16), nn.Linear(3 * 16 * 16, K)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            ones = torch.ones(3 * 16 * 16, device=images.device)
        rows = images.flatten(1).to(images.device, torch.float32) * self.scale * ones
        return self.out(rows + torch.arange(3 * 16 * 16, device=images.device))


@pytest.mark.parametrize("batch", [None, torch.export.Dim("n")], ids=["fixed", "any"])
def test_a_program_goes_to_another_device_as_a_whole(batch: Any, images: Tensor, tmp_path: Path) -> None:
    network = Constants()
    path = export(network, tmp_path / "network.pt2", images[:2], batch)
    classifier = load_classifier_from(ClassifierSource(model=str(path)))
    torch.testing.assert_close(classifier(images), network(images))
    moved = classifier.to("meta").network  # the one other device that every machine has
    scores = moved(torch.empty(5, *SHAPE, device="meta"))
    assert (scores.device.type, scores.shape) == ("meta", (5, K))


@pytest.mark.parametrize("batch", [None, torch.export.Dim("n")], ids=["fixed", "any"])
def test_rows_of_pieces_are_no_features_of_images(batch: Any, images: Tensor, tmp_path: Path) -> None:
    path = export(Pieces(), tmp_path / "network.pt2", images[:2], batch)
    classifier = load_classifier_from(ClassifierSource(model=str(path)))
    logits, features = classifier(images, return_features=True)
    assert torch.equal(features, logits)
