"""`dvc repro` of a data set's standard variant, from nothing: its wall time over the seconds of science within it.

``measure("mnist")`` copies the repository's files into a fresh one, as a stranger would have it. A hook at Python's
start makes every process of the pipeline, Ray's workers included, write down when it was within the library's own
work: reading the data set's source, training, inversion, evaluation, interpretation, export. All the rest of the wall
time, such as imports, Ray, MLflow, DVC and copies, is overhead.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
HOOK = """
import functools, importlib, importlib.abc, importlib.machinery, os, re, sys, time

SCIENCE = {
    "netinv.data": ("fetch_dataset",),
    "netinv.classifiers": ("train_classifier", "predict"),
    "netinv.inversion": ("InversionTraining.__iter__", "JointTraining.__iter__"),
    "netinv.evaluation": ("evaluate",),
    "netinv.interpretation": ("interpret", "train_dictionary"),
    "netinv.export": ("export_generators", "export_classifier"),
}

def note(name, start):
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    with open(os.path.join(os.environ["SCIENCE_LOG"], str(os.getpid())), "a") as log:
        log.write(f"{name} {start} {time.time()} {peak}\\n")

def timed(function, name):
    @functools.wraps(function)
    def call(*args, **kwargs):
        start = time.time()
        result = function(*args, **kwargs)
        if hasattr(result, "__next__"):
            return steps(result)
        note(name, start)
        return result

    def steps(iterator):
        while True:
            start = time.time()
            try:
                item = next(iterator)
            except StopIteration:
                return
            note(name, start)
            yield item

    return call

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, module, path, target=None):
        if module not in SCIENCE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(module, path)
        plain = spec.loader.exec_module

        def exec_module(loaded):
            plain(loaded)
            for name in SCIENCE[module]:
                *owner, last = name.split(".")
                owner = getattr(loaded, owner[0]) if owner else loaded
                setattr(owner, last, timed(getattr(owner, last), f"{module}.{name}"))

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""


def union(intervals: list[tuple[float, float]]) -> float:
    """Seconds covered by at least one interval."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def measure(dataset: str) -> dict[str, Any]:
    """Wall seconds of ``dvc repro``, of the science within it in all and by function, and peak memory by function."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        project, hook, log = (Path(temporary) / name for name in ("project", "hook", "log"))
        for folder in (project, hook, log):
            folder.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        listing = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in listing.stdout.splitlines():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
        yaml = YAML()
        params = yaml.load(project / "params.yaml")
        params["datasets"], params["variants"] = [dataset], ["standard"]
        yaml.dump(params, project / "params.yaml")
        commit = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost", "commit", "-qm", "start"]
        for command in (["git", "init", "-q"], ["git", "add", "-A"], commit):
            subprocess.run(command, cwd=project, check=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(hook),
            "SCIENCE_LOG": str(log),
        }
        start = time.perf_counter()
        done = subprocess.run(["dvc", "repro"], cwd=project, env=environment, capture_output=True, text=True)
        wall = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"dvc repro failed:\n{done.stderr[-2000:]}")
        flush = [sys.executable, "-m", "pipeline.tracking", "flush"]
        subprocess.run(flush, cwd=project, env=environment, check=True, capture_output=True)
        delivered = time.perf_counter() - start
        time.sleep(40)  # the delivery, which needs the folder, goes home after half a minute without work
        intervals: dict[str, list[tuple[float, float]]] = defaultdict(list)
        peaks: dict[str, float] = defaultdict(float)
        for file in log.iterdir():
            for line in file.read_text().splitlines():
                name, begin, end, kibibytes = line.split()
                intervals[name].append((float(begin), float(end)))
                peaks[name] = max(peaks[name], int(kibibytes) / 2**20)
    science = union([interval for several in intervals.values() for interval in several])
    return {
        "dataset": dataset,
        "wall_s": wall,
        "until_mlflow_has_all_s": delivered,
        "science_s": science,
        "overhead": wall / science - 1,
        "science_by_function_s": {name: union(several) for name, several in sorted(intervals.items())},
        "peak_gib": dict(sorted(peaks.items())),
    }
