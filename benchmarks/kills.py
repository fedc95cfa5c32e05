"""SIGKILLs, parts of ``chaos.py``: of workers and who looks after them, of nodes, of all that a stage starts."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from projects import environment, equal, fresh_project, generator_runs, generators, run
from ray_work import (
    CHECKPOINT_EVERY,
    JOINS_AFTER,
    MODES,
    PATIENCE,
    TRAINING,
    Mode,
    Row,
    Work,
    at_work,
    several_nodes,
    watched,
)

from netinv.classifiers import Classifier
from pipeline.cluster import cluster

STAGE = "invert@digits-standard"
SETTINGS = {
    "ray.checkpoint_every": CHECKPOINT_EVERY,
    "invert.standard.steps": 600,
    "invert.common.num_generators": 2,
}
STAGE_ENDS = 600
"""Seconds: Ray's workers are nice, and starve where others work."""
KINDS = {
    "dvc": r"dvc repro",
    "the stage": r"pipeline\.invert",
    "Ray's head process": r"gcs_server",
    "raylet": r"raylet/raylet",
    "an agent of Ray": r"ray::\w+Agent|log_monitor|runtime_env/agent|dashboard/",
    "a worker": r"ray::|default_worker",
    "what clears up": r"cluster/guard",
    "the delivery": r"pipeline\.tracking",
}
"""What a stage starts, by a pattern of its command line; the first that fits counts."""


def kill_one(work: Work, mode: Mode, moment: float, rng: random.Random, killed: list[str]) -> None:
    """Kill one process at a moment of the work, in seconds, or a little later if there is none yet."""
    time.sleep(moment)
    deadline = time.monotonic() + PATIENCE
    while not killed and time.monotonic() < deadline and min(work.done.values(), default=0) < mode.steps:
        if victims := at_work():
            with suppress(psutil.Error):
                victim = rng.choice(victims)
                title = victim.cmdline()[0]
                victim.kill()
                killed.append(title)
        time.sleep(0.02)


@contextlib.contextmanager
def two_nodes() -> Iterator[None]:
    """A Ray of two nodes, with a CPU each."""
    with several_nodes() as machines:
        for _ in range(2):
            machines.add_node(num_cpus=1)
        yield


PLACES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "one node": lambda: cluster(None),
    "two nodes": two_nodes,
}


def workers_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """SIGKILL of a random process at a random time."""
    for place, enter in PLACES.items():
        for name, mode in MODES.items():
            rng = random.Random(f"{name}, {place}")
            with enter():
                Work(classifier, mode).run()  # starts processes that later runs find there
                undisturbed = Work(classifier, mode).run()
                told: list[dict[str, Any]] = []
                while len(told) < trials:
                    work, killed, moment = Work(classifier, mode), list[str](), rng.uniform(0, undisturbed.seconds)
                    kill = partial(kill_one, work, mode, moment, rng, killed)
                    trial: dict[str, Any] = {"moment_s": round(moment, 2)}
                    try:
                        outcome = watched(work, kill)
                        trial |= {
                            "recovered": True,
                            "equal": outcome.equals(undisturbed),
                            "redone_steps": outcome.redone,
                            "seconds": round(outcome.seconds, 1),
                        }
                    except Exception as error:
                        trial |= {"recovered": False, "error": str(error)[-500:]}
                    if killed:  # else the work was done before the kill
                        told.append(trial | {"killed": killed[0]})
                        print(f"  {name}, {place} {len(told)}: {told[-1]}", file=sys.stderr)
            yield f"{name}, {place}", {"undisturbed_s": undisturbed.seconds, "trials": told}, _row(name, place, told)


