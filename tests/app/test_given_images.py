"""Labelled images as people have them, uint8 or floats in [0, 1], mean the same to whatever takes them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from draws import seed_torch, torch_rng

import netinv
from netinv.app import auditing
from netinv.app.options import read_data
from netinv.audit import LeakPolicy, MembershipPolicy, Policy, ReconstructionPolicy, ShadowConfig, audit, save_audit
from netinv.classifiers import ClassifierTrainingConfig, ConvClassifierConfig, build_classifier, train_classifier
from netinv.data import LabelledImages, channel_statistics, shared, to_float
from netinv.evaluation import EvaluationConfig, evaluate, measure_images, save_evaluation
from netinv.evaluation.students import DistillationConfig
from netinv.interpretation import DictionaryConfig, Drawn, InterpretationConfig, interpret

if TYPE_CHECKING:
    from conftest import Exported

SHAPE = (1, 12, 12)
CLASSES = ("zero", "one", "two")
MEASURES = EvaluationConfig(
    num_samples=30,
    sharpness=(3.0,),
    sharpness_samples=10,
    vendi_samples=10,
    epsilons=(0.1,),
    attack_steps=1,
    robust_samples=10,
    privacy_samples=30,
    resamples=100,
    student=ClassifierTrainingConfig(epochs=1),
    distillation=DistillationConfig(images=20, steps=2, batch_size=10, shift=1),
    student_architecture=ConvClassifierConfig(channels=(4,), feature_dim=8, dropout=0),
)
UNITS = InterpretationConfig(
    images=100,
    measured=100,
    dictionary=DictionaryConfig(units=12, active=3, steps=3, batch_size=32),
    sweep=(2,),
    concepts=2,
    examples=2,
    ascent_steps=1,
    resamples=100,
)
CHECKS = Policy(
    leak=LeakPolicy(pool=60),
    reconstruction=ReconstructionPolicy(),
    membership=MembershipPolicy(shadows=ShadowConfig(models=2, steps=2)),
)


def real(num: int) -> LabelledImages:
    rng = torch_rng(num)
    images = torch.randint(0, 256, (num, *SHAPE), generator=rng, dtype=torch.uint8)
    return LabelledImages(images, torch.randint(0, 3, (num,), generator=rng))


def checked(exported: "Exported", train: LabelledImages, test: LabelledImages, folder: Path) -> Any:
    report = netinv.check_classifier(exported.classifier, SHAPE, 3, data=test)
    return report.model_copy(update={"images_per_second": None})


def trained(exported: "Exported", train: LabelledImages, test: LabelledImages, folder: Path) -> Any:
    seed_torch(0)
    statistics = channel_statistics(train.images)
    network = build_classifier(MEASURES.student_architecture, 3, SHAPE, *statistics)
    return statistics, list(train_classifier(network, train, ClassifierTrainingConfig(epochs=1), 0))


def audited(exported: "Exported", train: LabelledImages, test: LabelledImages, folder: Path) -> Any:
    samples = {"copies": to_float(real(70).images[:30])}
    record = audit(exported.classifier, train, test, CHECKS, samples, exported.evaluator)
    assert record.num_recognised
    save_audit(folder, record, train, test, samples)
    page = (folder / "audit.html").read_text()
    return record.checks, record.recognised, [part for part in page.split('"') if part.startswith("data:image")]


def evaluated(exported: "Exported", train: LabelledImages, test: LabelledImages, folder: Path) -> Any:
    found = evaluate(
        exported.generators, exported.classifier, exported.evaluator, CLASSES, train, test, MEASURES, (3.0, 3.0)
    )
    save_evaluation(folder, found, train, test)
    return found.results, {path.name: path.read_bytes() for path in folder.iterdir()}


def measured(exported: "Exported", train: LabelledImages, test: LabelledImages, folder: Path) -> Any:
    images = {"set": (to_float(real(30).images), real(30).labels)}
    return measure_images(images, exported.classifier, exported.evaluator, test, MEASURES)


def interpreted(exported: "Exported", train: LabelledImages, test: LabelledImages, folder: Path) -> Any:
    drawn = {"standard": Drawn(exported.generators, (3.0, 3.0))}
    return interpret(
        exported.classifier, drawn, CLASSES, UNITS, evaluator=exported.evaluator, train=train, test=test
    ).results


Asked = Callable[["Exported", LabelledImages, LabelledImages, Path], Any]
ASKED: list[Asked] = [checked, trained, audited, evaluated, measured, interpreted]


@pytest.mark.parametrize("ask", ASKED)
def test_floats_mean_the_same_as_bytes(ask: Asked, exported: "Exported", tmp_path: Path) -> None:
    splits = real(70), real(60)
    found = []
    for name, treat in (("bytes", lambda images: images), ("floats", lambda images: images.float() / 255)):
        (tmp_path / name).mkdir()
        train, test = (split._replace(images=treat(split.images)) for split in splits)
        found.append(ask(exported, train, test, tmp_path / name))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (real(60).images.float(), "images reach from 0 to 255: give uint8, or floats in"),
        (real(60).images.float() / 127.5 - 1, "images reach from -1 to 1: give uint8"),
        (torch.full((60, *SHAPE), torch.nan), "images reach from nan to nan: give uint8"),
        (real(60).images.long(), "images are torch.int64 of shape"),
        (real(60).images[:, 0], r"images are torch.uint8 of shape \(60, 12, 12\)"),
        (real(60).images[:50], "images lack their labels: give whole numbers from 0 on, one for each image"),
        (
            real(60).images.numpy(),
            r"images are a ndarray and a Tensor: give netinv.LabelledImages\(images, labels\), both",
        ),
    ],
)
@pytest.mark.parametrize("ask", [ask for ask in ASKED if ask is not trained])
def test_other_images_are_refused(ask: Asked, images: Any, words: str, exported: "Exported", tmp_path: Path) -> None:
    wrong = LabelledImages(images, real(60).labels)
    if ask is checked:  # which tells all that it finds
        assert any(re.search(words, finding.message) for finding in ask(exported, wrong, wrong, tmp_path).findings)
        return
    with pytest.raises(netinv.InputError, match=words):
        ask(exported, wrong, wrong, tmp_path)


@pytest.mark.parametrize("read", [read_data, auditing._read])
def test_a_folder_of_images_serves_no_network_of_four_channels(read: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(netinv.InputError, match="as grey or RGB images, but the classifier takes 4 channels: give a"):
        read(tmp_path, (4, 8, 8))


def test_copies_are_seen_whatever_the_type_of_either() -> None:
    images = real(9).images
    assert shared(images, to_float(images[5:])) == shared(to_float(images), images[5:].double() / 255) == [0, 1, 2, 3]
    np.testing.assert_allclose(channel_statistics(to_float(images)), channel_statistics(images), rtol=0)
