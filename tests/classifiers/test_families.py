"""Networks of strangers: each family runs from check to inversion as it is, or is refused in one sentence."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import seed_torch, torch_rng
from foreign_networks import NETWORKS, ByView, Checkpointed, ConvNet, K, PixelsByView, same
from inverting import SHAPE, SHORT, SMALL, invert, refused, usable
from torch import Tensor, nn

import netinv
from netinv.audit import Policy, audit
from netinv.classifiers import AdaptedClassifier, AdapterConfig, check_classifier
from netinv.classifiers.calls import frozen
from netinv.core import InputError
from netinv.data import LabelledImages, to_float
from netinv.evaluation.measures import survival
from netinv.evaluation.samples import observe
from netinv.generators import ConditionedGenerator
from netinv.interpretation import Drawn, InterpretationConfig, interpret

# Most are trained for a step or two only, and say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Of the classes"),
    pytest.mark.filterwarnings("ignore:Was it trained"),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_is_inverted(name: str) -> None:
    config = {
        "perceptron": {"input_shape": (768,)},
        "mapping": {"output_entry": "logits"},
        "pair": {"output_entry": 0},
    }.get(name, {})
    network = NETWORKS[name]()
    before = copy.deepcopy(network)
    usable(network, **config)
    assert network.training
    assert same(network, before)


def test_the_largest_batch_that_a_network_bears_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bounded(ByView):
        def forward(self, images: Tensor) -> Any:
            if len(images) > 13:
                raise ValueError("at most 13 images")
            return super().forward(images)

    data = LabelledImages(
        torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8, generator=torch_rng(0)), torch.arange(40) % K
    )

    class Wrapped(nn.Module):
        """As the finding advises."""

        def __init__(self) -> None:
            super().__init__()
            self.network = Bounded()

        def forward(self, images: Tensor) -> Any:
            return torch.cat([self.network(part) for part in images.split(13)])

    network, told = Bounded(), "takes 13 images at once and not {}: wrap it so"
    for labelled in (None, data):
        report = check_classifier(network, SHAPE, data=labelled)
        assert report.ok
        assert report.images_per_second is not None
        assert told.format(64) in " ".join(finding.message for finding in report.findings)
        assert (report.accuracy is None) == (labelled is None)
    logits, features = AdaptedClassifier(Wrapped(), SHAPE)(to_float(data.images), return_features=True)
    assert len(logits) == len(features) == 40
    with pytest.raises(InputError, match=told.format(50)):
        invert(network)
    monkeypatch.setitem(SHORT, "images_at_once", 13)
    assert len(invert(network).history) == 2


def test_exported_programs_at_hand_are_told_the_way_through_a_file() -> None:
    program = torch.export.export(ByView().eval(), (torch.rand(4, *SHAPE),))
    refused(program, r"is an exported program: write it by torch.export.save\(program, 'network.pt2'\) and give")
    refused(
        program.module(), r"takes no batch of shape \(8, 3, 16, 16\): write it .*, or export it with a dynamic batch"
    )


def test_labelled_images_that_a_network_does_not_bear_are_a_finding() -> None:
    class Choosy(ByView):
        def forward(self, images: Tensor) -> Any:
            if (images == 1).all(dim=(1, 2, 3)).sum() > 3:
                raise ValueError("no white, please")
            return super().forward(images)

    data = LabelledImages(torch.full((20, *SHAPE), 255, dtype=torch.uint8), torch.arange(20) % K)
    report = check_classifier(Choosy(), SHAPE, data=data)
    assert any(finding.code == "data" and "no white, please" in finding.message for finding in report.findings)
    assert not report.ok


@pytest.mark.parametrize("training", [False, True])
def test_a_network_that_is_called_again_for_its_gradients_is_measured_and_left_as_found(training: bool) -> None:
    seed_torch(0)
    network = Checkpointed().train(training)
    before = copy.deepcopy(network)
    usable(network)
    adapted = AdaptedClassifier(network, SHAPE, K)
    images, label = torch.rand(40, *SHAPE, generator=torch_rng(0)), torch.arange(40) % K
    assert netinv.refine(images[:2], network, 3, epsilon=1.0, steps=1).images.shape == (2, *SHAPE)
    samples = observe("real", "reference", images, label, classifier=adapted, evaluator=None)
    assert survival(samples, adapted, [0.01], 1, 10, seed=0).shape == (10, 1)
    parts = {"strangers": None, "leak": None, "reconstruction": None, "membership": None, "agreement": None}
    data = LabelledImages((255 * images).to(torch.uint8), label)
    assert audit(adapted, data, data, Policy.parse(parts)).checks[0].name == "robustness"
    generator = ConditionedGenerator(SMALL, K, SHAPE)
    config = InterpretationConfig.parse(
        {
            "images": 100,
            "measured": 100,
            "dictionary": {"units": 8, "active": 2, "steps": 2},
            "sweep": [],
            "concepts": 2,
            "ascent_steps": 1,
            "resamples": 100,
        }
    )
    found = interpret(adapted, {"standard": Drawn([generator], (1.0, 1.0))}, "abcdefghij", config)
    assert found.results.units
    assert network.training == training
    assert same(network, before)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "shape", "config"),
    [
        (ByView(1), (1, 16, 16), {}),
        (ByView(), (1, 16, 16), {"input_shape": SHAPE}),
        (ByView(1), SHAPE, {"input_shape": (1, 16, 16)}),
        (ByView(), (3, 20, 12), {"input_shape": SHAPE}),
        (ByView(), SHAPE, {"channel_order": "bgr"}),
        (PixelsByView(256), (1, 16, 16), {}),
        (PixelsByView(256), [1, 16, 16], {}),
    ],
    ids=["grey", "grey as colour", "colour as grey", "resized", "bgr", "grey pixels", "a list"],
)
def test_views_work_whatever_is_done_to_the_images(network: nn.Module, shape: Any, config: Any) -> None:
    usable(network, shape, **config)
    invert(network, shape, "robust", **config)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num", [1, 2, 5])
def test_a_network_gets_what_a_loader_gives(num: int, channels: int) -> None:
    shape = (channels, 16, 16)
    seen: list[Tensor] = []
    network = ByView(channels)
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    adapted = AdaptedClassifier(network, shape)
    images = torch.rand(num, 16, 16, channels, generator=torch_rng(0)).permute(0, 3, 1, 2)
    adapted(images)
    assert all(given.stride() == (256 * channels, 256, 16, 1) for given in seen)
    assert all(given.dtype == torch.float32 for given in seen)
    torch.testing.assert_close(seen[-1][:num], images)
    with frozen(network):
        torch.testing.assert_close(adapted(images), network(images.clone(memory_format=torch.contiguous_format)))


@pytest.mark.parametrize("layer", [nn.LazyLinear(10), nn.LazyBatchNorm1d(), nn.Linear(768, 10, device="meta")])
def test_weights_without_values_are_refused(layer: nn.Module) -> None:
    refused(nn.Sequential(nn.Flatten(), layer), "weights without values, of lazy modules or on the device meta")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_of_gradients_is_not_the_inversions(context: Any) -> None:
    network = ByView()
    with context():
        usable(network)


def test_weights_that_bar_gradients_are_refused() -> None:
    with torch.inference_mode():
        network = ByView()
    refused(network, "made in torch.inference_mode")


# What goes wrong inside


class Failing(ByView):
    """Fails from some call on."""

    def __init__(self, good_calls: int = 0) -> None:
        super().__init__()
        self.left = good_calls

    def forward(self, images: Tensor) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyError("mask")
        return super().forward(images)


def test_an_exception_is_told_as_its_authors() -> None:
    line = Failing.forward.__code__.co_firstlineno + 3
    where = rf"batch of shape \(8, 3, 16, 16\) \(KeyError: 'mask', in .*test_families\.py, line {line}\)"
    refused(Failing(), where)
    adapted = AdaptedClassifier(Failing(3), SHAPE)
    adapted(torch.rand(5, *SHAPE))
    with pytest.raises(InputError, match=rf"batch of shape \(5, 3, 16, 16\) .*, line {line}") as caught:
        adapted(torch.rand(5, *SHAPE))
    assert caught.value.__cause__ is not None
    assert not adapted.network.out._forward_pre_hooks


@pytest.mark.parametrize("shape", [(28, 28), (1, 1, 28, 28)])
def test_image_shapes_of_other_lengths(shape: Any) -> None:
    refused(ByView(1), r"image_shape is \(channels, height, width\), such as \(1, 28, 28\)", shape)


class Keeping(ByView):
    """Carries a tensor, and its graph, from call to call."""

    kept: Any = 0

    def forward(self, images: Tensor) -> Any:
        scores = super().forward(images)
        self.kept = 0.5 * self.kept + scores.mean()
        return scores + self.kept


class InPlaceBefore(ConvNet):
    """Changes what gradients need."""

    def forward(self, images: Tensor) -> Any:
        x = self.embed(images)
        scores = self.out(x)
        x += 1
        return scores


def test_networks_that_gradients_fail_in() -> None:
    refused(Keeping(), "keeps tensors from call to call; detach them")
    refused(InPlaceBefore(), r"changes in place what gradients need; write x = x \+ y")


def test_what_changes_in_place_after_a_layer_is_not_taken_for_its_output() -> None:
    class After(ByView):
        def forward(self, images: Tensor) -> Any:
            scores = super().forward(images)
            scores += 1
            return scores

    usable(After())
    hooked = ByView()
    hooked.hidden.register_forward_hook(lambda module, inputs, output: output.mul_(2))
    usable(hooked)
    network = ByView()
    network.out.register_forward_hook(lambda module, inputs, output: inputs[0].detach().zero_())
    images = torch.rand(3, *SHAPE, generator=torch_rng(0))
    _, features = AdaptedClassifier(network, SHAPE)(images, return_features=True)
    torch.testing.assert_close(features, network.embed(images))


# Weights and settings


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    from netinv.classifiers.weights import read_tensors

    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(ByView().eval(), torch.rand(2, *SHAPE)), tmp_path / "script.pt")
    torch.export.save(torch.export.export(ByView().eval(), (torch.rand(2, *SHAPE),)), tmp_path / "program.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, message in (
        ("script.pt", "is a TorchScript archive"),
        ("program.pt", "is an exported program"),
        ("text.pt", "neither safetensors nor written by torch.save"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_tensors(tmp_path / name)
        assert "weights_only" not in str(caught.value)


def test_what_training_leaves_beside_the_weights(tmp_path: Path) -> None:
    from netinv.classifiers.weights import load_weights

    network, fresh = ByView(), ByView()
    torch.save({"state_dict": network.state_dict() | {"criterion.weight": torch.ones(K)}}, tmp_path / "last.pt")
    load_weights(fresh, tmp_path / "last.pt")
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in network.state_dict().items())
    torch.save(network.state_dict() | {"neck.weight": torch.ones(K)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"it has neck\.weight, which the network has not .*leave it out of the file"):
        load_weights(fresh, tmp_path / "other.pt")


@pytest.mark.parametrize("settings", [{"mean": [127.5], "std": [127.5]}, {"mean": [0.5], "std": [58.0]}])
def test_means_and_deviations_above_1_are_refused(settings: Any) -> None:
    with pytest.raises(InputError, match="divide by 255 what is above 1"):
        AdapterConfig.parse(settings)


def test_a_network_that_nobody_trained_is_told_so() -> None:
    report = check_classifier(ByView(), SHAPE)
    assert [finding.code for finding in report.findings if finding.severity == "warning"] == ["untrained"]
    decided = ByView()
    with torch.no_grad():
        decided.out.weight.mul_(100)
    assert check_classifier(decided, SHAPE).ok
    assert "untrained" not in {finding.code for finding in check_classifier(decided, SHAPE).findings}
