"""Every usual mistake provoked on a trained classifier, and caught in words; and silence where there is none."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from coloured import CLASSES, NORMALISED, SHAPE, codes, message, trained
from draws import seed_torch, torch_rng
from foreign_networks import (
    NETWORKS,
    ConvHead,
    ConvNet,
    K,
    LogProbabilities,
    NamedOutput,
    PairOutput,
    Probabilities,
)
from foreign_networks import same as alike
from torch import Tensor, nn

from netinv.classifiers import AdapterConfig, ClassifierSource, adapt, check_classifier, load_network, near_chance
from netinv.classifiers.calls import frozen
from netinv.classifiers.findings import as_found
from netinv.data import LabelledImages


def test_no_fault_is_found_where_there_is_none(network: nn.Module, data: LabelledImages) -> None:
    report = check_classifier(network, SHAPE, CLASSES, NORMALISED, data)
    assert report.findings == ()
    assert report.ok
    assert report.accuracy is not None
    assert report.accuracy > 0.95
    assert report.num_images == 300
    assert (report.num_classes, report.feature_dim, report.feature_layer, report.output) == (6, 24, "out", "logits")
    assert report.output_range is not None
    assert report.output_range[0] < 0 < report.output_range[1]
    assert report.images_per_second is not None
    assert report.images_per_second > 10
    assert report.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_no_error_is_found_in_any_family_and_it_is_left_as_found(name: str) -> None:
    seed_torch(0)
    network = NETWORKS[name]()
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network)
    config = {"perceptron": {"input_shape": (768,)}, "mapping": {"output_entry": "logits"}}.get(name, {})
    report = check_classifier(network, SHAPE, K, AdapterConfig.parse(config))
    assert report.ok
    assert codes(report) <= {"untrained"}  # some fresh networks seem as untrained as they are
    assert "data" in codes(report, "note")
    assert [module.training for module in network.modules()] == modes
    assert alike(network, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_probabilities_taken_for_logits() -> None:
    report = check_classifier(Probabilities(), SHAPE, adapter=AdapterConfig(output="logits"))
    assert codes(report, "error") == {"output"}
    assert message(report, "output").startswith("Probabilities are taken for logits")
    assert codes(check_classifier(Probabilities(), SHAPE), "error") == set()  # found out by itself


@pytest.mark.parametrize(
    ("network", "believed", "words"),
    [
        (ConvNet(), "probabilities", "Logits are taken for probabilities"),
        (LogProbabilities(), "probabilities", "Log-probabilities are taken for probabilities"),
        (Probabilities(), "log_probabilities", "Probabilities are taken for log-probabilities"),
    ],
)
def test_other_outputs_taken_for_what_they_are_not(network: nn.Module, believed: Any, words: str) -> None:
    report = check_classifier(network, SHAPE, adapter=AdapterConfig(output=believed))
    assert codes(report, "error") == {"output"}
    assert words in message(report, "output")


def test_sigmoids() -> None:
    report = check_classifier(nn.Sequential(ConvNet(), nn.Sigmoid()), SHAPE)
    assert codes(report) - {"untrained"} == {"output"}
    assert "sigmoid" in message(report, "output")


class Times(nn.Module):
    """Scores at another temperature."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Any:
        return self.factor * self.network(images)


def test_scores_that_are_small_by_design_are_told_how_to_grow(data: LabelledImages) -> None:
    seed_torch(0)
    network = trained(ConvNet(num_classes=CLASSES), lambda images: images)
    cool = Times(network, 1e-3)
    told = message(check_classifier(cool, SHAPE), "untrained")
    assert "If they are small by design (cosine, squared error, temperature), wrap it so that it gives " in told
    report = check_classifier(cool, SHAPE, data=data)
    assert codes(report) == {"output"}
    factor = re.search(r"right but small, .* gives (\S+) times as much", message(report, "output"))
    assert factor is not None
    assert check_classifier(Times(network, 1e-3 * float(factor[1])), SHAPE, data=data).findings == ()
    images, labels = data.images, data.labels.clone()
    labels[::3] = (labels[::3] + 1) % CLASSES
    labels[1::3] = (labels[1::3] + 2) % CLASSES  # right for a third, twice as much as by guessing
    assert codes(check_classifier(cool, SHAPE, data=LabelledImages(images, labels))) == {"output"}


