"""Answers of a tracking server that are endless, late, cut, empty or failures, and files that take long to send."""

import io
import json
import socket
import time
import warnings
from pathlib import Path

import pytest
import requests

from pipeline.tracking import bounds, client, delivery, journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.exceptions import MlflowException

from tracked import answering

# SQLAlchemy's words to MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.mark.parametrize("head", ["Content-Length: 1000000000000", "Transfer-Encoding: chunked", "X: until it closes"])
@pytest.mark.parametrize("kind", ["endless", "dripping"])
def test_the_delivery_reads_no_answer_for_ever(head: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_BYTES", 2**20)
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.5)
    sent = []
    piece = b" " * (2**16 if kind == "endless" else 1)

    def answer(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        while len(sent) < 3000:
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if "chunked" in head else piece)
            sent.append(len(piece))
            time.sleep(0.01 if kind == "dripping" else 0)

    begin = time.monotonic()
    with answering(answer) as uri, pytest.raises(MlflowException, match=r"answer (is longer than 1 MiB|takes longer)"):
        client.Client(uri).connect().get_experiment_by_name("netinv")
    assert time.monotonic() - begin < 5
    assert sum(sent) < 2**26


@pytest.mark.parametrize("words", ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_the_delivery_waits_for_no_drip_for_ever(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a header, and of the length of a piece: neither ever comes to the end of its line."""
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.5)

    def answer(connection: socket.socket) -> None:
        connection.sendall(words.encode())
        for _ in range(300):
            connection.sendall(b"0")
            time.sleep(0.02)

    begin = time.monotonic()
    with answering(answer) as uri, pytest.raises(MlflowException, match="takes longer than 0 s"):
        client.Client(uri).connect().get_experiment_by_name("netinv")
    assert time.monotonic() - begin < 4


def test_a_file_that_takes_longer_to_send_than_an_answer_may_take_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.2)
    size = 2**24  # far more than a socket holds

    def answer(connection: socket.socket) -> None:
        time.sleep(0.5)
        left = size - 2**16
        while left > 0:
            left -= len(connection.recv(2**20))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while connection.recv(2**20):  # the rest: closed before it, a connection takes its answer back
            pass

    with answering(answer) as uri:
        request = requests.Request("PUT", uri, data=io.BytesIO(bytes(size))).prepare()
        assert bounds._send_bounded(requests.adapters.HTTPAdapter(), request).status_code == 200


@pytest.mark.parametrize("cut", [0, 20])
@pytest.mark.parametrize(("path", "asked"), [("experiments/get-by-name", 3), ("runs/create", 1)])
def test_what_fails_at_once_is_asked_again_but_nothing_is_made_twice(path: str, asked: int, cut: int) -> None:
    seen: list[int] = []

    def answer(connection: socket.socket) -> None:
        seen.append(1)
        if len(seen) % 3 == 1:
            connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        body = b'{"experiment": {"experiment_id": "7", "name": "netinv"}}'
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        connection.sendall(head + body[: None if len(seen) % 3 == 0 else cut])

    with answering(answer) as uri:
        mlflow_client = client.Client(uri).connect()
        if path == "runs/create":
            with pytest.raises(MlflowException, match="500"):
                mlflow_client.create_run("7")
        else:
            found = mlflow_client.get_experiment_by_name("netinv")
            assert found is not None
            assert found.experiment_id == "7"
    assert len(seen) == asked


def test_an_empty_answer_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is there, so the journal keeps all of it."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    monkeypatch.chdir(tmp_path)
    with answering(answer) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        folder = journal.journals() / "one"
        folder.mkdir(parents=True)
        with journal.Run(folder, "one", {}, {"seed": 1}).ending():
            pass
        delivery.Deliverer(uri).deliver(at_once=True)
        delivery.Deliverer(uri).deliver(at_once=True)
    assert "answer is empty" in (folder / "error").read_text()
    assert json.loads((folder / "run.json").read_text())["run_id"] is None
