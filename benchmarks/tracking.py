"""What tracking costs: ``python benchmarks/tracking.py OUT.json``, in a repository with digits fetched.

* Stages with tracking against the same without, in turn, on a local ``mlflow server``: wall times and their ratio, and
  processor time. One of them only waits, which shows what does not depend on a stage's work.
* 100,000 metric points of one run: the calls that the server's access log counts, in its busiest minute.

The digits classifier that the invert stage needs is trained here if it is absent.
"""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

WITHOUT = """
import contextlib
from pipeline import tracking
class Nothing:
    id = None
    def __getattr__(self, name):
        return lambda *args, **kwargs: None
    @contextlib.contextmanager
    def child(self, *args, **kwargs):
        yield self
@contextlib.contextmanager
def nothing(*args, **kwargs):
    yield Nothing()
tracking.stage_run = nothing
"""
STAGE = "from pipeline.{stage} import main; main()"
WAIT = """
import time
from pipeline import tracking
with tracking.stage_run("bench", "digits") as run:
    for step in range(80):
        run.log_metrics({"bench/loss": step / 7}, step=step)
        time.sleep(0.1)
"""
POINTS = """
from pipeline import tracking
with tracking.stage_run("bench", "digits", wait=True) as run:
    for step in range(10_000):
        run.log_metrics({f"bench/metric-{i}": step / 7 for i in range(10)}, step=step)
"""


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A local server on SQLite, with an access log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("a") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=2).close()
            return server, uri
        except OSError:
            time.sleep(0.5)


def timed(code: str, arguments: list[str], uri: str) -> tuple[float, float]:
    """Seconds of a stage's process, and its processor time."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(Path(__file__).parents[1])}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(code: str, arguments: list[str], uri: str, repeats: int) -> dict[str, object]:
    """A stage with and without tracking, in turn."""
    timed(code, arguments, uri)  # the delivery is at work from here on
    pairs = []
    for repeat in range(repeats):
        codes = [code, WITHOUT + code]
        first, second = (timed(c, arguments, uri) for c in (codes if repeat % 2 == 0 else codes[::-1]))
        pairs.append((first, second) if repeat % 2 == 0 else (second, first))
    ratios = sorted(with_[0] / without[0] for with_, without in pairs)
    return {
        "wall_with_and_without_s": [(round(with_[0], 2), round(without[0], 2)) for with_, without in pairs],
        "cpu_with_and_without_s": [(round(with_[1], 2), round(without[1], 2)) for with_, without in pairs],
        "ratio_median": statistics.median(ratios),
        "ratio_range": (ratios[0], ratios[-1]),
        "difference_median_s": statistics.median(with_[0] - without[0] for with_, without in pairs),
        "cpu_difference_median_s": statistics.median(with_[1] - without[1] for with_, without in pairs),
        "load": os.getloadavg()[0],
    }


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
        classifier = Path("models/digits/classifier")
        stages: dict[str, tuple[str, list[str], int]] = {
            "train digits": (STAGE.format(stage="train"), ["digits", "classifier", "--data", "data/digits"], 6),
            "invert digits": (STAGE.format(stage="invert"), ["digits", "standard", "--model", str(classifier)], 4),
        }
        try:
            figures["wait"] = compare(WAIT, [], uri, 8)
            print("wait", figures["wait"], flush=True)
            server_log = scratch / "server" / "log"
            server_log.write_text("")  # the server appends
            timed(POINTS, [], uri)
            timed("from pipeline.tracking import main; main()", ["flush"], uri)
            busiest, calls = busiest_minute(server_log)
            with contextlib.closing(sqlite3.connect(scratch / "server" / "mlflow.db")) as database:
                query = "select count(distinct key || ' ' || step) from metrics where key like 'bench/metric-%'"
                (points,) = database.execute(query).fetchone()
            figures["points"] = {"busiest_minute": busiest, "calls": calls, "points": points}
            print("points", figures["points"], flush=True)
            if not classifier.exists():
                arguments = ["digits", "classifier", "--data", "data/digits", "--out", str(classifier)]
                timed(STAGE.format(stage="train"), [*arguments, *outputs[2:]], uri)
            for name, (code, arguments, repeats) in stages.items():
                figures[name] = compare(code, [*arguments, *outputs], uri, repeats)
                print(name, figures[name], flush=True)
                out.write_text(json.dumps(figures, indent=1) + "\n")
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
