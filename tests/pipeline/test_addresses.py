"""Which addresses are taken for a cluster of Ray, before anything is started there."""

import contextlib
import inspect
import os
import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netinv.core import InputError
from pipeline.cluster import check_address, cluster, connection, workarounds

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own start-up warns of its future defaults


@pytest.fixture(autouse=True)
def _no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set of Ray's access is as it was afterwards: a local cluster in the same process would believe it."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:9", "No Ray cluster answers at RAY_ADDRESS=127.0.0.1:9"), ("nonsense", "is no address")],
)
def test_unreachable_address_is_refused_within_seconds(address: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=words), cluster(address):
        pass
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "not Ray"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not Ray"),
        (b"\0", "timed out"),
        (None, "timed out"),
    ],
)
def test_what_is_not_ray_is_refused_within_seconds(
    answer: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that close, speak HTTP, say too little, or nothing at all."""
    assert connection.PATIENCE == 5
    if words == "timed out":
        monkeypatch.setattr(connection, "PATIENCE", 0.5)

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # whoever asked has gone
                if self.request.recv(64) and answer is not None:
                    self.request.sendall(answer)
                if answer is None or answer == b"\0":
                    ended.wait(20)

    ended = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        begin = time.monotonic()
        address = f"127.0.0.1:{server.server_address[1]}"
        try:
            with pytest.raises(InputError, match=rf"No Ray cluster answers at RAY_ADDRESS={address} \(.*{words}\)"):
                check_address(address)
        finally:
            ended.set()
            server.shutdown()
        assert time.monotonic() - begin < 10


def test_a_head_that_is_busy_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has shaken hands, and Ray waits longer for it."""
    import grpc

    monkeypatch.setattr(connection, "PATIENCE", 2.0)
    monkeypatch.setattr(connection, "_expect_node", lambda address: None)
    ended = threading.Event()

    class Head(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda *_: ended.wait(20) and b"")

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        check_address(f"127.0.0.1:{port}")
    finally:
        ended.set()
        server.stop(0)


@pytest.mark.parametrize(
    ("refusal", "given", "words"),
    [
        ("UNAUTHENTICATED", {}, "asks for a token, and is given none: set RAY_AUTH_MODE=token"),
        ("UNAUTHENTICATED", {"RAY_AUTH_TOKEN": "of-another"}, "asks for a token, and refuses the one"),
        ("UNIMPLEMENTED", {}, "is another port of Ray's"),
        (None, {"RAY_AUTH_TOKEN": "its"}, ""),
        (None, {"a file": "its"}, ""),
        (None, {"a file": "its", "RAY_AUTH_MODE": "disabled"}, ""),
        (None, {}, ""),
    ],
)
def test_a_cluster_that_asks_for_a_token_or_is_of_another_kind_says_so_at_once(
    refusal: str | None, given: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grpc
    import ray

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(connection, "_expect_node", lambda address: None)
    monkeypatch.setattr(connection, "_head_lost", lambda address: lambda: None)
    for name, value in given.items():
        if name == "a file":
            (tmp_path / ".ray").mkdir()
            (tmp_path / ".ray/auth_token").write_text(value)
        else:
            monkeypatch.setenv(name, value)
    modes: list[str | None] = []
    monkeypatch.setattr(ray, "init", lambda **_: modes.append(os.environ.get("RAY_AUTH_MODE")))
    told: list[Any] = []

    class Head(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            def answer(request: bytes, context: Any) -> bytes:
                told.append((call.method, dict(context.invocation_metadata()).get("authorization")))
                if refusal:
                    context.abort(grpc.StatusCode[refusal], "no")
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    begun = time.monotonic()
    try:
        if refusal is None:
            with cluster(f"127.0.0.1:{port}"):
                pass
        else:
            with pytest.raises(InputError, match=words):
                check_address(f"127.0.0.1:{port}")
    finally:
        server.stop(0)
    assert time.monotonic() - begun < 5
    token = None if "RAY_AUTH_MODE" in given else given.get("RAY_AUTH_TOKEN") or given.get("a file")
    mode = given.get("RAY_AUTH_MODE", "token" if token else None)
    assert modes == ([mode] if refusal is None else [])  # Ray shows what the first question has shown
    assert told == [("/ray.rpc.NodeInfoGcsService/CheckAlive", f"Bearer {token}" if token else None)]


@pytest.mark.parametrize("address", ["[::1]:6379", "head.example:6379", "10.0.0.1:6379"])
def test_every_form_of_an_address_is_understood(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(connection, "_expect_head", lambda *_: None)
    monkeypatch.setattr(connection, "_expect_node", lambda address: None)
    monkeypatch.setattr(connection.socket, "create_connection", lambda to, timeout: asked.append(to) or socket.socket())
    check_address(address)
    host, _, port = address.rpartition(":")
    assert asked == [(host.strip("[]"), int(port))]


@pytest.mark.parametrize("address", ["[::1]", "::1:6379", "[]:6379", "host:", ":6379", "host:port", "http://host:6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no address"):
        check_address(address)


@pytest.mark.parametrize("place", ["/proc/absent", "/proc/self/cmdline", "long"])
def test_a_place_where_no_local_cluster_can_be_is_refused_before_the_work(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself ends in a trace, after the stage's run was begun."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long) if place == "long" else place)
    for begin in (lambda: check_address(None), lambda: cluster(None).__enter__()):
        with pytest.raises(InputError, match="name another in RAY_TMPDIR, such as /tmp"):
            begin()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_address(None)


def test_ray_client_is_refused_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect, and refuse the first generator: it knows no streams."""
    monkeypatch.setattr(connection.socket, "create_connection", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(InputError, match=r"is of Ray Client, .* submit the pipeline as a job, or .* a node"):
        check_address("ray://10.0.0.1:10001")


@pytest.mark.parametrize("names", [["init", "python"], ["init", "raylet"]])
def test_a_machine_that_is_no_node_is_told_before_the_work(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray waits a minute for a node on the driver's machine, and says then that no attributes match."""
    import psutil

    monkeypatch.setattr(connection, "_expect_head", lambda *_: None)
    monkeypatch.setattr(connection.socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.setattr(psutil, "process_iter", lambda _: [SimpleNamespace(info={"name": name}) for name in names])
    if "raylet" in names:
        check_address("head:6379")
        return
    with pytest.raises(InputError, match=r"no node of .*: have `ray start --address=head:6379` make it one, or submit"):
        check_address("head:6379")


@pytest.mark.parametrize("failures", [1, connection.STARTS])
@pytest.mark.parametrize("words", [workarounds.LATE, *workarounds.LOST])
def test_a_local_cluster_that_dies_as_it_starts_is_started_once_more_and_told_in_the_end(
    words: str, failures: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray
    from ray._private import node, state

    begun: list[Any] = []

    def start(**options: Any) -> None:
        begun.append(options)
        if len(begun) <= failures:
            raise RuntimeError(f"System error:\n{words} ...")

    monkeypatch.setattr(ray, "init", start)
    gives_up = failures == connection.STARTS
    sentence = rf"in 3 attempts \(System error: {words} \.\.\.\): it may be too busy, end other work and run the stage"
    with pytest.raises(InputError, match=sentence) if gives_up else contextlib.nullcontext():
        connection._start(address="local")
    again = min(failures, connection.STARTS - 1)
    assert begun == [{"address": "local"}] * (again + 1)
    told = capsys.readouterr().err.splitlines()
    assert told == [f"Ray has not come up on this machine: attempt {n + 2} of 3" for n in range(again)]
    source = inspect.getsource(node) + inspect.getsource(state)
    assert words in source.replace("{'start' if self.head else 'connect to'}", "start")  # Ray still says so


def test_a_node_of_another_cluster_is_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import services

    def refuse(**_: Any) -> None:
        raise RuntimeError(f"{workarounds.NO_NODE}: '' when trying to resolve node to connect to.")

    monkeypatch.setattr(connection, "check_address", lambda address: None)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match="This machine is no node of"), cluster("head:6379"):
        pass
    source = inspect.getsource(services.get_node_to_connect_for_driver)
    assert workarounds.NO_NODE in source  # Ray still says so