def test_training_mode_is_noted(network: nn.Module) -> None:
    network.train()
    try:
        report = check_classifier(network, SHAPE, adapter=NORMALISED)
        assert network.training
    finally:
        network.eval()
    assert codes(report, "note") == {"train_mode", "data"}
    assert report.ok


def test_modules_in_a_plain_list_are_noted() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Flatten(), nn.Linear(4, 2)
            self.order = [self.body, self.head]

    network = nn.Sequential(Listed())
    assert not [*as_found(network, AdapterConfig())]
    network[0].extra = {"norm": nn.BatchNorm2d(3)}
    (noted,) = as_found(network.eval(), AdapterConfig())
    assert (noted.severity, noted.code) == ("note", "train_mode")
    assert noted.message.startswith("Modules stand in a plain list (0.extra), where torch does not find them")


def test_a_program_whose_batch_norm_keeps_no_statistics(tmp_path: Path) -> None:
    network = ConvNet().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    torch.export.save(torch.export.export(network, (torch.rand(4, *SHAPE),)), tmp_path / "network.pt2")
    report = check_classifier(*load_network(ClassifierSource(model=str(tmp_path / "network.pt2"))))
    assert codes(report) - {"untrained"} == {"batch_dependent"}
    assert "keeps no running statistics" in message(report, "batch_dependent")


def test_a_module_whose_batch_norm_keeps_no_statistics() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.Flatten(), nn.Linear(1568, K)
    )
    told = message(check_classifier(network, SHAPE), "batch_dependent")
    assert "keeps no running statistics (train or load it with them)" in told


def test_a_script_made_for_inference_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.optimize_for_inference(
            torch.jit.script(nn.Sequential(*ConvNet().eval().convolutions, nn.Flatten(), nn.Linear(64, K)).eval())
        )
    told = message(check_classifier(script, SHAPE), "gradients")
    assert "Give the script as it was before torch.jit.optimize_for_inference" in told


def test_a_graph_without_the_backward_pass_that_was_written_for_it() -> None:
    class Cut(ConvNet):
        def forward(self, images: Tensor) -> Any:
            return super().forward(images).detach()

    told = message(check_classifier(torch.fx.symbolic_trace(Cut().eval()), SHAPE), "gradients")
    assert "An export keeps no backward pass of one's own (autograd.Function): give a factory" in told


def test_dropout_that_does_not_heed_the_mode() -> None:
    class Restless(ConvNet):
        def forward(self, images: Tensor) -> Any:
            return self.out(F.dropout(self.embed(images)))

    report = check_classifier(Restless(), SHAPE)
    assert codes(report) - {"untrained"} == {"random"}
    assert "training=self.training" in message(report, "random")


def test_constant_output() -> None:
    network = ConvNet()
    with torch.no_grad():
        network.out.weight.zero_()
        network.out.bias.copy_(torch.linspace(0.1, 0.9, 10))  # and no sigmoid for each class
    report = check_classifier(network, SHAPE)
    assert codes(report, "error") == {"constant"}
    assert "output" not in codes(report)
    assert "same scores for every made-up image" in message(report, "constant")


def test_one_class_for_everything(network: nn.Module, data: LabelledImages) -> None:
    biased = ConvNet(num_classes=CLASSES)
    biased.load_state_dict(network.state_dict())
    with torch.no_grad():
        biased.out.bias[2] += 1e4
    report = check_classifier(biased, SHAPE, adapter=NORMALISED, data=data)
    assert codes(report) == {"constant"}
    assert "takes all 300 images for class 2" in message(report, "constant")


def test_labels_that_have_nothing_to_do_with_the_classifier(network: nn.Module, data: LabelledImages) -> None:
    shuffled = data.labels[torch.randperm(300, generator=torch_rng(2))]
    report = check_classifier(network, SHAPE, adapter=NORMALISED, data=data._replace(labels=shuffled))
    assert codes(report) == {"accuracy"}
    assert "hardly better than chance" in message(report, "accuracy")


