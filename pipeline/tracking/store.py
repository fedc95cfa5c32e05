"""The store of the runs: where it is, what it calls them, and whether it answers."""

import base64
import contextlib
import http.client
import os
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import unquote, urlsplit

from netinv.core import InputError, redacted

_HTTP = ("http", "https")
_FAILURES = (OSError, ValueError, http.client.HTTPException)
"""What asking a server may raise; the last one where it speaks no HTTP."""


def tracking_uri() -> str:
    """The store: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the repository.

    Raises:
        InputError: It has a user or password where none can be told from the rest. It is not quoted.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"
    scheme, found, rest = uri.partition("://")
    if (not found and "@" in uri) or (
        scheme in _HTTP and (any(map(str.isspace, uri)) or "@" in rest.partition("/")[2])
    ):
        raise InputError(
            "MLFLOW_TRACKING_URI is no address: write it like http://host:5000, with characters such as / @ and spaces "
            "in a password as %2F %40 %20, or give the password as MLFLOW_TRACKING_PASSWORD."
        )
    return uri


def experiment_name() -> str:
    """The experiment: ``MLFLOW_EXPERIMENT_NAME``, or ``netinv``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netinv"


def pipeline_name() -> str | None:
    """What groups the runs of one pipeline: ``NETINV_PIPELINE_RUN``, any name, or DVC's name of the experiment.

    Stages that share a name become children of one run of that name; without one they stand alone.
    """
    return os.environ.get("NETINV_PIPELINE_RUN") or os.environ.get("DVC_EXP_NAME") or None


def check_server(uri: str) -> None:
    """Ask a tracking server for a sign of life, and a database in a file whether it is MLflow's.

    Raises:
        InputError: The server does not answer within seven seconds, or refuses the credentials; the file is damaged, or
            another program's, to which nothing is added.
    """
    parts = urlsplit(uri)
    if uri.startswith("sqlite:///"):
        _check_database(Path(uri.removeprefix("sqlite:///")))
    if parts.scheme not in _HTTP:
        return
    base = redacted(uri).rstrip("/")
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"} if user and password else {}
    status = None
    if "MLFLOW_TRACKING_TOKEN" not in os.environ:  # a token, and a server too busy for this, are left to the delivery
        with contextlib.suppress(*_FAILURES):
            status = _http_status(f"{base}/api/2.0/mlflow/experiments/get?experiment_id=0", headers, timeout=2)
    if status is None and (reason := silence(uri)):
        raise InputError(
            f"The tracking server {base} does not answer ({reason}): start it, correct "
            "MLFLOW_TRACKING_URI, or unset it to track in the local mlflow.db."
        )
    if status == 401:
        raise InputError(
            f"The tracking server {base} {'refuses the' if headers else 'asks for'} credentials: "
            f"{'correct' if headers else 'set'} MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def _check_database(path: Path) -> None:
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.OperationalError as error:
        if "locked" in str(error):  # somebody is at work on it
            return
        raise InputError(
            f"{path} cannot be opened ({error}): mend it, or name another in MLFLOW_TRACKING_URI."
        ) from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is damaged ({error}): move it away, and a new one is made.") from None
    if not {"alembic_version", "experiments", "runs"} <= tables:
        raise InputError(
            f"{path} is no database of MLflow's, and nothing is added to it: move it away, or name another file in "
            "MLFLOW_TRACKING_URI."
        )


def silence(uri: str) -> str | None:
    """Why a tracking server gives no sign of life; ``None`` where it does, and for a store that is a file."""
    if urlsplit(uri).scheme not in _HTTP:
        return None
    try:
        _http_status(f"{redacted(uri).rstrip('/')}/health")
    except _FAILURES as error:
        return redacted(str(error)) or type(error).__name__
    return None


def _http_status(url: str, headers: Mapping[str, str] | None = None, timeout: float = 5) -> int:
    """The status of an answer, of which no more is read than its head, within so many seconds whatever arrives."""
    told: Future[int] = Future()

    def ask() -> None:
        try:
            told.set_result(_status(urllib.request.Request(url, headers=dict(headers or {})), timeout))
        except Exception as error:
            told.set_exception(error)

    # A time-out of the socket's own starts again with every byte that a server drips.
    threading.Thread(target=ask, daemon=True).start()
    return told.result(timeout)


def _status(request: urllib.request.Request, timeout: float) -> int:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def root() -> Path:
    """The repository; for a queued DVC experiment, which runs in a copy inside it, the one it was copied from."""
    return Path(str(Path.cwd()).partition("/.dvc/tmp/exps/")[0])
