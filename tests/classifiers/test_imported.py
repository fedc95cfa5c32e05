"""Networks from elsewhere as checkpoints."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from draws import seed_torch, torch_rng
from foreign_networks import ConvNet, Probabilities, Residual
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from netinv.classifiers import (
    AdapterConfig,
    ClassifierSource,
    ConvClassifierConfig,
    import_classifier,
    imported,
    load_checkpoint,
    load_classifier_from,
    load_network,
    save_classifier,
)
from netinv.classifiers.calls import frozen
from netinv.classifiers.findings import as_found
from netinv.classifiers.networks import ConvClassifier
from netinv.core import InputError
from netinv.export.graphs import classifier_model

SHAPE = (3, 16, 16)
ADAPTER = AdapterConfig(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch_rng(1))


def exported(network: nn.Module, path: Path, batch: object) -> Path:
    with frozen(network):
        program = torch.export.export(network, (torch.rand(2, *SHAPE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def source(kind: str, folder: Path) -> ClassifierSource:
    """A network from elsewhere, from files in ``folder``."""
    seed_torch(0)
    if kind == "factory":
        save_file(Probabilities(3, 7).state_dict(), folder / "factory.safetensors")
        return ClassifierSource(
            model="foreign_networks:Probabilities",
            arguments={"in_channels": 3, "num_classes": 7},
            weights=str(folder / "factory.safetensors"),
            image_shape=SHAPE,
            adapter=ADAPTER,
        )
    if kind == "torchvision":
        network = models.squeezenet1_1(num_classes=4)
        nn.init.ones_(network.classifier[1].bias)  # its logits are cut off below 0
        torch.save({"state_dict": network.state_dict()}, folder / "torchvision.pt")
        return ClassifierSource(
            model="torchvision:squeezenet1_1",
            weights=str(folder / "torchvision.pt"),
            image_shape=SHAPE,
            num_classes=4,
            adapter=AdapterConfig(input_shape=(3, 32, 32)),
        )
    if kind == "program":
        any_batch = torch.export.Dim("n")
        return ClassifierSource(model=str(exported(Residual(), folder / "any.pt2", any_batch)), adapter=ADAPTER)
    assert kind == "program of a fixed batch"
    return ClassifierSource(model=str(exported(ConvNet(), folder / "fixed.pt2", None)))


KINDS = ("factory", "torchvision", "program", "program of a fixed batch")


def test_the_folder_is_all_that_is_needed(images: Tensor, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    expected, named = {}, {}
    for name in KINDS:
        folder = tmp_path / name
        folder.mkdir()
        named[name] = source(name, origin)
        expected[name] = import_classifier(named[name], folder)(images, return_features=True)
    shutil.rmtree(origin)
    for name, (logits, features) in expected.items():
        classifier = load_checkpoint(tmp_path / name, named[name])
        shutil.rmtree(tmp_path / name)
        # As a worker on another machine gets it.
        for copy in (classifier, pickle.loads(pickle.dumps(classifier))):
            given = copy(images, return_features=True)
            torch.testing.assert_close(given[0], logits)
            torch.testing.assert_close(given[1], features)
            assert copy.image_shape == SHAPE


class Extra(ConvNet):
    """Its state is more than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: object) -> None:
        raise AssertionError("a factory gives it")


def spread() -> nn.Module:
    return nn.DataParallel(ConvNet())


def compiled() -> nn.Module:
    network: Any = ConvNet()
    network.convolutions = nn.DataParallel(network.convolutions)
    return cast("nn.Module", torch.compile(network))


@pytest.mark.parametrize("factory", [Extra, spread, compiled])
def test_wrapped_networks_and_those_with_a_state_of_their_own_come_back(
    factory: Callable[[], nn.Module], images: Tensor, tmp_path: Path
) -> None:
    named = ClassifierSource(model=f"{__name__}:{factory.__name__}", image_shape=SHAPE)
    expected = import_classifier(named, tmp_path)
    assert torch.equal(load_checkpoint(tmp_path, named)(images), expected(images))