def _row(name: str, place: str, told: list[dict[str, Any]]) -> Row:
    """What came of the trials in a mode."""
    recovered = sum(trial["recovered"] for trial in told)
    equal = sum(trial.get("equal", False) for trial in told)
    redone = max(trial.get("redone_steps", 0) for trial in told)
    longest = max(trial.get("seconds", PATIENCE) for trial in told)
    return (
        f"SIGKILL of a random process, {len(told)} trials, {name}, {place}",
        "all recover, one interval at most, equal",
        f"{recovered} recovered, {equal} equal, at most {redone} steps of {CHECKPOINT_EVERY} done again, "
        f"{longest:.0f} s at most",
        recovered == equal == len(told) and redone <= CHECKPOINT_EVERY,
    )


def lose(node: Any) -> None:
    """Kill every process of a node, as when its power goes."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [*raylet.children(recursive=True), raylet]:
        with suppress(psutil.Error):
            process.kill()


def is_busy(node: Any) -> bool:
    """Whether a generator is trained on a node."""
    return bool(at_work(psutil.Process(node.all_processes["raylet"][0].process.pid), TRAINING))


def lose_one(work: Work, machines: Any, nodes: list[Any], spare: bool) -> None:
    """Lose a node that is at work, between two checkpoints; without a spare one another joins later."""
    victim, deadline = None, time.monotonic() + PATIENCE
    while victim is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"No generator has come to its first checkpoint within {PATIENCE} s.")
        time.sleep(0.02)
        if max(work.done.values(), default=0) > 1.5 * CHECKPOINT_EVERY:
            with suppress(psutil.Error):
                victim = next((node for node in nodes if is_busy(node)), None)
    lose(victim)
    if not spare:
        time.sleep(JOINS_AFTER)
        machines.add_node(num_cpus=2)


def nodes_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """Loss of a node of two, with another one to go on, and without until one joins."""
    for name, mode in MODES.items():
        with cluster(None):
            undisturbed = Work(classifier, mode).run()
        for spare in (True, False):
            with several_nodes() as machines:
                nodes = [machines.add_node(num_cpus=2) for _ in range(1 + spare)]
                work = Work(classifier, mode)

                disturb = partial(lose_one, work, machines, nodes, spare)
                try:
                    outcome = watched(work, disturb)
                    equal = outcome.equals(undisturbed)
                    figures = {"equal": equal, "redone_steps": outcome.redone, "seconds": outcome.seconds}
                    came = f"{'equal' if equal else 'not equal'}, {outcome.redone} steps done again"
                except Exception as error:
                    equal, figures, came = False, {"error": str(error)[-500:]}, str(error).splitlines()[0][:200]
            case = "another node has room" if spare else f"a node joins {JOINS_AFTER} s later"
            row = (f"loss of a node, {name}, {case}", "goes on, equal", came, equal)
            yield f"{name}, {case}", figures, row


def started_in(project: Path) -> dict[str, list[psutil.Process]]:
    """The processes that work in a folder, by kind."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(project) and process.status() != psutil.STATUS_ZOMBIE:
                line = " ".join(process.cmdline())
                kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, line)), None)
                if kind is not None:
                    found.setdefault(kind, []).append(process)
    return found


class StuckError(Exception):
    """A stage has not ended long after the loss of what the message names."""


def kill_of_tree(project: Path, moment: float, rng: random.Random) -> tuple[str, int]:
    """Run the stage and kill one of what it has started, of a random kind; returns the kind and how the stage ended.

    Raises:
        StuckError: The stage does not end.
    """
    command = ["dvc", "repro", "--single-item", "--force", STAGE]
    place = {**environment(), "RAY_TMPDIR": str(project.parent)}
    stage = subprocess.Popen(command, cwd=project, env=place, stdout=-3, stderr=-3, start_new_session=True)
    time.sleep(moment)
    kind = "none"
    if stage.poll() is None and (victims := started_in(project)):
        kind = rng.choice([*victims, "dvc and the stage"])
        if kind == "dvc and the stage":
            os.killpg(stage.pid, signal.SIGKILL)
        else:
            with suppress(psutil.Error):
                rng.choice(victims[kind]).kill()
    try:
        return kind, stage.wait(STAGE_ENDS)
    except subprocess.TimeoutExpired:
        os.killpg(stage.pid, signal.SIGKILL)
        raise StuckError(kind) from None


