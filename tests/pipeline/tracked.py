"""Stages that track in MLflow, and what is seen of them there."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own

    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

REPOSITORY = Path(__file__).parents[2]
SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "NETINV_PIPELINE_RUN", "DVC_EXP_NAME")


def environment(**extra: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**clean, **quiet, "PATH": path, "PYTHONPATH": str(REPOSITORY), **extra}


def start(code: str, root: Path, **extra: str) -> subprocess.Popen[str]:
    """A stage process."""
    script = "from pipeline import tracking\nfrom pathlib import Path\nimport numpy as np, sys, time\n"
    return subprocess.Popen(
        [sys.executable, "-c", script + textwrap.dedent(code)],
        cwd=root,
        env=environment(**extra),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def deliveries(root: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(root) and "deliver" in (process.info["cmdline"] or [])
    ]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def run_of(store: MlflowClient, path: str) -> Run:
    """The run that a stage has left behind, once all of it is delivered."""
    run_id = json.loads(Path(path).read_text())["run_id"]
    wait_for(lambda: store.get_run(run_id).info.status != "RUNNING")
    return store.get_run(run_id)


def history(store: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in store.get_metric_history(run.info.run_id, name)]


def artifacts(store: MlflowClient, run: Run, folder: str | None = None) -> list[str]:
    return sorted(file.path for file in store.list_artifacts(run.info.run_id, folder))


def children(store: MlflowClient, run: Run) -> list[Run]:
    parent = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    return list(store.search_runs([run.info.experiment_id], parent, order_by=["attributes.start_time"]))


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], Any]) -> Iterator[str]:
    """The address of a server that does so with every connection."""

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
