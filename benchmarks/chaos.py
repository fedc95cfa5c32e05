"""What survives when something dies, and what Ray costs: ``python benchmarks/chaos.py``, or ``make chaos``.

* workers: SIGKILL of a random process of the work at a random time, for generators on one worker each, and for one
  that two workers share
* nodes: every process of a node that is at work is killed; another node is there, or joins later
* driver: SIGKILL of ``dvc repro`` and of its stage in the middle, then ``dvc repro`` again, with MLflow's records
* cost: a step of the stage ``invert``, with Ray and tracking, over one of the bare loop; and what a stage costs at once
* ensemble: four generators on two slots of one thread each, against one after the other on one thread

All on a real Ray on this machine, with digits. What was disturbed must end with the weights and the metrics of what was
not. It prints a Markdown table as it goes, writes it with all figures beside this file, and fails where a fault was not
survived.
"""

import argparse
import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch
from safetensors.torch import load_file

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    train_classifier,
)
from netinv.data import channel_statistics, load_digits
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert
from pipeline.cluster import cluster, run_tasks
from pipeline.generators import Job, load_state, train_generator
from pipeline.params import RayParams

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT_EVERY = 40
"""Steps, of the trials."""
LOG_EVERY = 5
JOINS_AFTER = 15
"""Seconds after the loss of a node."""
PATIENCE = 180
"""Seconds after which a run that does not go on counts as lost."""


TRAINING = "train_generator|RayTrainWorker"
"""What Ray calls the processes in which generators are trained."""
OURS = TRAINING + "|WorkerGroup|TrainController"
"""And those that look after them."""


class Mode(NamedTuple):
    """How generators are spread over workers."""

    generators: int
    num_workers: int
    steps: int


MODES = {"ensemble": Mode(generators=2, num_workers=1, steps=400), "data-parallel": Mode(1, num_workers=2, steps=240)}


class Outcome(NamedTuple):
    """How a run ended."""

    seconds: float
    weights: dict[int, dict[str, torch.Tensor]]
    records: dict[int, dict[str, float]]
    redone: int
    """Steps done again, the most of any generator."""

    def equals(self, other: "Outcome") -> bool:
        """Whether the weights are the same bit for bit, and the last records the same."""
        same = all(
            torch.equal(tensor, other.weights[index][name])
            for index, weights in self.weights.items()
            for name, tensor in weights.items()
        )
        return same and self.records == other.records


Row = tuple[str, str, str, bool]
"""What, the target, what came out, whether that is enough."""


def digits_classifier() -> Classifier:
    """A small classifier of digits, quickly trained."""
    data = load_digits().train
    torch.manual_seed(0)
    config = ConvClassifierConfig(channels=(16, 32), feature_dim=64, batch_norm=False)
    classifier = build_classifier(config, 10, (1, 16, 16), *channel_statistics(data.images))
    training = ClassifierTrainingConfig(epochs=4, batch_size=64)
    *_, last = train_classifier(classifier, data, training, seed=0)
    assert last["accuracy"] > 0.9
    freeze(classifier)
    return classifier


def config_of(steps: int, log_every: int) -> InversionConfig:
    """The paper's loss."""
    return InversionConfig(steps=steps, batch_size=64, log_every=log_every)


class Work:
    """Trains the generators of a mode with Ray, and remembers how far they have come."""

    def __init__(
        self,
        classifier: Classifier,
        mode: Mode,
        checkpoint_every: int = CHECKPOINT_EVERY,
        log_every: int = LOG_EVERY,
    ) -> None:
        self._classifier, self._mode, self._every, self._log_every = classifier, mode, checkpoint_every, log_every
        self.done: dict[int, int] = {}
        """Steps by generator."""

    def run(self) -> Outcome:
        """From the start to the end, whatever dies meanwhile."""
        mode, start = self._mode, time.perf_counter()
        resources = RayParams(
            num_workers=mode.num_workers, num_cpus=1, num_gpus=0, checkpoint_every=self._every, storage="unused"
        )
        shared = (self._classifier, self._every)
        config = config_of(mode.steps, self._log_every)
        jobs = {index: Job(index, GeneratorConfig(), config) for index in range(mode.generators)}
        records, states, redone = {}, {}, 0
        for index, event in run_tasks(train_generator, jobs, shared, {}, resources):
            step = int(event.record["step"])
            redone = max(redone, self.done.get(index, 0) - (step - self._log_every))
            self.done[index] = step
            records[index] = event.record
            if event.state is not None:
                states[index] = event.state
        weights = {index: load_state(state)["generator"] for index, state in states.items()}
        return Outcome(time.perf_counter() - start, weights, records, redone)


