"""Classifiers from every source, and what each source is refused for."""

import argparse
import io
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from draws import seed_torch, torch_rng
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn
from zoo import Bomb, ConvNet, InPlace, K, NamedOutput, Probabilities, Residual

from netinv.classifiers import (
    AdaptedClassifier,
    ClassifierSource,
    ConvClassifierConfig,
    import_classifier,
    load_classifier_from,
    load_network,
    save_classifier,
)
from netinv.classifiers.calls import frozen
from netinv.classifiers.networks import ConvClassifier
from netinv.classifiers.weights import load_weights, read_tensors
from netinv.core import InputError

SHAPE = (3, 16, 16)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch_rng(1))


# Weights


@pytest.fixture(scope="module")
def network() -> nn.Module:
    seed_torch(3)
    return ConvNet()


def wrapped(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def within(wrapper: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they are where the convolutions alone are wrapped."""
    return {re.sub("^convolutions", f"convolutions.{wrapper}", name): tensor for name, tensor in state.items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"state_dict": wrapped("module.", state)},
        lambda state: {"model_state": wrapped("_orig_mod.", state), "options": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict": wrapped("model.net.", state) | {"loss.weight": torch.ones(3)}},
        lambda state: {"a": {"b": {"c": state}}, "accuracy": np.float64(0.9), "seen": np.int64(3)},
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: wrapped("module._orig_mod.", state) | {"n_averaged": torch.tensor(3)},
        lambda state: {"ema": None, "module": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda state: wrapped("_fsdp_wrapped_module.", within("_fsdp_wrapped_module", state)),
        lambda state: {"state_dict": within("_checkpoint_wrapped_module", state)},
        lambda state: within("_orig_mod", state),
        lambda state: {"arch": "vgg", "state_dict": within("module", state)},
    ],
    ids=[
        *("plain", "nested", "data parallel", "compiled", "lightning", "numpy", "no counters", "averaged", "deepspeed"),
        *("sharded layers", "recomputed layers", "compiled layers", "data parallel layers"),
    ],
)
def test_finds_the_weights_in_a_checkpoint(layout: Any, network: nn.Module, tmp_path: Path) -> None:
    torch.save(layout(network.state_dict()), tmp_path / "weights.pt")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "weights.pt")
    assert same(network, fresh)


def test_safetensors(network: nn.Module, tmp_path: Path) -> None:
    save_file(wrapped("module.", network.state_dict()), tmp_path / "weights.safetensors")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "weights.safetensors")
    assert same(network, fresh)


def test_what_a_file_is_its_content_tells(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "6f1ed0")
    torch.save(network.state_dict(), tmp_path / "a0c3.safetensors")
    torch.save(network.state_dict(), tmp_path / "b1d4.tar", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        fresh = ConvNet()
        load_weights(fresh, path)
        assert same(network, fresh), path


@pytest.mark.parametrize("save", [save_file, torch.save])
def test_an_index_of_shards_that_lie_beside_it(save: Any, network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    place = {name: f"model-0000{i % 3}-of-00003.bin" for i, name in enumerate(state)}
    for file in {*place.values()}:
        save({name: tensor for name, tensor in state.items() if place[name] == file}, tmp_path / file)
    index = tmp_path / "model.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))
    fresh = ConvNet()
    load_weights(fresh, index)
    assert same(network, fresh)
    (tmp_path / "model-00001-of-00003.bin").unlink()
    with pytest.raises(InputError, match=r"model-00001-of-00003\.bin is not a readable file of weights .*No such file"):
        load_weights(fresh, index)


@pytest.mark.parametrize("place", ["../weights.bin", "/weights.bin", "", "..", "index.json", "\0"])
def test_an_index_reaches_nothing_else(place: str, network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    torch.save(network.state_dict(), tmp_path / "weights.bin")
    index = tmp_path / "here/index.json"
    for content in ({"weight_map": {"out.weight": place}}, {"weight_map": {}}, {"hidden_size": 3}, []):
        index.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"no index of files of weights that lie|not a readable file of"):
            read_tensors(index)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight


def test_a_weight_that_is_tied_to_another_may_be_missing(tmp_path: Path) -> None:
    network, fresh = Tied(), Tied()
    save_model(network, str(tmp_path / "weights.safetensors"))
    assert len(load_file(tmp_path / "weights.safetensors")) == 3
    load_weights(fresh, tmp_path / "weights.safetensors")
    assert same(network, fresh)
    save_file({"a.bias": torch.ones(4), "b.bias": torch.ones(4)}, tmp_path / "biases.safetensors")
    with pytest.raises(InputError, match=r"it lacks a\.weight, b\.weight"):
        load_weights(fresh, tmp_path / "biases.safetensors")


def test_a_network_with_wrapped_layers_takes_the_weights_of_a_plain_one(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"ema": {"module": network.state_dict()}}, tmp_path / "weights.pt")
    for prefix in (None, "ema", "ema.module"):
        fresh: Any = ConvNet()
        fresh.convolutions = nn.DataParallel(fresh.convolutions)
        load_weights(fresh, tmp_path / "weights.pt", prefix)
        assert torch.equal(fresh.convolutions.module[0].weight, network.get_parameter("convolutions.0.weight"))


class Teacher(nn.Linear):
    """Two weights that are told apart by the name of a wrapper alone."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.module = nn.Linear(4, 4)


@pytest.mark.parametrize("prefix", ["", "state_dict."])
def test_names_that_tell_weights_apart_are_kept(prefix: str, tmp_path: Path) -> None:
    network, fresh = Teacher(), Teacher()
    torch.save(wrapped(prefix, network.state_dict()), tmp_path / "weights.pt")
    load_weights(fresh, tmp_path / "weights.pt")
    assert same(network, fresh)


def test_a_whole_training_checkpoint_with_its_optimizer(tmp_path: Path) -> None:
    network = ConvNet()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(4, *SHAPE)).sum().backward()
    optimizer.step()
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, tmp_path / "last.pth")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "last.pth")
    assert same(network, fresh)