def orphans_end(project: Path) -> None:
    """Wait for a stage that goes on without its ``dvc repro``; another one is refused meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while "the stage" in started_in(project):
        if time.monotonic() > deadline:
            raise RuntimeError(f"A stage without its dvc has not ended within {PATIENCE} s.")
        time.sleep(0.2)


def left(project: Path) -> int:
    """Processes and folders that are still there 10 s after a stage's end; the delivery has a bound of its own."""
    deadline = time.monotonic() + 10
    while True:
        there = [process for kind, found in started_in(project).items() if kind != "the delivery" for process in found]
        folders = list(project.parent.glob("netinv-ray-*"))
        if not there + folders or time.monotonic() > deadline:
            return len(there + folders)
        time.sleep(0.5)


def tree_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """SIGKILL of anything that ``dvc repro`` has started at a random time, then ``dvc repro`` again where it failed."""
    rng = random.Random(1)
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        project = fresh_project(Path(temporary), **SETTINGS)
        command = ["dvc", "repro", "--single-item", "--force", STAGE]
        flush = [sys.executable, "-m", "pipeline.tracking", "flush"]
        run(project, *command)
        start = time.perf_counter()
        run(project, *command)
        seconds = time.perf_counter() - start
        run(project, *flush)
        undisturbed, metrics = generators(project), project / "metrics/invert/digits-standard.json"
        wanted, seen = metrics.read_text(), set(generator_runs(project))
        (points,) = {value["points"] for value in generator_runs(project).values()}
        while len(told) < trials:
            moment = rng.uniform(0, seconds)
            trial: dict[str, Any] = {"moment_s": round(moment, 1), "recovered": False}
            start = time.perf_counter()
            try:
                trial["killed"], status = kill_of_tree(project, moment, rng)
                if trial["killed"] == "none":  # the work was done before
                    run(project, *flush)
                    seen = set(generator_runs(project))
                    continue
                orphans_end(project)
                trial["left"] = left(project)
                if status:
                    run(project, *command)
                run(project, *flush)
                trial |= {"again": bool(status), "recovered": True}
                trial["equal"] = wanted == metrics.read_text() and equal(project, undisturbed)
                new = {key: value for key, value in generator_runs(project).items() if key not in seen}
                # A stage that lost its dvc goes on to its end, and the second one begins anew.
                times = (1, 2) if trial["killed"] == "dvc" else (1,)
                whole = all(run["points"] == points and not run["twice"] for run in new.values())
                trial["whole"] = whole and len(new) in [2 * count for count in times]
                trial["seconds"] = round(time.perf_counter() - start, 1)
            except StuckError as error:
                trial |= {"killed": str(error), "error": f"no end within {STAGE_ENDS} s"}
            except Exception as error:
                trial["error"] = str(error)[-500:]
            seen = set(generator_runs(project))
            told.append(trial)
            print(f"  tree {len(told)}: {trial}", file=sys.stderr)
    yield "tree", {"undisturbed_s": seconds, "trials": told}, _row_of_tree(told)


def _row_of_tree(told: list[dict[str, Any]]) -> Row:
    """What came of the trials with a whole stage."""
    fine = {key: sum(trial.get(key, False) for trial in told) for key in ("recovered", "equal", "whole")}
    again, left_over = sum(trial.get("again", False) for trial in told), sum(trial.get("left", 0) for trial in told)
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(trial["killed"] for trial in told).most_common())
    return (
        f"SIGKILL of anything that `dvc repro` started ({kinds}), then `dvc repro` where it failed",
        "all recover, equal, MLflow whole, nothing left after 10 s",
        f"{fine['recovered']} of {len(told)} recovered ({again} by a second run), {fine['equal']} equal, "
        f"MLflow's records whole {fine['whole']} times, {left_over} processes or folders left",
        set(fine.values()) == {len(told)} and not left_over,
    )