def watched(work: Work, disturb: Callable[[], None]) -> Outcome:
    """Run, with something that happens beside it.

    Raises:
        TimeoutError: Nothing has come from the work for a long time.
        Exception: What ended the work.
    """
    outcomes: list[Outcome] = []
    errors: list[Exception] = []

    def guarded_run() -> None:
        try:
            outcomes.append(work.run())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=guarded_run, daemon=True)
    thread.start()
    disturb()  # in the main thread, where Ray wants nodes to be started
    before, since = -1, time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        if (done := sum(work.done.values())) != before:
            before, since = done, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise TimeoutError(f"No generator has come on for {PATIENCE} s, steps done: {work.done}")
    if errors:
        raise errors[0]
    return outcomes[0]


def at_work(root: psutil.Process | None = None, names: str = OURS) -> list[psutil.Process]:
    """Ray's processes below another, this one by default, that train a generator or look after those that do."""
    found = []
    for process in (root or psutil.Process()).children(recursive=True):
        with suppress(psutil.Error):
            if re.match(rf"ray::({names})", (process.cmdline() or [""])[0]):
                found.append(process)
    return found


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


def workers_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """SIGKILL of a random process at a random time."""
    rng = random.Random(0)
    with cluster(None):
        for name, mode in MODES.items():
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
                    print(f"  {name} {len(told)}: {told[-1]}", file=sys.stderr)
            recovered = sum(trial["recovered"] for trial in told)
            equal = sum(trial.get("equal", False) for trial in told)
            redone = max(trial.get("redone_steps", 0) for trial in told)
            came = f"{recovered} recovered, {equal} equal, at most {redone} steps of {CHECKPOINT_EVERY} done again"
            yield (
                name,
                {"undisturbed_s": undisturbed.seconds, "trials": told},
                (
                    f"SIGKILL of a random process, {trials} trials, {name}",
                    f"{trials} recover, one interval at most, equal",
                    came,
                    recovered == equal == trials and redone <= CHECKPOINT_EVERY,
                ),
            )


@contextmanager
def several_nodes() -> Iterator[Any]:
    """A Ray cluster of several nodes on this machine: a head without CPUs, which is where the driver is."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        with cluster(nodes.address):
            yield nodes
    finally:
        nodes.shutdown()


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


def run(project: Path, *command: str, **popen: Any) -> subprocess.CompletedProcess[str]:
    """A command in a project, with this interpreter's programs first."""
    result = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, **popen)
    if result.returncode:
        raise RuntimeError(f"{command}: {result.stderr[-2000:]}")
    return result


def environment() -> dict[str, str]:
    """Without what would lead the stages elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RAY_", "NETINV_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def fresh_project(folder: Path, **settings: Any) -> Path:
    """A repository of this one's files with a trained classifier of digits, and other settings (dotted keys)."""
    from ruamel.yaml import YAML

    project = folder / "project"
    for name in run(ROOT, "git", "ls-files").stdout.splitlines():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    run(project, "git", "init", "-q")
    change(project, YAML(), settings)
    run(project, "dvc", "repro", "train@digits-classifier")
    return project


def change(project: Path, yaml: Any, settings: dict[str, Any]) -> None:
    """Other settings in params.yaml."""
    params = yaml.load(project / "params.yaml")
    for key, value in settings.items():
        *parents, last = key.split(".")
        node = params
        for parent in parents:
            node = node[parent]
        node[last] = value
    yaml.dump(params, project / "params.yaml")


def generators(project: Path) -> list[dict[str, torch.Tensor]]:
    """The weights that the stage left."""
    files = sorted((project / "generators/digits/standard").glob("*/*.safetensors"))
    return [load_file(file) for file in files]