class Listed(nn.Module):
    """Layers that torch knows nothing of, since they stand in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Flatten(), nn.Linear(768, 5)]

    def forward(self, images: Tensor) -> Any:
        for layer in self.layers:
            images = layer(images)
        return images


class Projected(ConvNet):
    """A projection that is drawn anew, and not stored with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(10, 5), persistent=False)

    def forward(self, images: Tensor) -> Any:
        return super().forward(images) @ self.projection


@pytest.mark.parametrize("factory", [Listed, Projected])
def test_a_factory_of_another_network_at_each_call_is_refused(factory: Callable[[], nn.Module], tmp_path: Path) -> None:
    named = ClassifierSource(model=f"{__name__}:{factory.__name__}", image_shape=SHAPE)
    with pytest.raises(InputError, match=f"{factory.__name__} gives another network at each call: register all that"):
        import_classifier(named, tmp_path)
    notes = [finding.message for finding in as_found(factory().eval(), AdapterConfig())]
    assert any("no weights that torch knows of" in note for note in notes) == (factory is Listed)


def test_a_program_is_known_by_its_content(images: Tensor, tmp_path: Path) -> None:
    program = source("program", tmp_path)
    expected = load_classifier_from(program)
    (tmp_path / "any.pt2").rename(tmp_path / "6f1ed0")
    (tmp_path / "model").mkdir()
    found = program.model_copy(update={"model": str(tmp_path / "6f1ed0")})
    assert torch.equal(import_classifier(found, tmp_path / "model")(images), expected(images))
    assert load_checkpoint(tmp_path / "model").image_shape == SHAPE


def test_it_is_exported_with_all_that_its_adapter_does(images: Tensor, tmp_path: Path) -> None:
    import onnxruntime

    folder = tmp_path / "model"
    folder.mkdir()
    classifier = import_classifier(source("factory", tmp_path), folder)
    session = onnxruntime.InferenceSession(classifier_model(classifier).SerializeToString())
    for num in (1, 5):
        (logits,) = session.run(None, {"images": images[:num].numpy()})
        np.testing.assert_allclose(logits, classifier(images[:num]).detach().numpy(), atol=1e-5)


