"""Where runs and their artifacts lie: beside the database of their own repository, wherever that is."""

import shutil
import warnings
from pathlib import Path

import pytest
from tracked import SETTINGS

from pipeline import tracking
from pipeline.tracking import delivery, journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.tracking import MlflowClient

# SQLAlchemy's words to MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.mark.parametrize("kept", ["the original is still there", "the original is gone"])
def test_a_copied_repository_has_its_own_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)

    def log(repository: Path, name: str) -> str:
        monkeypatch.chdir(repository)
        (repository / f"{name}.txt").write_text(name)
        folder = journal.journals() / name
        folder.mkdir(parents=True)
        run = tracking.Run(folder, name, {"stage": "test"}, {})
        with run.ending():
            run.log_artifact(repository / f"{name}.txt")
        delivery.Deliverer(tracking.tracking_uri()).deliver(at_once=True)
        assert not (folder / "error").exists(), (folder / "error").read_text()
        run_id = run.id
        assert run_id is not None
        return run_id

    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    first = log(original, "first")
    shutil.copytree(original, copy)
    if kept == "the original is gone":
        shutil.rmtree(original)
    second = log(copy, "second")
    assert [path.name for path in (copy / "mlartifacts").rglob("second.txt")] == ["second.txt"]
    assert not list(original.rglob("second.txt"))
    store = MlflowClient(f"sqlite:///{copy}/mlflow.db")
    for run_id, name in ((first, "first"), (second, "second")):
        assert store.get_run(run_id).info.artifact_uri.startswith(str(copy))
        assert [file.path for file in store.list_artifacts(run_id)] == [f"{name}.txt"]


def test_artifacts_that_were_put_elsewhere_on_purpose_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "shared" / "mlartifacts"
    elsewhere.mkdir(parents=True)
    deliverer = delivery.Deliverer(tracking.tracking_uri())
    deliverer.client.connect().create_experiment("netinv", str(elsewhere))
    deliverer.client.experiment("netinv")
    assert deliverer.client.connect().get_experiment_by_name("netinv").artifact_location == str(elsewhere)


def test_queued_dvc_experiment_tracks_in_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmp1234"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