def driver_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """SIGKILL of ``dvc repro`` with its stage, then ``dvc repro`` again."""
    with tempfile.TemporaryDirectory() as temporary:
        project = fresh_project(
            Path(temporary),
            **{
                "ray.checkpoint_every": CHECKPOINT_EVERY,
                "invert.standard.steps": 800,
                "invert.common.num_generators": 2,
            },
        )
        command = ["dvc", "repro", "--single-item", "invert@digits-standard"]
        run(project, *command)
        undisturbed, metrics = generators(project), (project / "metrics/invert/digits-standard.json").read_text()
        runs_before = generator_runs(project)
        storage = project / ".stage/checkpoints"
        stage = subprocess.Popen(
            [*command, "--force"], cwd=project, env=environment(), stdout=-3, stderr=-3, start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE
        while not list(storage.glob("*/*.pt")):
            if time.monotonic() > deadline or stage.poll() is not None:
                raise RuntimeError("The stage came to no checkpoint.")
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(stage.pid, signal.SIGKILL)
        stage.wait()
        time.sleep(3)  # Ray's processes end when they see that their driver is gone
        again = run(project, *command, "--force")
        run(project, sys.executable, "-m", "pipeline.tracking", "flush")
        resumed = "goes on from its checkpoints" in again.stdout + again.stderr
        same = all(
            torch.equal(tensor, other[name])
            for weights, other in zip(undisturbed, generators(project), strict=True)
            for name, tensor in weights.items()
        )
        same &= metrics == (project / "metrics/invert/digits-standard.json").read_text()
        new = {key: value for key, value in generator_runs(project).items() if key not in runs_before}
        twice = sum(value["twice"] for value in new.values())
        points = {value["points"] for value in [*new.values(), *runs_before.values()]}
        whole = len(new) == 2 and not twice and len(points) == 1
        yield (
            "driver",
            {"resumed": resumed, "equal": same, "runs_of_generators": list(new.values())},
            (
                "kill of the driver, then `dvc repro`",
                "resumes from the checkpoints",
                f"{'resumed' if resumed else 'began again'}, {'equal' if same else 'not equal'}; in MLflow {len(new)} "
                f"runs of 2 generators, {twice} points twice, {'none' if len(points) == 1 else 'some'} missing",
                resumed and same and whole,
            ),
        )


def generator_runs(project: Path) -> dict[str, dict[str, Any]]:
    """MLflow's runs of generators: state, points of the loss, and how many of all points are there twice."""
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        found = database.execute(
            "select run_uuid, name, status from runs where name like 'generator %' and lifecycle_stage = 'active'"
        ).fetchall()
        return {
            uuid: {
                "name": name,
                "status": status,
                "points": database.execute(
                    "select count(*) from metrics where run_uuid = ? and key = 'invert/loss'", (uuid,)
                ).fetchone()[0],
                "twice": database.execute(
                    "select count(*) from (select 1 from metrics where run_uuid = ? and key like 'invert/%' "
                    "group by key, step having count(*) > 1)",
                    (uuid,),
                ).fetchone()[0],
            }
            for uuid, name, status in found
        }


BARE = """
import json, sys
from netinv.classifiers import load_classifier
from netinv.classifiers import freeze
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, invert
import torch
classifier = load_classifier(sys.argv[1])
freeze(classifier)
torch.manual_seed(0)
generator = ConditionedGenerator(GeneratorConfig(**json.loads(sys.argv[2])), 10, classifier.image_shape)
for _ in invert(generator, classifier, InversionConfig(**json.loads(sys.argv[3])), 0):
    pass
"""


def cost_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """The stage against the bare loop, both as processes, short and long: the difference is that of the steps."""
    from ruamel.yaml import YAML

    steps, yaml = 2500, YAML()
    with tempfile.TemporaryDirectory() as temporary:
        project = fresh_project(Path(temporary), **{"invert.common.num_generators": 1})
        inversion = yaml.load(project / "params.yaml")["invert"]

        def seconds(command: list[str]) -> float:
            start = time.perf_counter()
            run(project, *command)
            return time.perf_counter() - start

        def stage(steps: int) -> float:
            change(project, yaml, {"invert.standard.steps": steps})
            outputs = ["--out", "out", "--metrics", "m.json", "--plots", "p.csv"]
            arguments = ["digits", "standard", "--model", "models/digits/classifier", *outputs]
            return seconds([sys.executable, "-m", "pipeline.invert", *arguments])

        def bare(steps: int) -> float:
            settings = (
                json.dumps({**inversion["standard"], "steps": steps}),
                json.dumps(inversion["common"]["generator"]),
            )
            return seconds([sys.executable, "-c", BARE, "models/digits/classifier", *settings[::-1]])

        stage(1), bare(1)  # from here on the delivery is at work and files are in memory
        turns = []
        for turn in range(4):
            parts: list[tuple[str, Callable[[int], float]]] = [("stage", stage), ("bare", bare)]
            taken = {f"{name}_{n}": call(n) for name, call in parts[:: 1 if turn % 2 else -1] for n in (1, 1 + steps)}
            turns.append(taken)
            print(f"  {taken}", file=sys.stderr)
    ratios = [
        (turn[f"stage_{1 + steps}"] - turn["stage_1"]) / (turn[f"bare_{1 + steps}"] - turn["bare_1"]) for turn in turns
    ]
    fixed = [turn["stage_1"] for turn in turns]
    ratio = statistics.median(ratios)
    yield (
        "step",
        {"turns_s": turns, "ratios": ratios},
        (
            f"a step with Ray and tracking over the bare loop, {steps} steps",
            "1.05",
            f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            ratio <= 1.05,
        ),
    )
    yield (
        "fixed",
        {"seconds": fixed},
        (
            "a stage of one step, from its start to its end, imports included",
            "20 s",
            f"{statistics.median(fixed):.1f} s ({min(fixed):.1f} to {max(fixed):.1f})",
            statistics.median(fixed) < 20,
        ),
    )


def ensemble_part(classifier: Classifier, trials: int) -> Iterator[tuple[str, Any, Row]]:
    """Four generators on two slots, and in sequence, told of and kept as often as the pipeline does."""
    log_every, checkpoint_every = 25, 100
    mode = Mode(generators=4, num_workers=1, steps=800)
    torch.set_num_threads(1)

    def in_sequence() -> float:
        start = time.perf_counter()
        for seed in range(mode.generators):
            torch.manual_seed(seed)
            generator = ConditionedGenerator(GeneratorConfig(), 10, classifier.image_shape)
            for _ in invert(generator, classifier, config_of(mode.steps, log_every), seed):
                pass
        return time.perf_counter() - start

    turns = []
    with cluster(None):
        Work(classifier, mode._replace(steps=5)).run()
        for turn in range(5):
            contenders: list[tuple[str, Callable[[], float]]] = [
                ("ensemble", lambda: Work(classifier, mode, checkpoint_every, log_every).run().seconds),
                ("sequence", in_sequence),
            ]
            turns.append({name: call() for name, call in contenders[:: 1 if turn % 2 else -1]})
    ratios = [turn["sequence"] / turn["ensemble"] for turn in turns]
    ratio = statistics.median(ratios)
    yield (
        "ensemble",
        {"turns_s": turns, "ratios": ratios},
        (
            "4 generators on 2 slots over 4 in sequence, throughput",
            "1.8",
            f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ratio >= 1.8,
        ),
    )


PARTS = {
    "workers": workers_part,
    "nodes": nodes_part,
    "driver": driver_part,
    "cost": cost_part,
    "ensemble": ensemble_part,
}


def main() -> None:
    """Break things, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--trials", type=int, default=20, help="kills of a worker, in each mode")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the JSON and the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    date = datetime.now(UTC).date().isoformat()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "ray", "mlflow", "dvc"))
    lines = [
        f"# {date}: faults, and what Ray costs",
        "",
        f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}; {versions}. By `make chaos`; medians, ranges.",
        "",
        "| what | target | came out | met |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    classifier = digits_classifier()
    results: dict[str, Any] = {"date": date}
    met = True
    for part in arguments.only:
        results[part] = {"load": os.getloadavg()[0]}
        for name, figures, (what, target, came, enough) in PARTS[part](classifier, arguments.trials):
            results[part][name] = figures
            lines.append(f"| {what} | {target} | {came} | {'yes' if enough else '**no**'} |")
            print(lines[-1], flush=True)
            met &= enough
            (arguments.out / "chaos.json").write_text(json.dumps(results, indent=1) + "\n")
            (arguments.out / f"{date}-ray.md").write_text("\n".join(lines) + "\n")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