@pytest.mark.parametrize(
    ("classes", "near", "beyond"), [(2, 270, 280), (10, 90, 100), (50, 15, 25), (300, 4, 16), (1000, 2, 8)]
)
def test_chance_is_that_of_so_many_classes(classes: int, near: int, beyond: int) -> None:
    """Of 500 images, as many of each class, so many are read right, and the others as the next class."""
    labels = torch.arange(500) % classes
    reads_pixels = adapt(nn.Flatten(), (1, 1, classes))
    told = []
    for right in (near, beyond):
        read = (labels + (torch.arange(500) >= right)) % classes
        images = 255 * F.one_hot(read, classes).to(torch.uint8)[:, None, None]
        told.append(near_chance(reads_pixels, LabelledImages(images, labels)))
    assert told[0] is not None
    assert f"{near / 500:.3f} is hardly better than chance" in told[0]
    assert told[1] is None


def test_distances(network: nn.Module, data: LabelledImages) -> None:
    """The nearest class is that of the smallest score."""
    report = check_classifier(Times(network, -1.0), SHAPE, adapter=NORMALISED, data=data)
    assert codes(report) == {"accuracy"}
    assert "smallest score is right more often" in message(report, "accuracy")
    other = check_classifier(network, SHAPE, adapter=NORMALISED, data=data)
    told = re.findall(r"\(([0-9.]+)\): if it gives distances", message(report, "accuracy"))
    assert [float(x) for x in told] == [pytest.approx(other.accuracy, abs=0.01)]


@pytest.mark.parametrize("believed", [4, 7])
def test_another_number_of_classes_than_believed(network: nn.Module, believed: int) -> None:
    report = check_classifier(network, SHAPE, believed, NORMALISED)
    assert codes(report, "error") == {"num_classes"}
    assert message(report, "num_classes") == (
        f"The classifier gives 6 scores for each image, but num_classes is {believed}."
    )
    assert report.num_classes == 6


def test_labels_that_the_classifier_does_not_know(network: nn.Module, data: LabelledImages) -> None:
    report = check_classifier(network, SHAPE, adapter=NORMALISED, data=data._replace(labels=data.labels + 1))
    assert codes(report, "error") == {"num_classes"}
    assert "labels up to 6, but the classifier knows 6 classes" in message(report, "num_classes")
    fewer = LabelledImages(data.images[data.labels < 5], data.labels[data.labels < 5])
    assert codes(check_classifier(network, SHAPE, adapter=NORMALISED, data=fewer)) == {"num_classes"}


def test_images_of_another_shape(network: nn.Module, data: LabelledImages) -> None:
    report = check_classifier(network, SHAPE, adapter=NORMALISED, data=data._replace(images=data.images[:, :, :8]))
    assert codes(report, "error") == {"data"}


def test_what_cannot_be_used_at_all_is_a_finding_too() -> None:
    report = check_classifier(ConvNet(1), SHAPE)
    assert codes(report, "error") == {"unusable"}
    assert "to have 1 channels, but got 3" in message(report, "unusable")
    assert codes(check_classifier(NamedOutput(), SHAPE), "error") == {"unusable"}
    assert codes(check_classifier(PairOutput(), SHAPE, num_classes=24), "error") == set()  # the other entry fits


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            {"image_shape": (3, 20, 20)},
            "unusable",
            r"adapted already, with image_shape \(3, 16, 16\), not \(3, 20, 20\)",
        ),
        ({"adapter": AdapterConfig(output="sigmoid")}, "unusable", "adapted already, with adapter "),
        ({"num_classes": 4}, "num_classes", "adapted already, with num_classes 6, not 4"),
    ],
)
def test_an_adapted_classifier_is_checked_as_it_is(
    network: nn.Module, data: LabelledImages, arguments: dict[str, Any], code: str, told: str
) -> None:
    adapted = adapt(network, SHAPE, config=NORMALISED)
    assert check_classifier(adapted, SHAPE, data=data).findings == ()
    assert check_classifier(adapted, SHAPE, CLASSES, NORMALISED, data).feature_layer == "out"
    report = check_classifier(adapted, **{"image_shape": SHAPE} | arguments)
    assert codes(report, "error") == {code}
    assert re.search(told, message(report, code))


def test_logits_that_stand_in_for_features() -> None:
    class Templates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.templates = nn.Parameter(torch.randn(5, 768))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ self.templates.T

    assert "features" in codes(check_classifier(Templates(), SHAPE), "note")
    assert "features" not in codes(check_classifier(ConvHead(), SHAPE), "note")


def test_nothing_is_learned_from_the_check(network: nn.Module, data: LabelledImages) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_classifier(network, SHAPE, adapter=NORMALISED, data=data)
    with frozen(network):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
