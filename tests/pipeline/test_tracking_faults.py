"""What tracking bears: servers that are silent, drip, refuse or die (slow: a real one), damaged journals, secrets."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from netinv.core import InputError
from pipeline import tracking
from pipeline.tracking import delivery, journal, runs
from pipeline.tracking.store import check_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.tracking import MlflowClient

from tracked import answering, answers, children, deliveries, environment, free_port, history, start, wait_for

# SQLAlchemy's words to MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_unreachable_server_fails_before_work(
    kind: str, silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = silent_port if kind == "silent" else 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:secret@127.0.0.1:{port}/?token=secret")
    monkeypatch.chdir(tmp_path)
    begin = time.monotonic()
    worked = False
    with pytest.raises(InputError) as raised, tracking.stage_run("train", "digits"):
        worked = True
    assert not worked
    assert time.monotonic() - begin < 8
    message = str(raised.value)
    assert message.startswith(f"The tracking server http://127.0.0.1:{port} does not answer")
    assert "MLFLOW_TRACKING_URI" in message
    assert "secret" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri", ["ada:SECRET@host:5000", "http://ada:SEC/RET@host:5000", "http://ada:SEC RET@host:5000", "http://a:b@SEC/@c"]
)
def test_an_address_whose_password_cannot_be_told_is_refused_unquoted(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is no address") as raised, tracking.stage_run("a", "b"):
        pass
    assert "SEC" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        *((uri, "is no store of MLflow's: write http://host:5000") for uri in ("localhost:5000", "host", "./mlruns")),
        *((uri, "is no store of MLflow's") for uri in ("file:///x/mlruns", "htp://host:5000")),
        *((uri, "is no store of MLflow's") for uri in ("sqlite:mlflow.db", "sqlite://mlflow.db", "sqlite://")),
        *((uri, "is no store of MLflow's") for uri in ("http://", "http://:5000", "http://host:port", "http://[::1")),
        ("mssql+nonsense://ada:SECRET@host/runs", "cannot be used .*: correct it, or install the database's driver"),
        ("sqlite:///absent/mlflow.db", "absent is no folder: make it"),
        ("sqlite:////proc/mlflow.db", "/proc/mlflow.db cannot be written"),
        ("sqlite:///a?b.db", r"reads the path .*a\?b.db as another one"),
        ("", r"reads the path .*of%41da/mlflow.db as another one, for its \? or %: rename the folder"),
    ],
)
def test_what_mlflow_never_takes_is_refused_before_the_work(
    uri: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    repository = tmp_path / "of%41da"
    repository.mkdir()
    monkeypatch.chdir(repository)
    with pytest.raises(InputError, match=words) as raised, tracking.stage_run("train", "digits"):
        pass
    assert "SECRET" not in str(raised.value)
    assert list(repository.iterdir()) == []


def test_no_secret_reaches_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ada:SECRET@host/mlflow?sslpassword=SECRET")
    monkeypatch.chdir(tmp_path)
    journal.Run(tmp_path, "a", {"input": "http://ada:SECRET@host"}, {"storage": "ftp://ada:SECRET@host/#token=SECRET"})
    for path in tmp_path.iterdir():
        assert "SECRET" not in path.read_text()
    assert "ftp://host/" in (tmp_path / "records.jsonl").read_text()


@pytest.mark.parametrize("answer", [b"no HTTP at all\r\n\r\n", b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 200, b""])
def test_a_server_that_speaks_no_http_is_told_in_a_sentence(answer: bytes) -> None:
    with answering(lambda connection: connection.sendall(answer)) as uri, pytest.raises(InputError, match="not answer"):
        check_server(uri)


@pytest.mark.parametrize("kind", ["foreign", "empty", "garbage", "folder"])
def test_a_file_that_is_no_database_of_mlflows_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mlflow.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("create table addresses (name text)")
    else:
        path.write_bytes(b"garbage" * 1000 if kind == "garbage" else b"")
    before = None if kind == "folder" else path.read_bytes()
    with pytest.raises(InputError, match=r"mlflow\.db (is no database of MLflow's|is damaged|cannot be opened)"):
        check_server(f"sqlite:///{path}")
    assert before is None or path.read_bytes() == before


def test_a_delivery_without_progress_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(runs, "_start_delivery", lambda uri: None)  # one that hangs
    assert runs._SILENT_SECONDS <= 10
    monkeypatch.setattr(runs, "_SILENT_SECONDS", 1.0)
    begin = time.monotonic()
    with tracking.stage_run("fetch", dataset="digits", wait=True):
        pass
    assert time.monotonic() - begin < 5
    told = capsys.readouterr().err
    assert re.search(
        r"made no progress for 1 s\); it is kept in \.mlflow-journal: `python -m pipeline\.tracking flush` delivers it",
        told,
    )


def test_where_the_disk_is_full_at_the_end_no_delivery_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise InputError(f"{path.name} cannot be written")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(runs, "_start_delivery", lambda uri: None)
    monkeypatch.setattr(runs, "_hand_over", lambda *_: pytest.fail("waited"))
    with pytest.raises(InputError, match=r"^ended\.json cannot be written$"), tracking.stage_run("fetch", "digits"):
        monkeypatch.setattr(journal, "write_text", full)


def test_a_server_that_drips_costs_seconds() -> None:
    def drip(connection: socket.socket) -> None:
        for _ in range(300):
            connection.sendall(b"H")
            time.sleep(0.1)

    begin = time.monotonic()
    with answering(drip) as uri, pytest.raises(InputError, match="does not answer"):
        check_server(uri)
    assert time.monotonic() - begin < 9


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"null", b"[" * 100000])
def test_a_damaged_journal_is_set_aside_and_holds_up_no_other(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    for name in ("whole", "broken"):
        (journal.journals() / name).mkdir(parents=True)
        journal.Run(journal.journals() / name, name, {}, {})
    (journal.journals() / "broken/run.json").write_bytes(content)
    deliverer = delivery.Deliverer("sqlite:///mlflow.db")
    assert [folder.name for folder in deliverer.folders()] == ["whole"]
    assert (journal.journals() / "damaged/broken/records.jsonl").exists()
    assert [folder.name for folder in deliverer.folders()] == ["whole"]


def test_refused_credentials_fail_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.chdir(tmp_path)
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        with pytest.raises(InputError, match="refuses the credentials") as raised:
            check_server(tracking.tracking_uri())
        server.shutdown()
    assert "secret" not in str(raised.value)


class Server:
    """A real ``mlflow server`` that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.port = free_port()
        self.uri = f"http://ada:secret@127.0.0.1:{self.port}"  # this server asks for neither, and takes both
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: answers(f"http://127.0.0.1:{self.port}/health"), seconds=180)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.slow  # the server takes half a minute to start, twice
def test_server_that_dies_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    root = tmp_path / "repository"
    root.mkdir()
    code = """
        with tracking.stage_run("invert", "digits", "robust", {"seed": 1}) as run:
            for step in range(1000):
                run.log_metrics({"loss": step / 8}, step=step)
            while run.id is None:
                time.sleep(0.1)
            print("half", flush=True)
            sys.stdin.readline()
            for step in range(1000, 2000):
                run.log_metrics({"loss": step / 8}, step=step)
            run.log_image(np.zeros((4, 4), np.uint8), "grid", step=7)
            with run.child("generator-0", {"seed": 2}) as child:
                child.log_metrics({"accuracy": 0.5}, step=3)
    """
    try:
        stage = start(code, root, MLFLOW_TRACKING_URI=server.uri)
        assert stage.stdout is not None
        assert stage.stdout.readline() == "half\n"
        server.kill()
        output, errors = stage.communicate("go on\n", timeout=300)
        assert stage.returncode == 0, errors
        assert output == ""
        assert re.fullmatch(
            r"warning: Not all of this run .*python -m pipeline.tracking flush` delivers it.*\n", errors
        )
        run_id = json.loads((root / "runs/invert/digits-robust.json").read_text())["run_id"]

        command = [sys.executable, "-m", "pipeline.tracking", "flush"]
        flush_environment = environment(MLFLOW_TRACKING_URI=server.uri)
        flush = subprocess.run(command, cwd=root, env=flush_environment, capture_output=True, text=True)
        assert flush.returncode == 2
        assert flush.stderr.startswith(f"error: The tracking server http://127.0.0.1:{server.port} does not answer")

        written = [path for path in root.rglob("*") if path.is_file()]
        assert len(written) > 5
        assert not [path for path in written if b"secret" in path.read_bytes()]
        assert "secret" not in errors + flush.stderr

        for process in deliveries(root):  # it would deliver by itself; flush shall do it alone
            process.kill()
        server.start()
        flush = subprocess.run(command, cwd=root, env=flush_environment, capture_output=True, text=True)
        assert (flush.returncode, flush.stderr) == (0, ""), flush.stderr
        assert flush.stdout == f"All records for http://127.0.0.1:{server.port} are delivered.\n"
        assert not list((root / ".mlflow-journal").glob("*/run.json"))

        store = MlflowClient(f"sqlite:///{server.folder}/mlflow.db")
        run = store.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert history(store, run, "loss") == [(step, step / 8) for step in range(2000)]
        assert len(list((server.folder / "mlartifacts").rglob("grid+step+7+*.png"))) == 1
        (child,) = children(store, run)
        assert child.data.params == {"seed": "2"}
        assert history(store, child, "accuracy") == [(3, 0.5)]
    finally:
        server.kill()
        for process in deliveries(root):
            process.kill()
