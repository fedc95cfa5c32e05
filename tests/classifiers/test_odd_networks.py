"""Networks that are sound and unlike most: what is guessed about them may not be held against them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import seed_torch, torch_rng
from torch import Tensor, nn
from torch.nn import functional as F

from netinv import InversionConfig, invert, refine
from netinv.classifiers import (
    AdaptedClassifier,
    AdapterConfig,
    CheckReport,
    ClassifierSource,
    ClassifierTrainingConfig,
    ResidualClassifierConfig,
    behaviour,
    build_classifier,
    check_classifier,
    check_statistics,
    load_classifier_from,
    load_network,
    norms_see_vectors,
    train_classifier,
)
from netinv.classifiers.weights import read_tensors
from netinv.core import InputError, OutOfMemory
from netinv.data import LabelledImages
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionTraining
from tests.classifiers.test_programs import export

COLOURS = LabelledImages(
    torch.randint(0, 256, (60, 3, 8, 8), generator=torch_rng(0), dtype=torch.uint8), torch.arange(60) % 3
)


class Perceptron(nn.Module):
    """Scores as they come, or what a function makes of them."""

    def __init__(self, channels: int, num_classes: int, last: Any = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 16), nn.ReLU(), nn.Linear(16, num_classes))
        self.last = last

    def forward(self, images: Tensor) -> Any:
        scores = self.layers(images)
        return scores if self.last is None else self.last(scores)


class Strict(Perceptron):
    """It bears pixels in [0, 1] alone."""

    def forward(self, images: Tensor) -> Any:
        if images.min() < 0 or images.max() > 1:
            raise ValueError("pixels in [0, 1], please")
        return super().forward(images)


def errors(report: CheckReport) -> list[str]:
    return [finding.message for finding in report.findings if finding.severity == "error"]


def told(*arguments: Any, **named: Any) -> list[str]:
    seed_torch(0)
    return [finding.message for finding in check_classifier(*arguments, **named).findings if finding.severity != "note"]


def test_a_grey_network_is_checked_on_colour_images() -> None:
    report = check_classifier(Perceptron(1, 3), (3, 8, 8), adapter=AdapterConfig(input_shape=(1, 8, 8)), data=COLOURS)
    assert report.num_images == 60
    assert not errors(report)


def test_a_network_that_bears_no_other_pixels_is_checked_with_its_own() -> None:
    report = check_classifier(Strict(3, 3), (3, 8, 8), data=COLOURS)
    assert not errors(report)
    assert report.accuracy is not None
    report = check_classifier(Strict(3, 1, torch.sigmoid), (3, 8, 8), adapter=AdapterConfig(output="sigmoid"))
    assert not errors(report)
    assert (report.output, report.num_classes) == ("sigmoid", 2)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            COLOURS.labels - 1,
            "The labelled images lack their labels: give whole numbers from 0 on, one for each image.",
        ),
        (
            COLOURS.labels.float(),
            "The labelled images lack their labels: give whole numbers from 0 on, one for each image.",
        ),
        (COLOURS.labels[:0], "There are no labelled images."),
    ],
)
def test_labels_that_are_none_are_told(labels: Tensor, words: str) -> None:
    assert words in told(Perceptron(3, 3), (3, 8, 8), data=LabelledImages(COLOURS.images[: len(labels)], labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [3, 10, 200])
def test_probabilities_are_known_in_every_precision(dtype: torch.dtype, num_classes: int) -> None:
    for last, kind in (
        (lambda scores: F.softmax(scores, 1), "probabilities"),
        (lambda scores: F.log_softmax(scores, 1), "log_probabilities"),
        (None, "logits"),
    ):
        assert check_classifier(Perceptron(1, num_classes, last).to(dtype), (1, 8, 8)).output == kind


@pytest.mark.parametrize("num_classes", [3, 1])
def test_a_program_of_one_image_that_squeezes_it_away(num_classes: int, tmp_path: Path) -> None:
    network = Perceptron(1, num_classes, torch.squeeze).eval()
    images = torch.rand(5, 1, 8, 8, generator=torch_rng(1))
    path = export(network, tmp_path / "network.pt2", images[:1])
    adapter = AdapterConfig(output="sigmoid") if num_classes == 1 else AdapterConfig()
    classifier = load_classifier_from(ClassifierSource(model=str(path), adapter=adapter))
    assert classifier.num_classes == max(2, num_classes)
    scores = network.layers(images)
    expected = scores if num_classes > 1 else torch.cat([-scores / 2, scores / 2], dim=1)
    torch.testing.assert_close(classifier(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def build(:", "SyntaxError: "),
        ("build = missing", "NameError: name 'missing' is not defined"),
        ("open('/nonexistent/weights')", "FileNotFoundError: "),
    ],
)
def test_a_factory_whose_module_fails_is_one_sentence(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"factory_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{name}:build cannot be imported \({re.escape(words)}.*check its name"):
        load_network(ClassifierSource(model=f"{name}:build", image_shape=(1, 8, 8)))


def test_weights_reach_a_network_inside_its_wrapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrapped_network.py").write_text(
        "import torch\nfrom tests.classifiers.test_odd_networks import Perceptron\n\n\n"
        "def compiled():\n    return torch.compile(Perceptron(1, 3))\n\n\n"
        "def parallel():\n    return torch.nn.DataParallel(Perceptron(1, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    seed_torch(5)
    network = Perceptron(1, 3)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = torch.rand(4, 1, 8, 8, generator=torch_rng(1))
    for how in ("compiled", "parallel"):
        source = ClassifierSource(model=f"wrapped_network:{how}", weights="weights.pth", image_shape=(1, 8, 8))
        torch.testing.assert_close(load_classifier_from(source)(images), network(images))


def test_a_last_image_alone_joins_the_batch_before() -> None:
    """Batch norm over one pixel of one image would have nothing to take a deviation of."""
    images = torch.randint(0, 256, (129, 1, 4, 4), generator=torch_rng(0), dtype=torch.uint8)
    seed_torch(0)
    classifier = build_classifier(ResidualClassifierConfig(channels=(4, 4, 4)), 3, (1, 4, 4), (0.5,), (0.25,))
    config = ClassifierTrainingConfig(epochs=2, batch_size=64)
    records = list(train_classifier(classifier, LabelledImages(images, torch.arange(129) % 3), config, seed=0))
    assert [record["samples"] for record in records] == [129, 258]


class Brittle(torch.autograd.Function):
    """The identity, which goes back so many times."""

    left = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Brittle.left -= 1
        assert Brittle.left >= 0, "no way back"
        return gradient


TOLD = rf"\(AssertionError: no way back, in .*{Path(__file__).name}, line \d+\)"


@pytest.mark.filterwarnings("ignore:Was it trained")
def test_a_backward_pass_that_fails_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Perceptron(1, 3, Brittle.apply)
    assert re.search(TOLD, " ".join(errors(check_classifier(network, (1, 8, 8)))))
    with pytest.raises(InputError, match=f"backward pass fails {TOLD}"):  # an attack's
        refine(torch.rand(2, 1, 8, 8), network, 1, epsilon=1.0)
    monkeypatch.setattr(Brittle, "left", 3)  # what the check before the work takes
    quick = InversionConfig(steps=2, batch_size=4)
    with pytest.raises(InputError, match=f"backward pass fails {TOLD}"):
        invert(network, image_shape=(1, 8, 8), config=quick, progress=False)


class Apart(nn.Linear):
    """Gives more than its scores."""

    def forward(self, input: Tensor) -> Any:
        return super().forward(input), None


class Peculiar(nn.Module):
    """Calls its layers in ways of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.hidden, self.out = nn.Linear(64, 16), (Apart if how == "tuple" else nn.Linear)(16, 3)

    def embed(self, images: Tensor) -> Tensor:
        return self.hidden(images.flatten(1)).relu()

    def forward(self, images: Tensor) -> Any:
        features = self.embed(images)
        if self.how == "watched":
            features.register_hook(lambda gradient: None)
        scores = self.out(input=features)
        return scores[0] if self.how == "tuple" else scores