def test_this_librarys_own_are_read_as_they_are(tmp_path: Path) -> None:
    network = ConvClassifier(ConvClassifierConfig(channels=(4,)), 3, (1, 8, 8), (0.5,), (0.5,))
    save_classifier(tmp_path, network)
    assert isinstance(load_checkpoint(tmp_path), ConvClassifier)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    factory = source("factory", tmp_path)
    import_classifier(factory, folder)
    (folder / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a readable file of weights"):
        load_checkpoint(folder, factory)
    (folder / "config.json").write_text('{"network": "imported"}')
    with pytest.raises(InputError, match=r"config\.json: source"):
        load_checkpoint(folder)


def again_from(folder: Path, source: ClassifierSource) -> ClassifierSource:
    """The folder of an imported classifier as a model, with the factory that it comes from if there is one."""
    if not source.model.startswith("foreign_networks:"):
        return ClassifierSource(model=str(folder))
    return ClassifierSource(model=str(folder), factory=source.model, arguments=source.arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_folder_is_a_model_like_any_other(kind: str, images: Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "imported"
    folder.mkdir()
    first = source(kind, tmp_path)
    expected = import_classifier(first, folder)
    model = again_from(folder, first)
    again = load_classifier_from(model)
    assert torch.equal(again(images), expected(images))
    assert again.config == expected.config
    assert again.image_shape == SHAPE
    adapter = AdapterConfig(mean=(0.1, 0.1, 0.1), std=(1, 1, 1), input_shape=expected.config.input_shape)
    other = load_classifier_from(model.model_copy(update={"adapter": adapter}))
    assert other.config.mean == (0.1, 0.1, 0.1)
    assert not torch.equal(other(images), expected(images))
    with pytest.raises(InputError, match=r"image_shape \(3, 16, 16\), not \(1, 8, 8\): leave it out"):
        load_network(model.model_copy(update={"image_shape": (1, 8, 8)}))
    with pytest.raises(InputError, match=r"holds its own weights: leave out last\.ckpt"):
        load_network(ClassifierSource(model=str(folder), weights="last.ckpt"))
    with pytest.raises(InputError, match="takes no arguments: leave out depth"):
        load_network(ClassifierSource(model=str(folder), arguments={"depth": 3}))


@pytest.mark.parametrize("kind", ["factory", "program", "own"])
def test_a_folder_can_be_imported_and_is_needed_no_more(kind: str, images: Tensor, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    if kind == "own":
        seed_torch()
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
        save_classifier(first, ConvClassifier(ConvClassifierConfig(channels=(8, 8)), 4, SHAPE, mean, std))
    else:
        origin = source(kind, tmp_path)
        import_classifier(origin, first)
    there, here = ClassifierSource(model=str(first)), ClassifierSource(model=str(second))
    if kind != "own":
        there, here = again_from(first, origin), again_from(second, origin)
    expected = load_classifier_from(there)
    import_classifier(there, second)
    shutil.rmtree(first)
    back = load_checkpoint(second, there)
    assert torch.equal(back(images), expected(images))
    assert torch.equal(load_classifier_from(here)(images), expected(images))
    assert torch.equal(pickle.loads(pickle.dumps(back))(images), expected(images))


EVIL = {"model": "os:mkdir", "arguments": {"path": "made"}, "image_shape": [3, 4, 4], "adapter": {}}


def evil(folder: Path, **changes: object) -> Path:
    """A stored model that asks for a folder to be made."""
    folder.mkdir()
    source = EVIL | changes
    (folder / "config.json").write_text(json.dumps({"network": "imported", "source": source}))
    save_file({"weight": torch.zeros(1)}, folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize(
    "named",
    [
        None,
        ClassifierSource(model="os:mkdir"),
        ClassifierSource(model="os:mkdir", arguments={"path": "another"}),
        ClassifierSource(model="os:rmdir", arguments={"path": "made"}),
        ClassifierSource(model="models/mine", factory="foreign_networks:ConvNet", arguments={"path": "made"}),
    ],
)
def test_a_stored_model_calls_nothing_that_settings_do_not_name(
    named: ClassifierSource | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = evil(tmp_path / "model")
    other = r" \(but foreign_networks:ConvNet with .*\)" if named and named.factory else ""
    told = rf"asks to call os:mkdir with .*, which nothing here names{other}: refused.* by --factory os:mkdir, or"
    with pytest.raises(InputError, match=told):
        load_checkpoint(folder, named)
    with pytest.raises(InputError, match="asks to call os:mkdir"):
        load_classifier_from(ClassifierSource(model=str(folder)))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match="asks to call os:mkdir"):
        imported._from_files(files, named)
    with pytest.raises(InputError, match="asks to call os:mkdir"):
        import_classifier(ClassifierSource(model=str(folder)), tmp_path)
    assert not Path("made").exists()


@pytest.mark.parametrize("model", ["os:mkdir", "my-own:mkdir"])
def test_a_stored_model_calls_what_settings_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart of the test above, without which that one would prove nothing."""
    monkeypatch.chdir(tmp_path)
    Path("my-own.py").write_text("from os import mkdir\n")
    named = ClassifierSource(model=model, arguments={"path": "made"})
    with pytest.raises(InputError, match="gives a NoneType"):
        load_checkpoint(evil(tmp_path / "model", model=model), named)
    assert Path("made").is_dir()


@pytest.mark.parametrize("model", ["/etc", "../elsewhere", "/tmp/other.pt2", "x.onnx"])
def test_a_stored_model_lies_in_its_folder(model: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is no part of it"):
        load_checkpoint(evil(tmp_path / "model", model=model), ClassifierSource(model=model))


def test_a_stored_model_fetches_nothing(tmp_path: Path) -> None:
    folder = evil(tmp_path / "model", model="torchvision:resnet18", arguments={"weights": "DEFAULT"})
    with pytest.raises(InputError, match="takes no argument weights"):
        load_checkpoint(folder)