def test_of_several_weights_one_must_be_named(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": ConvNet().state_dict(), "ema": {"module": network.state_dict()}}, path)
    fresh = ConvNet()
    with pytest.raises(InputError, match=r"fit in 2 places: name one as weights_prefix: model, ema\.module"):
        load_weights(fresh, path)
    load_weights(fresh, path, "ema.module")
    assert same(network, fresh)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Residual, "it lacks convolutions.0.weight.* and it has stem.weight"),
        (NamedOutput, "has projection.weight, projection.bias, which the network has not"),
        (lambda: ConvNet(num_classes=7), r"out.weight is \(7, 24\), not \(10, 24\)"),
        (lambda: nn.PReLU(), "it has weight where the network has convolutions.0.weight"),
    ],
)
def test_says_why_weights_do_not_fit(other: Any, message: str, tmp_path: Path) -> None:
    torch.save(other().state_dict(), tmp_path / "weights.pt")
    fresh = ConvNet()
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_weights(fresh, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


def test_weights_are_never_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": ConvNet().state_dict(), "more": Bomb()}, tmp_path / "bomb.pt")
    torch.save(ConvNet(), tmp_path / "module.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("bomb.pt", "module.pt", "bare.pt"):
        with pytest.raises(InputError, match="holds Python objects, which are not unpickled"):
            read_tensors(tmp_path / name)
    assert "exploded" not in sys.modules


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_and_missing_weights(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable file of weights"):
        read_tensors(tmp_path / name)
    for content in (b"", b"PK\3\4 cut", b"\x40" + bytes(7) + b"{ cut", broken_archive()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a readable file of weights"):
            read_tensors(tmp_path / name)


def broken_archive() -> bytes:
    """Its end is there, and what stands before that is not."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return file.getvalue().replace(b"PK\1\2", b"PK\1\3")


# Torchvision


def test_torchvision_with_a_file_of_weights(images: Tensor, tmp_path: Path) -> None:
    network = torchvision.models.resnet18(num_classes=K)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    source = ClassifierSource(
        model="torchvision:resnet18", weights=str(tmp_path / "weights.pth"), num_classes=K, image_shape=SHAPE
    )
    classifier = load_classifier_from(source)
    torch.testing.assert_close(classifier(images), AdaptedClassifier(network, SHAPE)(images))
    assert classifier.feature_layer == "fc"
    assert not any(module.training for module in classifier.network.modules())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of downloads in which SqueezeNet's published weights lie, in name only."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name
    path = tmp_path / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    return path


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"])
def test_torchvision_with_its_own_weights(weights: str, hub: Path) -> None:
    source = ClassifierSource(model="torchvision:squeezenet1_1", weights=weights, image_shape=(3, 64, 64))
    classifier = load_classifier_from(source)
    assert classifier.num_classes == 1000
    assert classifier.config.mean == (0.485, 0.456, 0.406)
    assert classifier.input_shape == (3, 224, 224)
    assert classifier.image_shape == (3, 64, 64)
    assert same(classifier.network, _with(torch.load(hub, weights_only=True)))


def published(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    """Weights as torchvision's server would give them."""
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(state))


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_torchvision_inceptions_take_imagenets_normalisation(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their published weights want other pixels than the others', and torchvision's builders see to that."""
    network = torchvision.models.get_model(name, init_weights=False)
    published(monkeypatch, network.state_dict())
    source = ClassifierSource(model=f"torchvision:{name}", weights="DEFAULT", image_shape=(3, 96, 96))
    loaded = load_network(source)
    assert loaded.module.transform_input is True
    assert loaded.adapter.mean == (0.485, 0.456, 0.406)
    kept = import_classifier(source, tmp_path)  # and it stays so where the folder goes
    assert kept.network.transform_input is True
    assert load_network(ClassifierSource(model=str(tmp_path))).module.transform_input is True


def test_torchvision_densenets_have_their_old_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = torchvision.models.densenet121()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    published(monkeypatch, old)
    for weights in ("DEFAULT", str(tmp_path / "densenet.pth")):
        loaded = load_network(
            ClassifierSource(model="torchvision:densenet121", weights=weights, image_shape=(3, 64, 64))
        )
        assert same(loaded.module, network)


def test_torchvision_transformers_are_of_their_weights_size(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torchvision.models.vision_transformer.VisionTransformer(384, 16, 1, 12, 768, 3072)
    published(monkeypatch, module.state_dict())

    def build(image_size: int = 224) -> nn.Module:
        return torchvision.models.vision_transformer.VisionTransformer(image_size, 16, 1, 12, 768, 3072)

    monkeypatch.setattr("torchvision.models.get_model_builder", lambda name: build)
    source = ClassifierSource(model="torchvision:vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")
    assert load_network(source).image_shape == (3, 384, 384)
    with pytest.raises(InputError, match=r"do not fit vit_b_16 with \{'image_size': 224\} \(size mismatch for enc"):
        load_network(source.model_copy(update={"arguments": {"image_size": 224}}))


def _with(state: dict[str, Tensor]) -> nn.Module:
    network = torchvision.models.squeezenet1_1()
    network.load_state_dict(state)
    return network


def test_torchvision_without_a_network_says_which_file_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(InputError, match=r"cannot be downloaded .*: fetch https://\S+resnet18-\w+\.pth yourself"):
        load_classifier_from(ClassifierSource(model="torchvision:resnet18", weights="DEFAULT"))


# Factories and the rest


def test_factory_in_the_current_folder(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text("import zoo\n\n\ndef build(k):\n    return zoo.Probabilities(3, k)\n")
    network = Probabilities(3, 7)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    source = ClassifierSource(
        model="my_models:build", arguments={"k": 7}, weights="weights.safetensors", image_shape=SHAPE
    )
    classifier = load_classifier_from(source)
    assert classifier.num_classes == 7
    assert classifier.output == "probabilities"
    torch.testing.assert_close(classifier(images), AdaptedClassifier(network, SHAPE)(images))
    assert sys.path == path


def test_checkpoint_of_this_library(tmp_path: Path) -> None:
    network = ConvClassifier(ConvClassifierConfig(channels=(4,)), K, (1, 8, 8), (0.5,), (0.5,))
    save_classifier(tmp_path, network)
    classifier = load_classifier_from(ClassifierSource(model=str(tmp_path)))
    images = torch.rand(3, 1, 8, 8)
    with frozen(network):
        expected = network(images, return_features=True)
    for given, wanted in zip(classifier(images, return_features=True), expected, strict=True):
        torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "torchvision:resnet19"}, "torchvision has no classifier 'resnet19'; it has: alexnet, "),
        ({"model": "torchvision:resnet18"}, "does not tell the shape of its images: give image_shape"),
        ({"model": "zoo:Missing"}, "cannot be imported .*has no attribute 'Missing'"),
        ({"model": "no_such_module:build"}, "cannot be imported .*No module named"),
        ({"model": "zoo:ConvNet", "arguments": {"depth": 3}}, "zoo:ConvNet fails .TypeError"),
        ({"model": "zoo:dict"}, "cannot be imported|gives a dict"),
        ({"model": "collections:OrderedDict"}, "gives a OrderedDict, not a torch.nn.Module"),
        ({"model": "model.onnx"}, "no maintained converter"),
        ({"model": "resnet18"}, "resnet18 is no model: expected torchvision:NAME"),
        ({"model": "/"}, r"/ is no model: .* a folder with a checkpoint \(config.json and weights"),
        ({"model": __file__}, "holds no architecture: name the factory"),
    ],
)
def test_says_what_is_wrong_with_a_source(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_classifier_from(ClassifierSource.parse(settings))


def test_a_source_comes_from_plain_settings() -> None:
    source = ClassifierSource.parse(
        {"model": "zoo:InPlace", "image_shape": [3, 16, 16], "num_classes": 10, "adapter": {"output": "logits"}}
    )
    assert isinstance(load_classifier_from(source).network, InPlace)
    with pytest.raises(InputError, match=r"source\.adapter\.meen is not a known key"):
        ClassifierSource.parse({"model": "zoo:InPlace", "adapter": {"meen": [0.5]}}, where="source")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "network.pt2"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    given = {"model": str(tmp_path / name)} if name == "network.pt2" else {"model": "zoo:ConvNet"}
    if name != "network.pt2":
        given["weights"] = str(tmp_path / name)
    source = ClassifierSource.parse(given | {"image_shape": (3, 16, 16)})
    with pytest.raises(InputError, match=f"{name} is not a readable .* no regular file"):
        load_classifier_from(source)
