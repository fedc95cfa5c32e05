"""MLflow's client for one store, and what more than one caller asks of it."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netinv.core import InputError, redacted
from pipeline.tracking.journal import JOURNAL

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class Client:
    """One store: a database in a file, or a tracking server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._file: tuple[int, int] | None = None

    def connect(self) -> "MlflowClient":
        """MLflow's client; a fresh database is made whole before anybody sees it."""
        if self._client is None:
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # it would make two where the answer to one is lost
            os.environ["MLFLOW_LOGGING_LEVEL"] = "CRITICAL"
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
            os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # with the password in it
            from mlflow.tracking import MlflowClient

            from pipeline.tracking.bounds import bound_answers

            bound_answers()
            database = Path(self.uri.removeprefix("sqlite:///"))
            if self.uri.startswith("sqlite:///") and not database.exists():
                # A new database takes seconds of migrations: an end among them must not leave half of one.
                fresh = database.with_name(f".{database.name}.new")
                fresh.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                fresh.rename(database)
            self._client = MlflowClient(self.uri)
            self._file = self._identity()
        return self._client

    def replaced(self) -> bool:
        """Whether the database that is in use is gone, or another lies in its place.

        MLflow keeps its connections to the old one as long as the process lives.
        """
        return self._client is not None and self._identity() != self._file

    def _identity(self) -> tuple[int, int] | None:
        """What tells a database in a file from another one of that name."""
        if not self.uri.startswith("sqlite:///"):
            return None
        try:
            status = self._database().stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made where there is none.

        Raises:
            InputError: Somebody has deleted it.
        """
        client = self.connect()
        experiment = client.get_experiment_by_name(name)
        location = self._artifact_location()
        if experiment is None:
            return self.expect_id(client.create_experiment(name, location))
        self.expect_id(experiment.experiment_id)
        if experiment.lifecycle_stage == "deleted":
            raise InputError(
                f"The experiment {name} was deleted in MLflow: `mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}` brings it back, and MLFLOW_EXPERIMENT_NAME gives later stages another."
            )
        if location is not None and experiment.artifact_location != location:
            self._follow_copy(Path(experiment.artifact_location), Path(location))
        return str(experiment.experiment_id)

    @staticmethod
    def expect_id(identity: str | None) -> str:
        """An id that the store has given.

        Raises:
            ConnectionError: It has given none, as where something between answers in its place.
        """
        if not identity:
            raise ConnectionError("the tracking server's answer is empty")
        return str(identity)

    def _artifact_location(self) -> str | None:
        """A server knows its own place for artifacts; without one they lie beside the database."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return str(self._database().parent / "mlartifacts")

    def _database(self) -> Path:
        return Path(self.uri.removeprefix("sqlite:///")).absolute()

    def _follow_copy(self, old: Path, new: Path) -> None:
        """Where the database was copied or moved with its repository, have it name the artifacts that lie beside it.

        MLflow keeps absolute paths and has no call that changes them. An experiment whose artifacts somebody has put
        elsewhere on purpose stays as it is: there the old place exists and has no database beside it.
        """
        copied = (old.parent / self._database().name).exists()
        if old.name != new.name or not old.is_absolute() or not (copied or not old.exists()):
            return
        columns = [("experiments", "artifact_location")]
        if new.exists():  # else all artifacts are still in the old place
            columns += [("runs", "artifact_uri"), ("logged_models", "artifact_location")]
            columns += [("model_versions", "storage_location")]
        with closing(sqlite3.connect(self._database(), timeout=60)) as database, database:
            for table, column in columns:
                database.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or {column} like ?",
                    (str(new), len(str(old)) + 1, str(old), f"{old}/%"),
                )

    def stage(self, run_id: str) -> str | None:
        """``active`` or ``deleted``, as somebody has left a run; ``None`` where there is no such run."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.connect().get_run(run_id).info.lifecycle_stage)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def find_run(self, experiment: str, tag: str, value: str) -> str | None:
        """The id of the run that has a tag, if there is one."""
        quote = '"' if "'" in value else "'"  # the filter language has no escape, and no name has both
        runs = self.connect().search_runs([experiment], f"tags.{tag} = {quote}{value}{quote}", max_results=1)
        return runs[0].info.run_id if runs else None

    def make_run(self, experiment: str, about: Mapping[str, Any], tags: dict[str, str], key: str) -> str:
        """Make a run; where that fails, it may have been made all the same, which its tag ``key`` tells."""

        def made() -> str:
            run = self.connect().create_run(experiment, about["start_time"], tags, about["name"])
            return self.expect_id(run.info.run_id)

        for _ in range(2):
            try:
                return made()
            except Exception:  # whatever MLflow or a network raises
                if found := self.find_run(experiment, key, tags[key]):
                    return found
        return made()

    def resolve(self, experiment: str, value: str) -> str:
        """The id of a run, from its journal's key where that stands for it."""
        if not value.startswith(JOURNAL):
            return value
        return self.find_run(experiment, "journal", value.removeprefix(JOURNAL)) or value


def reason(error: Exception) -> str:
    """Why a store does not do what it is asked, with what to do where that is known; without statements in SQL."""
    told = redacted(" ".join(str(error).partition("[SQL: ")[0].split()))[:300] or type(error).__name__
    if refuses_credentials(error):
        return (
            f"The tracking server refuses the credentials: correct MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME "
            f"and MLFLOW_TRACKING_PASSWORD, or have this account given the rights ({told})"
        )
    return told


def refuses_credentials(error: Exception) -> bool:
    """Whether a server does not take who asks."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403)


def denies(error: Exception) -> bool:
    """Whether a store takes what it is asked for a mistake, as where a run is not there any more, or deleted."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.get_http_status_code() in (400, 404)
