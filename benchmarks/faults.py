"""What becomes of a stage when what it stands on misbehaves: ``python benchmarks/faults.py``, part of ``make chaos``.

* clock: the time of day goes back an hour in the middle of a stage, and forth a day a little later
* server: one of three requests to MLflow's server is answered by an error, or not at all
* together: two clones, ``dvc repro`` in both at once, that share DVC's cache, MLflow's server and a Ray of two nodes

Each on the real thing, with digits. What was disturbed must end with the weights and the metrics of what was not, and
MLflow must have every record once. Prints a Markdown table, and fails where something was lost.
"""

import argparse
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from preload import CLOCK, compiled
from projects import environment, equal, fresh_project, generator_runs, generators, run
from ray_work import several_nodes

SETTINGS = {"ray.checkpoint_every": 40, "invert.standard.steps": 400, "invert.common.num_generators": 2}
STAGE = "invert@digits-standard"
Row = tuple[str, str, bool]
"""What was done, what came of it, whether that is enough."""


def repro(project: Path, **extra: str) -> subprocess.Popen[str]:
    """``dvc repro`` of the stage, whatever DVC has of it."""
    command = ["dvc", "repro", "--single-item", "--force", STAGE]
    return subprocess.Popen(
        command,
        cwd=project,
        env={**environment(), **extra},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(stage: "subprocess.Popen[str]") -> None:
    """Wait for it.

    Raises:
        RuntimeError: It failed.
    """
    output, _ = stage.communicate(timeout=600)
    if stage.returncode:
        raise RuntimeError(output[-2000:])


def told(same: bool, runs: dict[str, dict[str, Any]], wanted: int, points: int) -> tuple[str, bool]:
    """What came of it, in words, and whether nothing is lost or doubled."""
    twice = sum(value["twice"] for value in runs.values())
    whole = len(runs) == wanted and all(value["points"] == points for value in runs.values())
    missing = "none" if whole else "some"
    finished = all(value["status"] == "FINISHED" for value in runs.values())
    words = (
        f"{'equal' if same else 'not equal'}; in MLflow {len(runs)} runs of {wanted} generators, "
        f"{missing} of their points missing, {twice} twice, {'all' if finished else 'not all'} finished"
    )
    return words, same and whole and finished and not twice


def clock(project: Path, undisturbed: list[dict[str, torch.Tensor]], points: int) -> Row:
    """The time of day jumps."""
    library = compiled(CLOCK, project.parent / "clock.so")
    before = generator_runs(project)
    back, forth = project.parent / "back", project.parent / "forth"
    stage = repro(project, LD_PRELOAD=str(library), CLOCK_BACK=str(back), CLOCK_FORTH=str(forth))
    for place in (back, forth):
        _wait_for_more(project, stage)
        place.touch()
    ended(stage)
    run(project, sys.executable, "-m", "pipeline.tracking", "flush")
    new = {key: value for key, value in generator_runs(project).items() if key not in before}
    words, fine = told(equal(project, undisturbed), new, 2, points)
    return "the time of day goes back an hour, then forth a day", words, fine


def _wait_for_more(project: Path, stage: "subprocess.Popen[str]") -> None:
    """Until the stage has written a checkpoint, or another one."""

    def seen() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (project / ".stage/checkpoints").rglob("[0-9]*.pt")}

    before, deadline = seen(), time.monotonic() + 300
    while not seen().keys() - before.keys() and seen() == before:
        if stage.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("The stage has written no checkpoint.")
        time.sleep(0.1)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's server on a database of its own."""
    folder.mkdir()
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {**environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen([*command, "--workers", "1"], env=quiet, stdout=-3, stderr=-3, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@contextmanager
def failing(uri: str) -> Iterator[tuple[str, list[int]]]:
    """A server before another one, that lets down every third connection: by an error, or by closing it."""
    host, port = uri.removeprefix("http://").split(":")
    seen, lock = [0, 0], threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with lock:
                seen[0] += 1
                fail = seen[0] % 3 == 0
                seen[1] += fail
                kind = seen[1] % 2
            if fail:
                if kind:
                    self.request.recv(2**16)
                    self.request.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection((host, int(port))) as upstream:
                back = threading.Thread(target=pump, args=(upstream, self.request), daemon=True)
                back.start()
                pump(self.request, upstream, close_after=True)
                back.join(60)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", seen
        listening.shutdown()


def pump(source: socket.socket, target: socket.socket, close_after: bool = False) -> None:
    """Copy one direction of a connection; every request has one of its own."""
    try:
        while piece := source.recv(2**16):
            if close_after:
                piece = piece.replace(b"Connection: keep-alive", b"Connection: close")
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def server_part(project: Path, undisturbed: list[dict[str, torch.Tensor]], points: int) -> Row:
    """A third of all requests fails."""
    folder = project.parent / "failing"
    with server(folder) as uri, failing(uri) as (bad, seen):
        ended(repro(project, MLFLOW_TRACKING_URI=bad))
        for _ in range(20):  # each goes on where the last one was let down
            flush = [sys.executable, "-m", "pipeline.tracking", "flush"]
            environment_of = {**environment(), "MLFLOW_TRACKING_URI": bad}
            if not subprocess.run(flush, cwd=project, env=environment_of, capture_output=True, check=False).returncode:
                break
        words, fine = told(equal(project, undisturbed), generator_runs(folder), 2, points)
    return f"a server that failed {seen[1]} of {seen[0]} connections", words, fine and seen[1] > 0


def together(project: Path, undisturbed: list[dict[str, torch.Tensor]], points: int) -> Row:
    """Two clones at once."""
    twin, folder = project.parent / "twin", project.parent / "shared"
    shutil.copytree(project, twin, symlinks=True)
    for clone in (project, twin):
        run(clone, "dvc", "cache", "dir", str(project.parent / "cache"))
    with server(folder) as uri, several_nodes() as nodes:
        for _ in range(2):
            nodes.add_node(num_cpus=2)
        stages = [repro(clone, MLFLOW_TRACKING_URI=uri, RAY_ADDRESS=nodes.address) for clone in (project, twin)]
        for stage in stages:
            ended(stage)
        for clone in (project, twin):
            flush = [sys.executable, "-m", "pipeline.tracking", "flush"]
            subprocess.run(flush, cwd=clone, env={**environment(), "MLFLOW_TRACKING_URI": uri}, check=True)
        same = equal(project, undisturbed) and equal(twin, undisturbed)
        for clone in (project, twin):  # whole in the cache that they share
            shutil.rmtree(clone / "generators")
            run(clone, "dvc", "checkout", STAGE)
        same &= equal(project, undisturbed) and equal(twin, undisturbed)
        words, fine = told(same, generator_runs(folder), 4, points)
    return "two clones at once: one cache, one server, one Ray of two nodes", words, fine


PARTS: dict[str, Callable[[Path, list[dict[str, torch.Tensor]], int], Row]] = {
    "clock": clock,
    "server": server_part,
    "together": together,
}


def main() -> None:
    """Do it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        project = fresh_project(Path(folder), **SETTINGS)
        ended(repro(project))
        run(project, sys.executable, "-m", "pipeline.tracking", "flush")
        undisturbed, (points,) = generators(project), {value["points"] for value in generator_runs(project).values()}
        for name in options.only:
            rows.append(PARTS[name](project, undisturbed, points))
            print(rows[-1], file=sys.stderr)
    print("| what was done | what came of it | |\n|---|---|---|")
    for what, came, fine in rows:
        print(f"| {what} | {came} | {'yes' if fine else '**no**'} |")
    sys.exit(not all(fine for *_, fine in rows))


if __name__ == "__main__":
    main()