@pytest.mark.parametrize("how", ["by name", "tuple", "watched"])
def test_layers_that_are_called_in_ways_of_their_own(how: str) -> None:
    network = Peculiar(how)
    config = AdapterConfig(feature_layer="out" if how == "tuple" else None)
    classifier = AdaptedClassifier(network, (1, 8, 8), config=config)
    assert not [*behaviour(classifier)]
    images = torch.rand(5, 1, 8, 8, generator=torch_rng(1))
    with torch.no_grad():
        logits, features = classifier(images, return_features=True)
        torch.testing.assert_close(features, network.embed(images))
        assert not logits.requires_grad
    with torch.inference_mode():
        assert torch.equal(classifier(images), logits)
    (gradient,) = torch.autograd.grad(classifier(images.requires_grad_()).sum(), images)
    assert gradient.any()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_frozen_script_has_no_mode() -> None:
    network = Perceptron(1, 3).layers.eval()
    images = torch.rand(5, 1, 8, 8, generator=torch_rng(1))
    script = torch.jit.script(network)
    with pytest.raises(InputError, match=r"feature_layer '1' is a script, which cannot be read: leave it out"):
        AdaptedClassifier(script, (1, 8, 8), config=AdapterConfig(feature_layer="1"))
    with pytest.raises(InputError, match=r"\(RuntimeError: mat1 and mat2 shapes cannot be multiplied"):
        AdaptedClassifier(script, (1, 9, 9))
    frozen = torch.jit.freeze(script)
    classifier = AdaptedClassifier(frozen, (1, 8, 8))
    assert {finding.code for finding in behaviour(classifier)} <= {"features"}
    torch.testing.assert_close(classifier(images), network(images))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), None])
