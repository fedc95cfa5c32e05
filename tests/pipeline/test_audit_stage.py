"""The stage audit: the command's function on what the other stages left, and the verdicts that end the pipeline."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner
from draws import torch_rng
from repositories import set_params
from ruamel.yaml import YAML

from netinv.audit import load_audit
from netinv.classifiers import predict, save_classifier
from netinv.core import InputError
from netinv.data import LabelledImages, save_dataset
from netinv.sampling import OnnxGenerator
from pipeline import tracking
from pipeline.audit import _drawn, main
from pipeline.params import load_params

if TYPE_CHECKING:
    from conftest import Exported


class Told:
    """What a run is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}
        self.description = ""
        self.files: list[str] = []

    def log_dataset(self, *arguments: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags |= tags

    def describe(self, text: str) -> None:
        self.description = text

    def log_artifact(self, path: Path) -> None:
        self.files.append(path.name)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    run = Told()

    @contextlib.contextmanager
    def stage_run(*arguments: Any, **named: Any) -> Iterator[Told]:
        yield run

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    return run


@pytest.fixture
def project(root: Path, tmp_path: Path, exported: "Exported", monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stages before leave of a data set whose labels are all others than the classifier's answers."""
    monkeypatch.chdir(tmp_path)
    rng = torch_rng(0)
    splits = []
    for num in (120, 120):
        images = torch.randint(0, 256, (num, 1, 12, 12), generator=rng, dtype=torch.uint8)
        answers = predict(exported.classifier, images)[0].argmax(dim=1)
        splits.append(LabelledImages(images, (answers + 1) % 3))
    (tmp_path / "data").mkdir()
    save_dataset(tmp_path / "data", "digits", ("zero", "one", "two"), *splits, "", "")
    save_classifier(tmp_path / "models/classifier", exported.classifier)
    save_classifier(tmp_path / "models/evaluator", exported.evaluator)
    for variant in ("standard", "robust"):
        shutil.copytree(exported.folder, tmp_path / "onnx" / variant)
    return tmp_path


@pytest.mark.parametrize(("stop_at", "status"), [("fail", 1), ("investigate", 1), ("never", 0)])
def test_the_record_is_written_whatever_the_verdict_does(
    root: Path, project: Path, told: Told, stop_at: str, status: int
) -> None:
    shutil.copy(root / "params.yaml", project)
    limits = {"samples": 60, "membership": {"shadows": None}, "reconstruction": None}
    set_params(project, **{"audit.stop_at": stop_at, "audit.policy": limits})
    result = CliRunner().invoke(
        main, ["digits", "--data", "data", "--models", "models", "--onnx", "onnx", "--out", "audit/digits"]
    )
    assert result.exit_code == status, result.output
    record = load_audit(project / "audit/digits/audit.json")
    assert record.verdict == "fail"  # by robustness: no label is right
    assert [(files.name, files.num) for files in record.samples] == [("standard", 60), ("robust", 60)]
    assert record.policy["samples"] == 60
    assert record.evaluator is not None
    assert sorted(path.name for path in Path("audit/digits").iterdir()) == told.files
    assert told.tags == {"verdict": "fail"}
    assert told.description.startswith(f"**fail**: {record.summary}\n")
    assert told.description.count("\n- ") == len(record.checks)
    (accuracy,) = (value for name, value in told.metrics.items() if name.startswith("audit/robustness/"))
    assert 0 <= accuracy < 0.5
    assert all(re.fullmatch(r"[\w. /-]+", name) for name in told.metrics)  # which MLflow takes


def test_each_verdict_ends_the_pipeline_as_asked(root: Path) -> None:
    audit = load_params(root / "params.yaml").audit
    assert (audit.datasets, audit.stop_at) == ((), "fail")
    ends = {stop: audit.model_copy(update={"stop_at": stop}).stopping for stop in ("fail", "investigate", "never")}
    assert ends == {"fail": ("fail",), "investigate": ("investigate", "fail"), "never": ()}


def test_datasets_are_those_that_dvc_audits(root: Path) -> None:
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    assert stages["audit"]["matrix"] == {"dataset": "${audit.datasets}"}


def test_images_are_of_all_generators_in_turn_and_none_of_their_other_forms(exported: "Exported") -> None:
    images = _drawn(exported.folder, 7, seed=3)
    generators = [OnnxGenerator(exported.folder / f"generator-{i}.onnx") for i in range(2)]
    expected = [torch.from_numpy(one.sample(4, seed=3 + i).images) for i, one in enumerate(generators)]
    assert images.shape == (7, 1, 12, 12)
    assert torch.equal(images[0::2], expected[0])
    assert torch.equal(images[1::2], expected[1][:3])


def test_no_generators_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no exported generators: run the export stage again"):
        _drawn(tmp_path, 7, seed=0)


def test_an_audit_stands_before_the_registration_that_it_may_stop(root: Path) -> None:
    """No dependence orders them, since not all data sets are audited: DVC takes stages as they stand."""
    stages = list(YAML(typ="safe").load(root / "dvc.yaml")["stages"])
    assert stages.index("audit") < stages.index("register")
