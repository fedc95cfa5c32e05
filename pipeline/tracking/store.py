"""The store of the runs: where it is, what it calls them, and whether it answers."""

import base64
import contextlib
import http.client
import os
import sqlite3
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from netinv.core import InputError, check_file, redacted

_HTTP = ("http", "https")
_SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql")
_HOSTED = ("databricks", "databricks-uc", "uc")
_FAILURES = (OSError, ValueError, http.client.HTTPException)
"""What asking a server may raise; the last one where it speaks no HTTP."""
_AUTHORITIES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a server's authorities, as a file or a folder; the first that is set counts."""


def tracking_uri() -> str:
    """The store: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the repository.

    Raises:
        InputError: It has a user or password where none can be told from the rest. It is not quoted.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{root() / 'mlflow.db'}"
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

    Stages that share a name become children of one run of that name; without one they stand alone. A name with quotes
    of both kinds has single ones alone, as MLflow can be asked for no other.
    """
    name = os.environ.get("NETINV_PIPELINE_RUN") or os.environ.get("DVC_EXP_NAME") or None
    return name.replace('"', "'") if name is not None and "'" in name else name


def check_server(uri: str) -> None:
    """Ask a tracking server for a sign of life, and a database in a file whether it is MLflow's.

    Raises:
        InputError: MLflow takes no such address; the server does not answer within seven seconds, or refuses the
            credentials; the certificates that the environment names cannot be read; the file is damaged, or another
            program's, to which nothing is added; none can be made there.
    """
    scheme = uri.partition("://")[0]
    if uri.startswith(_SQLITE):
        _check_database(uri)
    elif scheme.partition("+")[0] in _DATABASES or scheme.startswith("sqlite+"):
        _check_driver(uri)
    elif scheme in _HOSTED or entry_points(group="mlflow.tracking_store", name=scheme):
        return  # a store of MLflow's that is not asked here, or of a plugin
    elif scheme not in _HTTP or not _has_host(uri):
        raise InputError(
            f"MLFLOW_TRACKING_URI={redacted(uri)} is no store of MLflow's: write http://host:5000 for a server, "
            "sqlite:////path/mlflow.db for a database in a file, or unset it to track in the local mlflow.db."
        )
    if scheme not in _HTTP:
        return
    parts = urlsplit(uri)
    if parts.scheme == "https":
        certificates()  # what is wrong with these is no server's fault
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


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and parts.port != 0  # reading the port raises where it is no number
    except ValueError:
        return False


def _check_driver(uri: str) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except (ImportError, SQLAlchemyError, ValueError) as error:
        raise InputError(
            f"MLFLOW_TRACKING_URI={redacted(uri)} cannot be used ({redacted(str(error))}): correct it, or install the "
            "database's driver into this environment."
        ) from None


def _check_database(uri: str) -> None:
    path = root() / uri.removeprefix(_SQLITE)
    if "?" in uri or unquote(uri) != uri:
        raise InputError(
            f"MLflow reads the path {path} as another one, for its ? or %: rename the folder or the file, or name a "
            "store elsewhere in MLFLOW_TRACKING_URI."
        )
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it, or name another database in MLFLOW_TRACKING_URI.")
    if not path.exists():
        check_file(path)
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
    if not uri.startswith(_HTTP):
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


def certificates() -> ssl.SSLContext:
    """What a server's certificate is held against: the same settings as those of MLflow's client, in its order.

    Raises:
        InputError: They contradict each other, or name what holds no certificates.
    """
    setting = next(filter(os.environ.get, _AUTHORITIES), "")
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    if insecure and setting == _AUTHORITIES[0]:
        raise InputError(f"MLFLOW_TRACKING_INSECURE_TLS and {setting} are both set: unset one of them.")
    place = None if insecure else os.environ.get(setting)
    is_folder = place is not None and Path(place).is_dir()
    client = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    try:
        context = ssl.create_default_context(cafile=None if is_folder else place, capath=place if is_folder else None)
        if client:
            setting, place = "MLFLOW_TRACKING_CLIENT_CERT_PATH", client
            context.load_cert_chain(client, password="")  # as MLflow's client, which asks for none
    except OSError as error:
        raise InputError(f"{setting} names {place}, which holds no certificate ({error}): correct it.") from None
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _status(request: urllib.request.Request, timeout: float) -> int:
    context = certificates() if request.type == "https" else None
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def root() -> Path:
    """The repository; for a queued DVC experiment, which runs in a copy inside it, the one it was copied from."""
    return Path(str(Path.cwd()).partition("/.dvc/tmp/exps/")[0])


def in_repository(path: str) -> str:
    """A path of the settings as this process reaches it: relative ones start at the repository.

    A queued DVC experiment runs in a copy of it, which lies elsewhere and lacks what git does not keep.
    """
    return path if root() == Path.cwd() else str(root() / Path(path).expanduser())
