"""A repository whose stages have tracked, and its store."""

import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.tracking import MlflowClient

from tracked import SETTINGS, deliveries, start


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository whose very first eight stages started at once, on no database."""
    root = tmp_path_factory.mktemp("workspace")
    code = """
        with tracking.stage_run("train", "digits", f"model-{number}", {"number": number}) as run:
            for step in range(1200):
                run.log_metrics({"train/loss": 1.0 / (1 + step)}, step=step)
    """
    stages = [start(f"number = {number}\n{textwrap.dedent(code)}", root) for number in range(8)]
    for stage in stages:
        output, errors = stage.communicate(timeout=300)
        assert (stage.returncode, output, errors) == (0, "", "")
    yield root
    for process in deliveries(root):
        process.kill()


@pytest.fixture
def store(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The default store, with the current folder beside it."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(workspace)
    return MlflowClient(f"sqlite:///{workspace}/mlflow.db")
