"""A connection to a Ray cluster: a running one by its address, or a local one that lives as long as the stage."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from netinv.core import InputError, read_text
from pipeline.cluster import guard
from pipeline.cluster.workarounds import CHECK_ALIVE, LATE, LOST, NEEDED, NO_NODE, signals_kept, stay_on_this_machine
from pipeline.ending import done_at_the_end, end
from pipeline.stage import locked

STARTS = 3
"""How often a local cluster that does not come up in time is started."""
PATIENCE = 5.0
"""Seconds for each answer of a cluster that is there already."""
SILENCE = 30.0
"""Seconds without an answer after which the head of a given cluster counts as dead; after 60 Ray ends the process."""
WATCHED = 0.5
"""Seconds in which gRPC tells a channel's state; it looks every 0.2."""
_FOLDERS = "netinv-ray-"
"""Begins the names of the temporary folders of local clusters."""
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/]+)):(?P<port>\d+)")


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address``, or start a local one and stop it afterwards.

    Raises:
        InputError: The cluster refuses the connection, see also :func:`check_address`.
    """
    verbose = os.environ.get("NETINV_VERBOSE") == "1"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not verbose:  # log_to_driver does not cover what Ray reports of dead workers; read when ray is imported
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
    if address is None:
        with _local(include_dashboard=False, **options):
            yield
        return
    check_address(address)
    if _token():  # `ray start` asks for one wherever there is one; of a given address Ray itself would show none
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when ray is imported
    import ray

    import netinv
    import pipeline

    # A remote worker has neither our code nor our files, so the code travels with the job. It travels as folders,
    # because within a submitted job Ray copies the environment, and modules cannot be copied.
    code = [module.__path__[0] for module in (netinv, pipeline)]
    try:
        with signals_kept():
            ray.init(address=address, runtime_env={"py_modules": code}, **options)
    except (ConnectionError, RuntimeError) as error:
        if NO_NODE in str(error):  # what is here is of another cluster
            raise _no_node(address) from None
        raise InputError(f"The Ray cluster at RAY_ADDRESS={address} refused the connection: {error}") from None
    try:
        with _watched(_head_lost(address), PATIENCE):
            yield
    finally:
        with signals_kept():
            ray.shutdown()


@contextmanager
def _local(**options: Any) -> Iterator[None]:
    """A cluster on this machine that nobody else can reach or look into, and that leaves nothing behind.

    Ray gives its processes 30 s to come up, and a busy machine may need longer.

    Raises:
        InputError: There is no room for it, see :func:`_place`, or it does not come up, see :func:`_start`.
    """
    stay_on_this_machine()
    if _token() is None and "RAY_AUTH_MODE" not in os.environ:
        # Ray would write one into the home, which an account in a container may not have. It remembers the first.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    place = _place()
    _remove_abandoned(place)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDERS, dir=place))  # of mode 0700; Ray makes all of its own 0777
    # In a session of its own, so that what ends this process and its group leaves it to its work.
    watcher = subprocess.Popen(
        [sys.executable, guard.__file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )

    def clear() -> None:
        watcher.communicate()
        shutil.rmtree(folder, ignore_errors=True)  # there if the watcher was killed itself

    with done_at_the_end(clear), locked(folder / "lock"):
        try:
            _start(address="local", _temp_dir=str(folder / "ray"), **options)
            with _watched(_process_lost(), 1):
                yield
        finally:
            with signals_kept():
                ray.shutdown()


def _place() -> Path:
    """Where the folders of local clusters lie: Ray's own choice.

    Raises:
        InputError: Nothing can be written there, or its path is too long for the sockets that Ray makes below it.
    """
    place = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
    below = f"/{_FOLDERS}12345678/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    most = (103 if sys.platform == "darwin" else 107) - len(below)
    if not place.is_dir() or len(os.fsencode(place.absolute())) > most or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"Ray's temporary folder {place} is no folder that can be written, or its path is longer than the {most} "
            "bytes that Ray's sockets leave it: name another in RAY_TMPDIR, such as /tmp."
        )
    return place


def _start(**options: Any) -> None:
    """Start a cluster on this machine, once more where it does not come up in time or its head process dies.

    Raises:
        InputError: It did not at the last attempt, either.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            with signals_kept():
                # Without "local" Ray follows the address file of some other cluster, which may be dead.
                ray.init(**options)
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if not any(words in str(error) for words in (LATE, *LOST)):
                raise
            told = " ".join(str(error).split())[:300]
        if attempt < STARTS:
            print(f"Ray has not come up on this machine: attempt {attempt + 1} of {STARTS}", file=sys.stderr)
    raise InputError(
        f"Ray has not come up on this machine in {STARTS} attempts ({told}): it may be too busy, end other work "
        "and run the stage again."
    )


