"""Settings that fit neither the data nor the machine are refused before any work."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from netinv.classifiers import ClassifierConfig, ConvClassifierConfig, ResidualClassifierConfig, build_classifier
from netinv.core import InputError, forward_cost
from netinv.data import DatasetSpec
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import variant_config
from pipeline.estimates import LARGE, check_classifier_training, check_inversion
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


@pytest.mark.parametrize(
    "config",
    [
        ConvClassifierConfig(channels=(6, 10), convs_per_stage=2, feature_dim=7),
        ResidualClassifierConfig(channels=(5, 9)),
    ],
)
def test_operations_of_a_classifier_are_those_that_torch_counts(config: ClassifierConfig) -> None:
    narrow = build_classifier(config.model_copy(update={"channels": (1,) * len(config.channels)}), *ABOUT).eval()
    with torch.device("meta"):
        wide = build_classifier(config, *ABOUT)
    images = torch.zeros(1, *SHAPE)
    with FlopCounterMode(display=False) as counter:
        build_classifier(config, *ABOUT).eval()(images)
    assert forward_cost(wide, narrow, images)[0] == counter.get_total_flops()


@pytest.mark.parametrize("conditioning", ["vector_matrix", "embedding"])
def test_operations_of_a_generator_are_those_that_torch_counts(conditioning: str) -> None:
    config = GeneratorConfig.parse({"conditioning": conditioning, "width": 6, "max_width": 11})
    generator = ConditionedGenerator(config, 5, SHAPE).eval()
    inputs = torch.zeros(1, config.latent_dim), torch.eye(5)[:1]
    with FlopCounterMode(display=False) as counter:
        generator(*inputs)
    assert forward_cost(generator, generator, *inputs)[0] == counter.get_total_flops()


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
