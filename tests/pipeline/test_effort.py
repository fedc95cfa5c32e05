"""Settings that fit neither the data nor the machine are refused before any work."""

from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from draws import torch_rng
from torch import Tensor, nn

from netinv.classifiers import (
    AdaptedClassifier,
    ClassifierSource,
    ConvClassifierConfig,
    adapt,
    build_classifier,
    load_classifier_from,
)
from netinv.core import Config, InputError
from netinv.data import DatasetSpec
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import variant_config
from pipeline import estimates
from pipeline.estimates import LARGE, check_classifier_training, check_inversion, forward_cost
from pipeline.params import ModelParams, load_params

SHAPE = (3, 20, 28)
ABOUT = 5, SHAPE, (0.5,) * 3, (0.5,) * 3


@pytest.fixture
def spec() -> DatasetSpec:
    return DatasetSpec(
        name="shapes",
        classes=tuple("abcde"),
        image_shape=SHAPE,
        num_train=100,
        num_test=50,
        source="",
        licence="",
        checksums={},
    )


@pytest.fixture
def params(root: Path) -> ModelParams:
    return load_params(root / "params.yaml").for_dataset("default").train.classifier


class Direct(nn.Module):
    """A network without layers for a hook: it calls functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(6, 3, 3, 3, generator=torch_rng(1)))
        self.weight = nn.Parameter(torch.rand(5, 6 * 20 * 28, generator=torch_rng(2)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return F.linear(torch.tanh(F.conv2d(images, self.kernel, padding=1)).flatten(1), self.weight)


class Sparse(Direct):
    """One with a weight that has no storage."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.eye(5).to_sparse())

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return torch.sparse.mm(self.order, super().forward(images).T).T


class Differentiating(Direct):
    """One whose gradients within it bear no counting."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits = super().forward
        return logits(images - torch.func.grad(lambda x: logits(x).sum())(images))


def test_operations_and_memory_are_those_worked_out_by_hand() -> None:
    pixels = 20 * 28
    expected = 2 * (6 * 27 + 5 * 6) * pixels, 4 * (3 + 6) * pixels  # images, and what tanh gives, in float32
    for network in (adapt(Direct(), SHAPE, 5), Sparse()):
        assert forward_cost(network, torch.zeros(2, *SHAPE))[0] == expected[0]
    assert forward_cost(Direct(), torch.zeros(3, *SHAPE)) == expected
    assert forward_cost(Direct().to("meta"), torch.zeros(2, *SHAPE, device="meta")) == expected


@pytest.mark.parametrize("conditioning", ["vector_matrix", "embedding"])
def test_a_generator_costs_the_same_before_it_is_built(conditioning: str) -> None:
    config = GeneratorConfig.parse({"conditioning": conditioning, "width": 6, "max_width": 11})
    generator = ConditionedGenerator(config, 5, SHAPE)
    built = forward_cost(generator, torch.zeros(2, config.latent_dim), torch.eye(5)[:2])
    inputs = torch.zeros(2, config.latent_dim, device="meta"), torch.zeros(2, 5, device="meta")
    assert forward_cost(generator.to("meta"), *inputs)[0] == built[0] > 0


def test_a_classifier_costs_the_same_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, float]] = []
    monkeypatch.setattr(estimates, "check_effort", lambda where, work, size, *_, **__: told.append((work, size)))
    network = Direct().requires_grad_(False)
    forms: list[AdaptedClassifier] = [adapt(network, SHAPE, 5)]
    for name, batch in (("any", torch.export.Dim("n")), ("fixed", None)):
        program = torch.export.export(network, (torch.zeros(8, *SHAPE),), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / f"{name}.pt2")
        forms.append(load_classifier_from(ClassifierSource(model=str(tmp_path / f"{name}.pt2"))))
    config = variant_config("robust")
    for classifier in forms:
        check_inversion("invert.robust", GeneratorConfig(), config, classifier)
    work, size = zip(*told, strict=True)
    assert len(set(work)) == 1
    assert max(size) == pytest.approx(min(size), rel=0.01)
    check_inversion("invert.robust", GeneratorConfig(), config.model_copy(update={"images_at_once": 1}), forms[0])
    assert told[0][1] - told[-1][1] == pytest.approx((config.batch_size - 1) * 4 * 9 * 20 * 28, rel=0.01)


def test_a_classifier_whose_work_cannot_be_counted_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = adapt(Differentiating(), SHAPE, 5)
    check_inversion("invert.robust", GeneratorConfig(), variant_config("robust"), classifier)
    assert "warning: invert.robust: what the classifier computes cannot be counted" in capsys.readouterr().err


class PlainConfig(Config):
    """An architecture that has nothing in common with the others, as docs/extending.md has it."""

    kind: Literal["plain"] = "plain"


def test_an_architecture_of_ones_own_is_estimated(
    params: ModelParams, spec: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netinv.classifiers.build_classifier", lambda config, *about: {PlainConfig(): Direct}[config]())
    plain = params.model_copy(update={"architecture": PlainConfig()})
    check_classifier_training("train.classifier", plain, spec)
    with pytest.raises(InputError, match=r"train.classifier would take some [\d,]+ days"):
        check_classifier_training("train.classifier", plain, spec.model_copy(update={"num_train": 10**12}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 101}, r"train\.classifier\.training\.batch_size is 101, but shapes has 100 training images"),
        ({"shift": 20}, r"train\.classifier\.training\.shift is 20, but the images have 20 x 28 pixels"),
    ],
)
def test_a_training_fits_its_data(params: ModelParams, spec: DatasetSpec, changes: dict[str, int], words: str) -> None:
    check_classifier_training("train.classifier", params, spec)
    training = params.training.model_copy(update=changes)
    with pytest.raises(InputError, match=words):
        check_classifier_training("train.classifier", params.model_copy(update={"training": training}), spec)


def test_what_would_take_days_or_more_than_the_memory_is_refused_with_the_estimate(
    params: ModelParams, spec: DatasetSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wide = params.architecture.model_copy(update={"channels": (4096,) * 4, "convs_per_stage": 16})
    vast = params.model_copy(update={"architecture": wide})
    with pytest.raises(
        InputError, match=r"train.classifier would take some [\d,]+ days .* and some [\d,]+ GiB"
    ) as error:
        check_classifier_training("train.classifier", vast, spec.model_copy(update={"num_train": 10**6}))
    assert f"{LARGE}=1" in str(error.value)
    classifier = build_classifier(ConvClassifierConfig(channels=(4,)), *ABOUT).eval()
    config, generator = variant_config("robust"), GeneratorConfig()
    check_inversion("invert.robust", generator, config, classifier)
    with pytest.raises(InputError, match=r"invert.robust would take some \d+ days"):
        check_inversion("invert.robust", generator, config.model_copy(update={"steps": 10**8}), classifier)
    with pytest.raises(InputError, match=r"invert.robust.shift is 20"):
        check_inversion("invert.robust", generator, config.model_copy(update={"shift": 20}), classifier)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RAY_ADDRESS", "host:6379")  # whose machines nobody here knows; classifiers are trained here
    check_inversion("invert.robust", generator, config.model_copy(update={"steps": 10**8}), classifier)
    assert "a machine like this one (" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"train.classifier would take some"):
        check_classifier_training("train.classifier", vast, spec.model_copy(update={"num_train": 10**6}))
    monkeypatch.setenv(LARGE, "1")
    check_classifier_training("train.classifier", vast, spec)
