"""Repositories like this one, with settings that make all of it small, and commands in them."""

import contextlib
import functools
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TINY = {
    "train.classifier.training.epochs": 3,
    "train.evaluator.training.epochs": 2,
    "invert.common.num_generators": 2,
    "invert.common.attempts": 1,
    "invert.standard.steps": 20,
    "invert.robust.steps": 10,
    "evaluate.num_samples": 200,
    "evaluate.sharpness_samples": 50,
    "evaluate.robust_samples": 50,
    "evaluate.privacy_samples": 100,
    "evaluate.attack_steps": 2,
    "evaluate.resamples": 100,
    "evaluate.student": {"epochs": 1},
    "evaluate.distillation": {"images": 100, "steps": 10},
    "export.forms": ["ensemble"],
    "interpret.images": 600,
    "interpret.measured": 200,
    "interpret.dictionary.steps": 5,
    "interpret.concepts": 4,
    "interpret.ascent_steps": 2,
}


def run(project: Path, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the project, with this interpreter's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RAY_", "NETINV_"))}
    result = subprocess.run(
        command,
        cwd=project,
        env={**inherited, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check:
        assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


def set_params(project: Path, **values: Any) -> None:
    """Set dotted keys in the project's params.yaml."""
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    for key, value in values.items():
        *parents, last = key.split(".")
        functools.reduce(operator.getitem, parents, params)[last] = value
    yaml.dump(params, project / "params.yaml")


def executed(output: str) -> list[str]:
    """The stages that a `dvc repro` ran (or would run), in order."""
    return re.findall(r"Running stage '([^']+)'", output)


def fresh(root: Path, project: Path) -> Path:
    """A fresh repository with this one's files, and settings that make all of it small."""
    for name in run(root, "git", "ls-files").stdout.splitlines():
        target = project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target)
    set_params(project, **TINY)
    run(project, "git", "init", "-q")
    run(project, "git", "add", "-A")
    run(project, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "start")
    return project


def activatable(project: Path, folder: Path) -> Path:
    """A copy with an environment in .venv, which is this one, as `make` leaves it."""
    repository = Path(shutil.copytree(project, folder / "repository", symlinks=True))
    (repository / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (repository / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (repository / ".venv" / ".installed").touch()
    return repository


def bash(repository: Path, script: str, **environment: str) -> str:
    """Run a script; what it has started and left running is ended with it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RAY_", "PYTHONPATH"))}
    commit = {f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    process = subprocess.Popen(
        ["bash", "-ec", f"source .venv/bin/activate\n{script}"],
        cwd=repository,
        env={**clean, **commit, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=1500)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-5000:]
    return output
