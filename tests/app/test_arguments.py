"""What is given wrongly is refused in one sentence, before the work; what is given empty is not taken for nothing."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import torch
from draws import numpy_rng, seed_torch, torch_rng
from foreign_networks import ConvNet
from PIL import Image
from shells import FACTORY, Shell
from torch import nn

import netinv
from netinv.app import command
from netinv.app.inversions import Inversion
from netinv.app.messages import warn_of_random_weights
from netinv.app.parsing import NetworkType, PathType, parse_evaluator
from netinv.audit import Policy, audit
from netinv.classifiers import ClassifierSource
from netinv.core import Config, check_class_names
from netinv.evaluation import EvaluationConfig
from netinv.generators import ConditionedGenerator, draw_images
from netinv.sampling import grid
from tests.conftest import Exported

SHAPE = (3, 8, 8)
MEASURES = EvaluationConfig(
    num_samples=20, vendi_samples=10, attack_steps=1, robust_samples=10, resamples=100, student=None, distillation=None
)
SHORT = Policy(membership=None)
UNITS = netinv.InterpretationConfig.parse(
    {"dictionary": {"units": 12, "active": 3, "steps": 2}, "sweep": [], "images": 100, "measured": 100}
    | {"concepts": 2, "examples": 2, "ascent_steps": 1, "resamples": 100}
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [0, 1, 2, 3]}, r"^classes: 0 is no text: give names in label order"),
        ({"classes": range(10)}, "^classes: 0 is no text"),
        ({"classes": torch.arange(10)}, "^classes is a Tensor: give names in label order, such as"),
        ({"classes": "abcdefghij"}, "^classes is a str: give names"),
        ({"classes": dict.fromkeys(range(10), "a")}, "^classes is a dict: give names"),
        ({"classes": ()}, "^0 class names were given, but the classifier knows 10"),
        ({"seed": 2.0}, r"^The seed is 2\.0: give a whole number"),
        ({"seed": None}, "^The seed is None: give a whole number"),
        ({"attempts": 1.5}, r"^attempts is 1\.5: give a whole number"),
        ({"max_hours": None}, "^max_hours is None: give a number above 0"),
        ({"max_hours": "12"}, "^max_hours is '12': give a number above 0"),
        ({"max_hours": float("nan")}, "^max_hours is nan: give a number above 0"),
        ({"config": {"steps": 3}}, r"^config is a dict: give netinv\.inversion\.InversionConfig\(\.\.\.\)"),
        ({"changes": ["epsilon"]}, r'^changes is a list: give settings by name, such as {"epsilon": 0\.05}'),
        ({"generator": {"width": 8}}, r"^generator is a dict: give netinv\.generators\.Gen"),
    ],
)
@pytest.mark.filterwarnings("ignore:Was it trained")
def test_arguments_of_another_kind_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(netinv.InputError, match=message):
        netinv.invert(ConvNet(), image_shape=SHAPE, progress=False, **arguments)


class Given(NamedTuple):
    """A network, what was made of it, and images."""

    network: nn.Module
    inversion: Inversion
    images: torch.Tensor
    labels: torch.Tensor

    @property
    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images, self.labels

    def check(self, *arguments: Any, **more: Any) -> Any:
        return netinv.check_classifier(self.network, (1, 8, 8), *arguments, **more).findings[0].message

    def interpret(self, inversions: Any, **more: Any) -> Any:
        return netinv.interpret(self.network, inversions, config=UNITS, progress=False, **more)

    def evaluate(self, inversions: Any, config: Any = MEASURES, **more: Any) -> Any:
        return netinv.evaluate(self.network, inversions, config=config, **more)

    def refine(self, images: Any, label: Any, epsilon: Any = 3.0) -> Any:
        return netinv.refine(images, self.network, label, epsilon=epsilon)

    def audit(self, test: Any, policy: Any = SHORT, samples: Any = None, **more: Any) -> Any:
        train: Any = self.pair  # taken, though its type is another
        return audit(self.network, train, test, policy, samples, **more)


@pytest.fixture(scope="module")
def given() -> Given:
    seed_torch(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    generator = ConditionedGenerator(netinv.GeneratorConfig(width=4, max_width=4), 3, (1, 8, 8)).eval()
    inversion = Inversion(generator, netinv.InversionConfig(), [], ("a", "b", "c"), 0.5)
    return Given(network, inversion, torch.rand(30, 1, 8, 8, generator=torch_rng(0)), torch.arange(30) % 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda given: given.interpret(given.inversion, train=given.pair, test=[*given.pair]),
        lambda given: given.evaluate(given.inversion, test=given.pair),
        lambda given: netinv.check_classifier(given.network, (1, 8, 8), data=given.pair).accuracy,
        lambda given: given.refine(given.images.numpy(), given.labels.numpy()),
        lambda given: netinv.ClassifierSource(model="a:b", weights=Path("c")),
        lambda given: given.audit(given.pair, SHORT, given.images),
        lambda given: given.audit(given.pair, SHORT, {"a": given.images.numpy(), "b": (255 * given.images).byte()}),
    ],
)
def test_what_is_meant_is_taken(call: Callable[[Given], Any], given: Given) -> None:
    assert call(given) is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda given: given.interpret("inversion"), "The inversion is a str: give what netinv.invert returns"),
        (lambda given: given.interpret([given.inversion, None]), "The inversion is a NoneType: give what netinv."),
        (lambda given: given.interpret(given.inversion, train=given.images), "The training images are a Tensor: give"),
        (
            lambda given: given.interpret(given.inversion, test=(given.images, [0])),
            "The test images are a Tensor and a list: give netinv.LabelledImages(images, labels), both of",
        ),
        (
            lambda given: given.check(data=netinv.LabelledImages(given.images.numpy(), given.labels)),
            "The labelled images are a ndarray and a Tensor: give",
        ),
        (
            lambda given: given.interpret(given.inversion, classes=("c", "b", "a")),
            "The classes of inversion 0 are a, b, c",
        ),
        (lambda given: given.evaluate([]), "There is no inversion to draw images from: give one at least"),
        (lambda given: given.evaluate({"a": given.inversion}), "The inversion is a dict: give what netinv.invert"),
        (lambda given: given.evaluate(given.inversion, train=given.images), "The training images are a Tensor: give"),
        (
            lambda given: given.evaluate(given.inversion, test=(given.images, given.labels + 1)),
            "the test split has the",
        ),
        (
            lambda given: given.evaluate(given.inversion, classes=("c", "b", "a")),
            "The classes of inversion 0 are a, b, c",
        ),
        (lambda given: given.evaluate(given.inversion, config={}), "config is a dict: give netinv.evaluation.Eval"),
        (lambda given: given.check("3"), "num_classes is '3': give a whole number"),
        (lambda given: given.check(data=[given.pair]), "The labelled images are a list: give netinv.LabelledImages("),
        (
            lambda given: netinv.load_classifier_from("torchvision:resnet18"),
            "torchvision:resnet18 does not tell",
        ),
        (
            lambda given: netinv.load_classifier_from(given.network),
            "source is a Sequential: give netinv.classifiers.",
        ),
        (lambda given: given.refine([1], 1), "The images are a list: give a tensor (N, C, H, W)"),
        (lambda given: given.refine(given.images, "1"), "Labels are needed as whole numbers, and this is '1'"),
        (lambda given: given.refine(given.images, None), "Labels are needed as whole numbers, and this is None"),
        (lambda given: given.refine(given.images, 1, "3"), "epsilon is '3': give a number above 0"),
        (
            lambda given: given.audit(given.pair, SHORT, {"a": given.inversion}),
            "The set of samples a is of the type",
        ),
        (lambda given: given.audit(given.pair, {"seed": 0}), "policy is a dict: give netinv.audit.Policy("),
        (lambda given: given.audit(None), "The test images are a NoneType: give netinv.LabelledImages("),
        (lambda given: netinv.AdapterConfig(mean=0.5), "AdapterConfig.mean: expected a valid tuple, got"),
        (lambda given: netinv.AdapterConfig(means=(0.5,)), "AdapterConfig.means is not a known key (there are: mean,"),
        (
            lambda given: netinv.ClassifierSource(model="a:b", adapter={"std": 1}),
            "ClassifierSource.adapter.std: expected a valid tuple, got 1",
        ),
        (lambda given: given.audit(given.pair, evaluator="x"), "The classifier is a str, not a torch.nn.Module"),
    ],
)
def test_other_things_are_refused_by_every_call(call: Callable[[Given], Any], message: str, given: Given) -> None:
    try:
        said = call(given)  # of a check: what it found
    except netinv.InputError as error:
        said = str(error)
    assert said.startswith(message)


def test_names_of_classes_are_a_sequence_of_texts() -> None:
    check_class_names(["red", "blue"])
    check_class_names(("0", "1"))
    settings: Any = {"units": 3}
    with pytest.raises(netinv.InputError, match=r"^config is a dict: give netinv\.interpretation\.Int"):
        netinv.interpret(ConvNet(), [], config=settings)
    assert netinv.GeneratorConfig.expect(netinv.GeneratorConfig(), "generator") == netinv.GeneratorConfig()
    with pytest.raises(netinv.InputError):
        netinv.GeneratorConfig.expect(Config(), "generator")


def test_one_call_names_its_arguments_as_the_others() -> None:
    report = netinv.check_classifier(
        classifier=ConvNet(), image_shape=SHAPE, num_classes=10, adapter=netinv.AdapterConfig(channel_order="bgr")
    )
    assert report.num_classes == 10
    calls = (netinv.invert, netinv.refine, netinv.interpret, netinv.evaluate, netinv.check_classifier, audit)
    assert [inspect.signature(call).parameters["adapter"].default for call in calls] == [None] * len(calls)
    assert issubclass(netinv.DoubtfulClassifier, UserWarning)
    assert issubclass(netinv.MissingClasses, UserWarning)


def test_an_untrained_network_is_inverted_with_a_warning() -> None:
    seed_torch(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with torch.no_grad():
        network[1].weight.mul_(0.01)
        network[1].bias.zero_()
    with pytest.raises(netinv.DoubtfulClassifier, match=r"^Was it trained.* are these its weights"):  # an error here
        netinv.invert(network, image_shape=SHAPE, progress=False)


def test_a_model_of_torchvisions_without_weights_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_random_weights(ClassifierSource(model="torchvision:resnet18"))
    assert capsys.readouterr().err.startswith("warning: torchvision:resnet18 without weights has random ones: ")
    warn_of_random_weights(ClassifierSource(model="torchvision:resnet18", weights="DEFAULT"))
    warn_of_random_weights(ClassifierSource(model="foreign_networks:ConvNet"))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("invert", *FACTORY, "--set", "steps=5", "--steps", "6"), "Both --steps and --set steps were given"),
        (("invert", *FACTORY, "--classes", ""), "--classes: name 1 of 1 is empty"),
        (("export-classifier", *FACTORY, "--classes", ""), "--classes: name 1 of 1 is empty"),
        (("invert", *FACTORY, "--max-hours", "nan"), "max_hours is nan: give a number above 0"),
    ],
)
def test_what_is_typed_wrongly_is_refused(
    words: tuple[str, ...], message: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = shell(*words, "--out", "x.onnx" if words[0] == "export-classifier" else "x")
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_class_more_than_the_images_have_is_a_warning(shell: Shell, tmp_path: Path) -> None:
    """Such as background; a number of classes that is given is held against the network all the same."""
    rng = numpy_rng(0)
    for split in ("train", "test"):
        for name in ("blue", "red"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
                    tmp_path / split / name / f"{i}.png"
                )
    seed_torch(0)
    words = ("check", *FACTORY, "--argument", "num_classes=3", "--data", tmp_path)
    code, out, _ = shell(*words)
    assert code == 0
    assert "warning: The images have 2 classes, but the classifier knows 3." in out
    code, out, _ = shell(*words, "--num-classes", 2)
    assert code == 1
    assert "error: " in out


def test_a_grid_has_a_scale_and_columns_from_one_on() -> None:
    images = np.zeros((2, 1, 3, 3), np.float32)
    for wrong in ({"scale": -2}, {"scale": 0}, {"columns": 0}, {"columns": -1}):
        with pytest.raises(netinv.InputError, match="give 1 or more"):
            grid([images], 2, (1, 3, 3), **wrong)
    assert grid([images], 2, (1, 3, 3), columns=2, scale=2).shape == (6, 13)


def test_seeds_of_any_size_draw_and_no_others() -> None:
    generator = ConditionedGenerator(netinv.GeneratorConfig(width=4, max_width=4), 2, SHAPE).eval()
    inversion = Inversion(generator, netinv.InversionConfig(), [], ("a", "b"), 0.5)
    assert inversion.sample(2, seed=2**64).shape == (2, *SHAPE)
    assert inversion.grid(seed=2**64).size == inversion.grid().size == (8 * 49 - 1, 2 * 49 - 1)
    for seed in (-1, 1.0):
        wrong: Any = seed
        with pytest.raises(netinv.InputError, match="seed"):
            inversion.grid(seed=wrong)
    state = torch.random.get_rng_state()
    draw_images(generator, 2, seed=3, sharpness=1.0, dropout=True)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_path_on_the_command_line_may_begin_at_home(
    shell: Shell, folder: Path, weights: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ``--out=~/x``, which a shell leaves as it is."""
    types = {"model": NetworkType, "weights": NetworkType, "evaluator": NetworkType}
    for name, each in command.cli.commands.items():
        for param in each.params:
            if isinstance(param.type, click.Path):
                assert isinstance(param.type, PathType), (name, param.name)
            elif param.name in types:
                assert isinstance(param.type, types[param.name]), (name, param.name)
    monkeypatch.setenv("HOME", str(weights.parent))
    told = shell("check", *FACTORY, "--argument", "num_classes=2", f"--weights=~/{weights.name}")[1]
    assert "classifier  foreign_networks:ConvNet" in told
    evaluator = parse_evaluator("foreign_networks:ConvNet", (f"weights=~/{weights.name}",), SHAPE, "cpu")
    assert evaluator.weights == str(weights)
    monkeypatch.setenv("HOME", str(folder))
    assert shell("check", *FACTORY, "--argument", "num_classes=2", "--data=~")[2] == ""
    monkeypatch.setenv("HOME", str(exported.folder))
    out = exported.folder / "at-home.png"
    assert shell("sample", "~/generator-0.onnx", "--out=~/at-home.png")[0] == 0
    assert out.is_file()
    out.unlink()
    told = shell("sample", "~/absent.onnx", "--out=~nobody-of-that-name/x.png")[2]
    assert "~nobody-of-that-name/x.png names the home of a user that this machine does not know" in told


@pytest.mark.parametrize("words", [("--mirror", "", "--out", "x"), ("--out", "")])
def test_an_empty_path_is_refused_by_name(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = shell("fetch", "mnist", *words)
    assert (code, err) == (2, f"error: Invalid value for '{words[0]}': it is empty: name a path.\n")
    assert not list(tmp_path.iterdir())