def test_missing_memory_is_told_as_such(error: Exception | None) -> None:
    def last(scores: Tensor) -> Tensor:
        if error is not None:
            raise error
        return scores + torch.empty(2**55)

    words = r"out of memory on a batch of shape \(8, 1, 8, 8\): take a smaller batch, or for an inversion set"
    with pytest.raises(OutOfMemory, match=words):
        AdaptedClassifier(Perceptron(1, 3, last), (1, 8, 8))


class Normed(nn.Module):
    """A perceptron with batch norm that sees images whole, patch by patch or one by one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        size = 16 if how == "patches" else 64
        self.layers = nn.Sequential(nn.Linear(size, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "patches":
            patches = F.unfold(images, 4, stride=4).transpose(1, 2).reshape(-1, 16)
            return self.layers(patches).view(len(images), -1, 3).mean(dim=1)
        rows = images.flatten(1)
        return torch.cat([self.layers(row[None]) for row in rows]) if self.how == "one by one" else self.layers(rows)


@pytest.mark.parametrize("how", ["whole", "patches", "one by one"])
def test_batch_norms_that_see_other_rows_than_images(how: str) -> None:
    """Those of patches are compared with what they know when that is asked for, and as little by themselves as maps."""
    classifier = AdaptedClassifier(Normed(how), (1, 8, 8))
    assert norms_see_vectors(classifier) == (how == "whole")
    if how == "one by one":
        with pytest.raises(InputError, match="batch norm layers that see all images of a batch at once: set it to 0"):
            check_statistics(0, 1, classifier)
        return
    check_statistics(0, 1, classifier)
    config = InversionConfig(steps=1, batch_size=4, layer_statistics=1.0)
    generator = ConditionedGenerator(GeneratorConfig(width=2), 3, (1, 8, 8))
    (record,) = InversionTraining(generator, classifier, config, seed=0)
    assert record["layer_statistics"] > 0


class ByName(nn.Module):
    """Takes its images by name alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Perceptron(1, 3)

    def forward(self, *, pixel_values: Tensor) -> Any:
        return self.network(pixel_values)


def test_another_way_of_calling_is_told_with_a_way_on() -> None:
    with pytest.raises(
        InputError, match=r"or wrap it in a module whose forward takes one float tensor \(N, C, H, W\), of any N"
    ):
        AdaptedClassifier(ByName(), (1, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_file_that_is_no_model_is_told_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Perceptron(1, 3).layers.eval()
    torch.jit.save(torch.jit.script(network), tmp_path / "script.pt")
    torch.save(network, tmp_path / "pickled.pt")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    for name, words in (
        ("script", r"is a TorchScript archive: name as the model a factory .* that gives torch.jit.load\(path\)"),
        ("pickled", r"holds Python objects .* by torch.save\(.*\)\. Then name the factory .*, and that file as its"),
        ("weights", r"holds no architecture: name the factory .*, and this file as its weights"),
    ):
        with pytest.raises(InputError, match=rf"^\S*{name}.pt {words}"):
            load_network(ClassifierSource(model=str(tmp_path / f"{name}.pt"), image_shape=(1, 8, 8)))
    (tmp_path / "scripted_factory.py").write_text(
        "import torch\n\n\ndef build():\n    return torch.jit.load('script.pt')\n"
    )
    (tmp_path / "foreign").mkdir()
    for name in ("model-00001.safetensors", "model.safetensors.index.json"):
        (tmp_path / "foreign" / name).touch()
    place = f"{tmp_path}/foreign/model.safetensors.index.json"
    for config in ('{"architectures": ["ViT"], "hidden_size": 8}', '{"architecture": "vit", "num_classes": 8}'):
        (tmp_path / "foreign/config.json").write_text(config)
        with pytest.raises(InputError, match=rf"is no folder of this library: name the factory .*, and {place} as its"):
            load_network(ClassifierSource(model=str(tmp_path / "foreign"), image_shape=(1, 8, 8)))
    with pytest.raises(InputError, match=f"foreign is a folder: name {place} in its place"):
        read_tensors(tmp_path / "foreign")
    monkeypatch.chdir(tmp_path)
    images = torch.rand(4, 1, 8, 8, generator=torch_rng(1))
    classifier = load_classifier_from(ClassifierSource(model="scripted_factory:build", image_shape=(1, 8, 8)))
    torch.testing.assert_close(classifier(images), network(images))
