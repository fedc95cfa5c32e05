"""Projects of their own, in which ``chaos.py`` and ``faults.py`` let stages run, and what MLflow has of them."""

import functools
import operator
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]


def run(project: Path, *command: str, **popen: Any) -> subprocess.CompletedProcess[str]:
    """A command in a project, with this interpreter's programs first."""
    result = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, **popen)
    if result.returncode:
        raise RuntimeError(f"{command}: {result.stderr[-2000:]}")
    return result


def environment() -> dict[str, str]:
    """Without what would lead the stages elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RAY_", "NETINV_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def fresh_project(folder: Path, **settings: Any) -> Path:
    """A repository of this one's files with a trained classifier of digits, and other settings (dotted keys)."""
    from ruamel.yaml import YAML

    project = folder / "project"
    for name in run(ROOT, "git", "ls-files").stdout.splitlines():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    run(project, "git", "init", "-q")
    change(project, YAML(), settings)
    run(project, "dvc", "repro", "train@digits-classifier")
    return project


def change(project: Path, yaml: Any, settings: dict[str, Any]) -> None:
    """Other settings in params.yaml."""
    params = yaml.load(project / "params.yaml")
    for key, value in settings.items():
        *parents, last = key.split(".")
        functools.reduce(operator.getitem, parents, params)[last] = value
    yaml.dump(params, project / "params.yaml")


def generators(project: Path) -> list[dict[str, torch.Tensor]]:
    """The weights that the stage left."""
    files = sorted((project / "generators/digits/standard").glob("*/*.safetensors"))
    return [load_file(file) for file in files]


def equal(project: Path, undisturbed: list[dict[str, torch.Tensor]]) -> bool:
    """Whether the generators are those, bit for bit."""
    return all(
        torch.equal(tensor, other[name])
        for weights, other in zip(undisturbed, generators(project), strict=True)
        for name, tensor in weights.items()
    )


def generator_runs(project: Path) -> dict[str, dict[str, Any]]:
    """MLflow's runs of generators: state, points of the loss, and how many of all points are there twice."""
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        found = database.execute(
            "select run_uuid, name, status from runs where name like 'generator %' and lifecycle_stage = 'active'"
        ).fetchall()
        return {
            uuid: {
                "name": name,
                "status": status,
                "points": database.execute(
                    "select count(*) from metrics where run_uuid = ? and key = 'invert/loss'", (uuid,)
                ).fetchone()[0],
                "twice": database.execute(
                    "select count(*) from (select 1 from metrics where run_uuid = ? and key like 'invert/%' "
                    "group by key, step having count(*) > 1)",
                    (uuid,),
                ).fetchone()[0],
            }
            for uuid, name, status in found
        }
