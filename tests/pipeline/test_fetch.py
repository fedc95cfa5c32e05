"""The stage as DVC starts it: a process in a project folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from netinv.classifiers import ClassifierSource
from netinv.data import FetchConfig, load_spec, load_split
from pipeline import fetch as stage
from pipeline import train


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A folder with this repository's parameters."""
    shutil.copy(root / "params.yaml", tmp_path)
    return tmp_path


def fetch(project: Path, root: Path, dataset: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "NETINV_", "DVC_"))}
    outputs = ("--out", f"data/{dataset}", "--metrics", f"metrics/fetch/{dataset}.json")
    return subprocess.run(
        [sys.executable, "-m", "pipeline.fetch", dataset, *outputs],
        cwd=project,
        env={**inherited, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_digits_from_nothing_to_tensors(project: Path, root: Path) -> None:
    result = fetch(project, root, "digits")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "fetch digits: 1442 train and 355 test images\n"
    spec = load_spec(project / "data/digits")
    assert (spec.name, spec.image_shape, spec.num_classes) == ("digits", (1, 16, 16), 10)
    train, test = load_split(project / "data/digits", "train"), load_split(project / "data/digits", "test")
    metrics = json.loads((project / "metrics/fetch/digits.json").read_text())
    assert metrics["num_train"] == spec.num_train == len(train.labels)
    assert metrics["num_test"] == spec.num_test == len(test.labels)
    assert list(metrics["train"].values()) == train.labels.bincount().tolist()
    assert list(metrics["test"]) == list("0123456789")
    assert (project / "runs/fetch/digits.json").is_file()


def test_user_errors_are_one_sentence_and_the_old_data_set_stays(project: Path, root: Path) -> None:
    (project / "data/mnist").mkdir(parents=True)
    (project / "data/mnist/spec.json").write_text("old")
    # Both are wrong: the environment has the last word on where the mirror is.
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    params["fetch"]["mirror"] = "in-params"
    yaml.dump(params, project / "params.yaml")
    (project / "dvc.lock").write_text("stages:\n  fetch@mnist:\n")  # it was fetched before
    result = fetch(project, root, "mnist", NETINV_MIRROR="in-environment")
    assert result.returncode == 2
    assert result.stderr.startswith("error: The mirror in-environment is no folder")
    assert result.stderr.endswith("`dvc checkout --force fetch@mnist && dvc commit --force fetch@mnist`.\n")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in (project / "data/mnist").iterdir()] == ["spec.json"]
    assert not (project / "metrics").exists()
    assert not (project / "runs").exists()


@pytest.fixture
def queued(project: Path) -> Path:
    """The folder where a queued DVC experiment runs, inside a repository with pictures beside it."""
    for number, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        folder = project.with_name(f"{project.name}-pets") / place
        folder.mkdir(parents=True)
        Image.new("L", (4, 4), number).save(folder / "0.png")
    copy = project / ".dvc/tmp/exps/tmp0"
    copy.mkdir(parents=True)
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    params["fetch"]["folders"] = {"pets": {"path": f"../{project.name}-pets", "image_shape": [1, 4, 4]}}
    yaml.dump(params, copy / "params.yaml")
    return copy


def test_relative_paths_start_at_the_repository_in_a_queued_experiment(queued: Path, root: Path) -> None:
    result = fetch(queued, root, "pets")
    assert (result.returncode, result.stderr) == (0, "fetch pets: 2 train and 2 test images\n")
    (params,) = json.loads((queued / "runs/fetch/pets.json").read_text())["params"].values()
    assert params["folders.pets.path"] == f"../{queued.parents[3].name}-pets"  # as it is written


def test_what_lies_in_the_repository_is_reached_from_a_queued_experiment(
    queued: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FetchConfig.parse({"mirror": "../real", "folders": {"a": {"path": "/a", "image_shape": [1, 4, 4]}}})
    source = ClassifierSource(model="../net.pt2", weights="kept/weights.pt")
    factory = ClassifierSource(model="package.module:function", weights="DEFAULT")
    for path in (project.with_name("net.pt2"), project / "kept/weights.pt", queued / "kept/weights.pt"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(queued)
    reached = stage._reached(config)
    assert (reached.mirror, reached.folders["a"].path) == (f"{project}/../real", "/a")
    # What git keeps is there twice, and the experiment's own is meant.
    assert train._reached(source) == source.model_copy(update={"model": f"{project}/../net.pt2"})
    (queued / "kept/weights.pt").unlink()
    assert train._reached(source).weights == f"{project}/kept/weights.pt"
    assert train._reached(factory) == factory
    monkeypatch.chdir(project)
    assert stage._reached(config) == config
    assert train._reached(source) == source


def test_a_folder_that_git_keeps_empty_does_not_stand_in_for_the_repositorys(tmp_path: Path) -> None:
    (tmp_path / "shell").mkdir()
    (tmp_path / "shell/.gitignore").write_text("*")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/train").mkdir()
    (tmp_path / "archive.zip").write_text("")
    held = {
        name: stage._holds_anything(tmp_path / name) for name in ("shell", "whole", "archive.zip", "absent", "x" * 300)
    }
    assert held == {"shell": False, "whole": True, "archive.zip": True, "absent": False, "x" * 300: False}
