"""What tracking costs: ``python benchmarks/tracking.py OUT.json``, in a repository with digits fetched.

* A stage with tracking against the same without, in turn, on a local ``mlflow server``: ratio of the wall times.
* 100,000 metric points of one run: the calls that the server's access log counts, in its busiest minute.
"""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

WITHOUT = """
import contextlib, sys
from unittest.mock import MagicMock
from pipeline import tracking
@contextlib.contextmanager
def nothing(*args, **kwargs):
    run = MagicMock()
    run.child = nothing
    yield run
tracking.stage_run = nothing
"""
STAGE = "from pipeline.{stage} import main; main()"
POINTS = """
from pipeline import tracking
with tracking.stage_run("bench", "digits") as run:
    for step in range(10_000):
        run.log_metrics({f"bench/metric-{i}": step / 7 for i in range(10)}, step=step)
"""


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A local server on SQLite, with an access log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("a") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=2).close()
            return server, uri
        except OSError:
            time.sleep(0.5)


def timed(code: str, arguments: list[str], uri: str) -> float:
    """Seconds of a stage's process."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(Path(__file__).parents[1])}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True)
    return time.perf_counter() - begin


def busiest_minute(log: Path) -> tuple[int, int]:
    """Calls in the busiest 60 seconds of an access log, and calls in all."""
    moments = [
        datetime.strptime(line[:19], "%Y/%m/%d %H:%M:%S").timestamp()
        for line in log.read_text().splitlines()
        if re.search(r'"(GET|POST|PUT|PATCH|DELETE) /api/', line)
    ]
    return max(sum(start <= moment < start + 60 for moment in moments) for start in moments), len(moments)


def main(out: Path) -> None:
    """Measure, print, and write the figures."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        (scratch / "server").mkdir()
        server, uri = start_server(scratch / "server")
        outputs = [
            "--out",
            str(scratch / "out"),
            "--metrics",
            str(scratch / "m.json"),
            "--plots",
            str(scratch / "p.csv"),
        ]
        stages = {
            "train": (["digits", "classifier", "--data", "data/digits", *outputs], 4),
            "invert": (["digits", "robust", "--model", "models/digits/classifier", *outputs], 2),
        }
        try:
            for stage, (arguments, repeats) in stages.items():
                code = STAGE.format(stage=stage)
                timed(code, arguments, uri)  # the courier is at work from here on
                pairs = [(timed(code, arguments, uri), timed(WITHOUT + code, arguments, uri)) for _ in range(repeats)]
                ratios = [with_ / without for with_, without in pairs]
                figures[stage] = {"with_and_without_s": pairs, "ratio_median": statistics.median(ratios)}
                print(stage, figures[stage], flush=True)
            server_log = scratch / "server" / "log"
            server_log.write_text("")  # the server appends
            begin = time.perf_counter()
            timed(POINTS, [], uri)
            busiest, calls = busiest_minute(server_log)
            figures["points"] = {"busiest_minute": busiest, "calls": calls, "seconds": time.perf_counter() - begin}
            print("100,000 points", figures["points"], flush=True)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
