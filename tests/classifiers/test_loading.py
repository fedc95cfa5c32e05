"""Classifiers from every source, and what each source is refused for."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from draws import torch_rng
from foreign_networks import InPlace, K, Probabilities, same
from safetensors.torch import save_file
from torch import Tensor, nn

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
from netinv.classifiers.weights import read_tensors
from netinv.core import InputError
from netinv.generators import ConditionedGenerator, GeneratorConfig, save_generator
from netinv.sampling import OnnxGenerator

SHAPE = (3, 16, 16)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch_rng(1))


# Torchvision


def test_a_generator_is_no_classifier(tmp_path: Path) -> None:
    save_generator(tmp_path, ConditionedGenerator(GeneratorConfig(width=4), K, (1, 9, 8)))
    with pytest.raises(InputError, match="holds a network of the kind 'generator': name the folder of a classifier"):
        load_network(ClassifierSource(model=str(tmp_path)))


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
    assert not any(parameter.requires_grad for parameter in classifier.network.parameters())


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


@pytest.mark.parametrize("name", [pytest.param("inception_v3", marks=pytest.mark.slow), "googlenet"])
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


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_torchvision_without_a_network_says_which_file_to_fetch(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    told = rf"cannot be downloaded \({error}\): fetch https://\S+resnet18-\w+\.pth yourself"
    with pytest.raises(InputError, match=told):
        load_classifier_from(ClassifierSource(model="torchvision:resnet18", weights="DEFAULT"))


@pytest.mark.parametrize("held", [b"<html>Please log in</html>", b"", "half"])
def test_torchvisions_weights_that_are_damaged_are_told_by_their_file(hub: Path, held: Any) -> None:
    whole = hub.read_bytes()
    hub.write_bytes(whole[: len(whole) // 2] if held == "half" else held)
    told = f"^{re.escape(str(hub))}, which has the weights of squeezenet1_1, is damaged: delete it, so that it is"
    with pytest.raises(InputError, match=told):
        load_classifier_from(ClassifierSource(model="torchvision:squeezenet1_1", weights="DEFAULT"))


# Factories and the rest


def test_factory_in_the_current_folder(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "import foreign_networks\n\n\ndef build(k):\n    return foreign_networks.Probabilities(3, k)\n"
    )
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


def test_code_of_the_users_is_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may parse arguments, which are not this command's, and what it prints is no result."""
    (tmp_path / "my_program.py").write_text(
        "import argparse\nfrom foreign_networks import ConvNet\n\nprint('imported')\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--classes', type=int, default=7)\n"
        "K = parser.parse_args().classes\n\n\n"
        "def build():\n    print('built')\n    return ConvNet(num_classes=K)\n\n\n"
        "def strict():\n    parser.add_argument('data')\n    parser.parse_args()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words := ["netinv", "check", "my_program:build"])
    assert load_classifier_from(ClassifierSource(model="my_program:build", image_shape=SHAPE)).num_classes == 7
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "imported\nbuilt\n")
    with pytest.raises(InputError, match=r"^my_program:strict ends the program \(2\) .*: keep what runs as a program"):
        load_classifier_from(ClassifierSource(model="my_program:strict", image_shape=SHAPE))
    assert "usage: my_program" in capsys.readouterr().err
    assert sys.argv == words


def test_a_module_that_stands_there_is_taken_and_left_as_it_is(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built_already.py").write_text(
        "import foreign_networks\n\nmodel = foreign_networks.Probabilities(3, 7)\n"
    )
    network = Probabilities(3, 7)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    source = ClassifierSource(model="built_already:model", weights="weights.safetensors", image_shape=SHAPE)
    classifier = load_classifier_from(source)
    torch.testing.assert_close(classifier(images), AdaptedClassifier(network, SHAPE)(images))
    standing = sys.modules["built_already"].model
    assert standing.training
    assert not torch.equal(next(standing.parameters()), next(network.parameters()))
    assert all(parameter.requires_grad for parameter in standing.parameters())
    with pytest.raises(InputError, match="is a module, not a function: leave out k"):
        load_classifier_from(source.model_copy(update={"arguments": {"k": 7}}))


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
        ({"model": "torchvision:deeplabv3_resnet50"}, "torchvision has no classifier 'deeplabv3_resnet50'; it has: "),
        ({"model": "torchvision:resnet18"}, "does not tell the shape of its images: give image_shape"),
        ({"model": "foreign_networks:Missing"}, "cannot be imported .*has no attribute 'Missing'"),
        ({"model": "no_such_module:build"}, "cannot be imported .*No module named"),
        ({"model": "foreign_networks:ConvNet", "arguments": {"depth": 3}}, "foreign_networks:ConvNet fails .TypeError"),
        ({"model": "foreign_networks:dict"}, "cannot be imported|gives a dict"),
        ({"model": "collections:OrderedDict"}, "gives a OrderedDict, not a torch.nn.Module"),
        (
            {"model": "foreign_networks:ConvNet", "adapter": {"output_entry": -1}},
            "output_entry.* greater than or equal",
        ),
        ({"model": "model.onnx"}, "no maintained converter"),
        ({"model": "resnet18"}, "resnet18 is no model: expected torchvision:NAME"),
        ({"model": "/"}, r"/ is no model: .* a folder with a checkpoint \(config.json and weights"),
        ({"model": __file__}, "is code: name the function in it that builds the network, test_loading:FUNCTION"),
        ({"model": str(Path(__file__).parents[2] / "README.md")}, r"neither safetensors .*\. Then name the factory"),
        ({"model": "foreign_networks.py:Net"}, r"cannot be imported .* write foreign_networks:Net, in the folder /"),
        ({"model": "./mine:Net"}, r"cannot be imported .* write mine:Net, in the folder /"),
        ({"model": "foreign_networks:K"}, "is a int, not a torch.nn.Module: name a function that builds"),
    ],
)
def test_says_what_is_wrong_with_a_source(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_classifier_from(ClassifierSource.parse(settings))


def test_a_source_comes_from_plain_settings() -> None:
    source = ClassifierSource.parse(
        {
            "model": "foreign_networks:InPlace",
            "image_shape": [3, 16, 16],
            "num_classes": 10,
            "adapter": {"output": "logits"},
        }
    )
    assert isinstance(load_classifier_from(source).network, InPlace)
    with pytest.raises(InputError, match=r"source\.adapter\.meen is not a known key"):
        ClassifierSource.parse({"model": "foreign_networks:InPlace", "adapter": {"meen": [0.5]}}, where="source")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("weights.safetensors", read_tensors),
        ("weights.pt", read_tensors),
        ("network.pt2", lambda path: load_network(ClassifierSource(model=str(path)))),
        ("network.bin", lambda path: load_network(ClassifierSource(model=str(path)))),
        ("network.onnx", OnnxGenerator),
    ],
)
def test_what_git_lfs_puts_in_the_place_of_a_file_is_told(name: str, read: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    with pytest.raises(InputError, match=rf"{name} .*\(it is a pointer of git-lfs, in whose place git lfs pull"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "network.pt2"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    given = {"model": str(tmp_path / name)} if name == "network.pt2" else {"model": "foreign_networks:ConvNet"}
    if name != "network.pt2":
        given["weights"] = str(tmp_path / name)
    source = ClassifierSource.parse(given | {"image_shape": (3, 16, 16)})
    with pytest.raises(InputError, match=f"{name} is not a readable .* no regular file"):
        load_classifier_from(source)
