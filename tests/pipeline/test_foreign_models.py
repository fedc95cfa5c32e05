"""Networks from elsewhere in the pipeline's stages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from netinv.data import load_digits, save_dataset

FACTORY = """
import torch

def build():
    torch.random.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(392, 10)
    )

def for_seven():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 7))
"""


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A folder with this repository's parameters, the digits, and a factory of its owner's."""
    shutil.copy(root / "params.yaml", tmp_path)
    (tmp_path / "my_models.py").write_text(FACTORY)
    dataset = load_digits()
    (tmp_path / "data" / "digits").mkdir(parents=True)
    save_dataset(tmp_path / "data" / "digits", "digits", *dataset)
    return tmp_path


def stage(project: Path, root: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "NETINV_", "DVC_"))}
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.{name}", *arguments],
        cwd=project,
        env={**inherited, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_no_stage_calls_what_a_stored_model_asks_for(project: Path, root: Path) -> None:
    models, made = project / "models", project / "made"
    models.mkdir()
    source = {"model": "os:mkdir", "arguments": {"path": str(made)}, "image_shape": [3, 4, 4], "adapter": {}}
    for name in ("classifier", "evaluator"):
        (models / name).mkdir()
        (models / name / "config.json").write_text(json.dumps({"network": "imported", "source": source}))
        save_file({"weight": torch.zeros(1)}, models / name / "weights.safetensors")
    (project / "generators").mkdir()
    files = ("--metrics", "metrics.json", "--plots", "plots.csv")
    result = stage(
        project, root, "invert", "digits", "standard", "--model", "models/classifier", "--out", "generators", *files
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: models/classifier asks to call os:mkdir")
    assert not made.exists()


def set_source(project: Path, model: str, steps: int = 4) -> None:
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    preset = params["presets"]["digits"]
    preset["train"] = {"classifier": {"source": {"model": model, "adapter": {"mean": [0.3], "std": [0.3]}}}}
    preset["invert"] = {"common": {"num_generators": 1, "attempts": 1}, "standard": {"steps": steps}, "robust": {}}
    yaml.dump(params, project / "params.yaml")


def train(project: Path, root: Path) -> subprocess.CompletedProcess[str]:
    files = ("--metrics", "metrics/train.json", "--plots", "plots/train.csv")
    return stage(
        project, root, "train", "digits", "classifier", "--data", "data/digits", "--out", "models/classifier", *files
    )


@pytest.mark.slow  # two stages, and a cluster
def test_the_pipeline_inverts_a_network_from_elsewhere(project: Path, root: Path) -> None:
    set_source(project, "my_models:build")
    result = train(project, root)
    assert result.returncode == 0, result.stderr
    accuracy = json.loads((project / "metrics/train.json").read_text())["test_accuracy"]
    assert f"train digits classifier: test accuracy {accuracy:.4f}" in result.stderr
    files = ("--metrics", "metrics/invert.json", "--plots", "plots/invert.csv")
    model = ("--model", "models/classifier")
    result = stage(project, root, "invert", "digits", "standard", *model, "--out", "generators", *files)
    assert result.returncode == 0, result.stderr
    assert (project / "generators/0/weights.safetensors").is_file()


def test_a_network_that_does_not_fit_is_refused_before_the_work(project: Path, root: Path) -> None:
    set_source(project, "my_models:for_seven")
    result = train(project, root)
    assert result.returncode == 2
    assert result.stderr == "error: The classifier gives 7 scores for each image, but num_classes is 10.\n"
    assert not (project / "models/classifier").exists()