@contextmanager
def _watched(lost: Callable[[], str | None], seconds: float) -> Iterator[None]:
    """End the stage when the cluster is lost, which is asked every few seconds: Ray waits for it, and tells nobody."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(seconds):
            if told := lost():
                end(InputError(told))
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _process_lost() -> Callable[[], str | None]:
    """Asks for the processes that the local cluster of this process stands on."""
    import psutil

    needed = [process for process in psutil.Process().children() if process.name() in NEEDED]

    def lost() -> str | None:
        for process in needed:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return f"Ray's process {process.pid} on this machine has died: run the stage again."
        return None

    return lost


def _head_lost(address: str) -> Callable[[], str | None]:
    """Asks the head of the cluster that this process is connected to for a sign of life."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    heard = time.monotonic()

    def lost() -> str | None:
        nonlocal heard
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            with suppress(InputError):  # of a token that has changed: it is there
                _expect_head(address, connection)
            heard = time.monotonic()
        if time.monotonic() - heard < SILENCE:
            return None
        return (
            f"The head of the Ray cluster at RAY_ADDRESS={address} has not answered for {SILENCE:.0f} s: start it "
            "again, and run the stage again, which goes on from its checkpoints."
        )

    return lost


def _remove_abandoned(place: Path) -> None:
    """Remove the folders of clusters that were lost with their machine: their locks are free."""
    for lock in place.glob(f"{_FOLDERS}*/lock"):
        with suppress(OSError), locked(lock, wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(lock.parent, ignore_errors=True)


def check_address(address: str | None) -> None:
    """Fail within seconds where Ray would try for minutes, or where no local cluster could be started.

    Raises:
        InputError: There is no room for a local cluster; the address is malformed or of Ray Client, or nothing answers
            there, or something else than Ray, or this machine is no node of any cluster.
    """
    if address is None:
        _place()
    if address is None or address == "auto":
        return
    if address.startswith("ray://"):
        raise InputError(
            f"RAY_ADDRESS={address} is of Ray Client, through which nothing comes of generators at work: "
            "submit the pipeline as a job, or have `ray start --address=host:6379` make this machine a node and give "
            "that address."
        )
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise InputError(f"RAY_ADDRESS={address} is no address: give host:port, [IPv6]:port or auto, or unset it.")
    try:
        with socket.create_connection(
            (parts["ipv6"] or parts["host"], int(parts["port"])), timeout=PATIENCE
        ) as connection:
            _expect_head(address, connection)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error}): start it, or unset RAY_ADDRESS to run locally."
        ) from None
    _expect_node(address)


def _expect_node(address: str) -> None:
    """See that this machine has a node of some cluster, as Ray itself does, which waits a minute for one.

    Raises:
        InputError: It has none.
    """
    import psutil

    if "raylet" not in {process.info["name"] for process in psutil.process_iter(["name"])}:
        raise _no_node(address)


def _no_node(address: str) -> InputError:
    return InputError(
        f"This machine is no node of the Ray cluster at RAY_ADDRESS={address}: have `ray start --address={address}` "
        "make it one, or submit the pipeline as a job."
    )


def _expect_head(address: str, connection: socket.socket) -> None:
    """Ask what listens at the other end of a connection for a head's sign of life.

    Raises:
        InputError: It is no head, or the token is missing or wrong. Ray would try on for minutes.
        OSError: It does not speak as Ray does, or is silent for five seconds.
    """
    if os.environ.get("RAY_USE_TLS") == "1":
        return
    import grpc

    host, port, *_ = connection.getpeername()  # the system may know names that gRPC does not
    token = _token()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE)(b"", timeout=PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()
        else:
            return
        silent = code == grpc.StatusCode.DEADLINE_EXCEEDED and not _has_shaken_hands(channel)
    if code == grpc.StatusCode.UNAUTHENTICATED:
        raise InputError(
            f"The Ray cluster at RAY_ADDRESS={address} asks for a token, and "
            f"{'refuses the one that it is given' if token else 'is given none'}: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN to the cluster's, or put that into ~/.ray/auth_token."
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        raise InputError(f"RAY_ADDRESS={address} is another port of Ray's: give the head's as host:6379.")
    if code == grpc.StatusCode.UNAVAILABLE:
        raise OSError("what listens there is not Ray")
    if silent:
        raise TimeoutError("timed out")
    # Whatever else it is, such as a head that is busy, Ray itself tells more of it.


def _has_shaken_hands(channel: Any) -> bool:
    """Whether what is at the other end of a channel speaks gRPC, however late its answers are."""
    import grpc

    states: list[grpc.ChannelConnectivity] = []
    tell = states.append
    channel.subscribe(tell)
    time.sleep(WATCHED)
    channel.unsubscribe(tell)
    time.sleep(WATCHED)  # until the thread that tells has noticed: it fails on a channel that is closed
    return grpc.ChannelConnectivity.READY in states


def _token() -> str | None:
    """The token that Ray takes from the environment or from a file."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return read_text(path, "correct RAY_AUTH_TOKEN_PATH", most=4096).strip() if path.exists() else None
