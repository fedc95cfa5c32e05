"""What disks, machines and hands do to a stage: damaged inputs, a disk that fills at any write, an end at any moment.

    python benchmarks/torture.py --minutes 20 --seed 0

A small pipeline on the digits is made once. Then, until the time is over, a stage runs on a copy of it in a process of
its own, and something is done to it that the seed decides. Survived is what ends well, or with status 2 (143 where it
was asked to end) and one sentence, in time, with outputs whole or absent and nothing half-written beside them. Lost is
an output that was there before and is neither there nor replaced. The delivery to MLflow is left out: ``chaos.py`` and
``tracking.py`` have that. Ray is left out, too, so that ``invert`` is not among the stages.
"""

import argparse
import ctypes
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from damages import HOW, spoil
from preload import SHIM, compiled
from projects import change

NEVER = 2**40
LIMIT = 120.0
"""Seconds that a stage may take here: several times what the slowest one does."""
STAGES = {
    "train": "digits classifier --data data/digits --out new/out --metrics new/metrics.json --plots new/plots.csv",
    "evaluate": "digits standard --data data/digits --models models/digits --generators generators --out new/out "
    "--metrics new/metrics.json --plots new/plots",
    "generators": "generators digits standard --data data/digits --models models/digits --generators generators "
    "--out new/out --metrics new/metrics.json",
    "classifiers": "classifiers digits --data data/digits --models models/digits --out new/out "
    "--metrics new/metrics.json",
}
INPUTS = ("data", "models", "generators", "runs")
HOSTILE: list[Any] = [
    None,
    -1,
    0,
    1,
    2**31,
    10**30,
    1e308,
    "",
    "x",
    "../../x",
    "\0",
    [],
    [[]],
    [0],
    [-1, 1, 1],
    {},
    True,
]
TINY = {
    "train.classifier.training.epochs": 1,
    "train.evaluator.training.epochs": 1,
    "invert.common.num_generators": 1,
    "invert.standard.steps": 10,
    "evaluate.num_samples": 100,
    "evaluate.sharpness_samples": 20,
    "evaluate.robust_samples": 20,
    "evaluate.privacy_samples": 50,
    "evaluate.resamples": 100,
    "evaluate.student": None,
    "evaluate.distillation": None,
    "export.forms": ["ensemble"],
}


@dataclasses.dataclass
class Line:
    """What came of one kind of thing done."""

    tried: int = 0
    survived: int = 0
    refused: int = 0
    """Of those: with a sentence, and not to the end."""
    lost: int = 0
    longest: float = 0.0


@dataclasses.dataclass
class Ended:
    """How a stage ended."""

    status: int | None
    """``None`` where it did not."""
    seconds: float
    errors: str
    writes: int = 0
    """To files of the pipeline."""


Act = Callable[[str, Path, "dict[str, Ended]", random.Random], tuple[str, Ended, bool]]
"""Does something to a stage in a copy; returns what, how the stage ended, and whether that is as it should be."""


def main() -> None:
    """Do it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if "NETINV_SHIM" not in os.environ:
            shim = compiled(SHIM, Path(scratch) / "shim.so")
            environment = {**os.environ, "NETINV_SHIM": str(shim), "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
            sys.exit(subprocess.call([sys.executable, *sys.argv], env=environment))
        whole = Path(scratch) / "whole"
        prepare(whole)
        table = campaign(whole, Path(scratch) / "copy", arguments.minutes * 60, random.Random(arguments.seed))
    print("| done to a stage | tried | survived | of these refused | outputs lost | longest, s |\n|" + "---|" * 6)
    for kind, line in table.items():
        print(f"| {kind} | {line.tried} | {line.survived} | {line.refused} | {line.lost} | {line.longest:.0f} |")


def prepare(whole: Path) -> None:
    """A small pipeline's files, up to its generators."""
    from ruamel.yaml import YAML

    whole.mkdir()
    shutil.copy("params.yaml", whole)
    change(whole, YAML(), TINY)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "LD_PRELOAD": ""}
    for words in (
        "fetch digits --out data/digits --metrics m.json",
        "train digits classifier --data data/digits --out models/digits/classifier --metrics m.json --plots p.csv",
        "train digits evaluator --data data/digits --out models/digits/evaluator --metrics m.json --plots p.csv",
        "invert digits standard --model models/digits/classifier --out generators --metrics m.json --plots p.csv",
    ):
        stage, *rest = words.split()
        command = [sys.executable, "-m", f"pipeline.{stage}", *rest]
        subprocess.run(command, cwd=whole, env=environment, check=True, capture_output=True)


def campaign(whole: Path, copy: Path, seconds: float, rng: random.Random) -> dict[str, Line]:
    """Do one thing after the other until the time is over."""
    kinds: dict[str, Act] = {
        "a value in a JSON file is another": spoil_json,
        "a file is cut, flipped, emptied, gone, a folder or a pipe": spoil_bytes,
        "tensors are others, and the sum fits": spoil_tensors,
        "the disk fills at some write": fill,
        "SIGTERM at some moment": terminate,
        "SIGKILL at some moment, and once more": kill,
    }
    table = {kind: Line() for kind in kinds}
    usual = {stage: run(stage, fresh(whole, copy)) for stage in STAGES}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for kind, act in kinds.items():
            stage = rng.choice(list(STAGES))
            told, ended, fine = act(stage, fresh(whole, copy), usual, rng)
            fine &= ended.status is not None and ended.seconds < LIMIT
            fine &= not leftovers(copy)
            lost = not (copy / "new/out").is_dir()
            line = table[kind]
            line.tried, line.survived, line.lost = line.tried + 1, line.survived + (fine and not lost), line.lost + lost
            line.refused += fine and not lost and ended.status != 0
            line.longest = max(line.longest, ended.seconds)
            if not fine or lost:
                print(f"FAILED: {kind}: {stage}: {told}: status {ended.status}, {leftovers(copy)}", file=sys.stderr)
                print("\n".join(f"    {line}" for line in ended.errors.splitlines()[-6:]), file=sys.stderr)
    return table


def fresh(whole: Path, copy: Path) -> Path:
    """A copy of the pipeline's files, with an output of an earlier run."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in INPUTS:
        shutil.copytree(whole / name, copy / name)
    shutil.copy(whole / "params.yaml", copy)
    (copy / "new/out").mkdir(parents=True)
    (copy / "new/out/earlier").write_text("whole")
    return copy


def leftovers(copy: Path) -> list[str]:
    """What is half-written. After a kill it is removed by the next run, and so is none."""
    scratch = [path.name for path in copy.glob(".stage/*") if path.suffix != ".lock"]
    return scratch + [path.name for path in copy.glob("new/.*")]


def run(stage: str, copy: Path, room: int = NEVER, end: tuple[signal.Signals, float] | None = None) -> Ended:
    """Run a stage in a fork of this process, which has imported everything, on a disk with so many writes of room."""
    from pipeline import evaluate, export, train

    commands = {"train": train.main, "evaluate": evaluate.main, "generators": export.main, "classifiers": export.main}
    sys.stdout.flush(), sys.stderr.flush()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _stage(commands[stage], STAGES[stage].split(), copy, room)
    status, sent = None, False
    while time.monotonic() < begun + LIMIT:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        if end is not None and not sent and time.monotonic() > begun + end[1]:
            os.kill(child, end[0])
            sent = True
        time.sleep(0.02)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    seconds = time.monotonic() - begun
    told = copy.with_suffix(".stderr").read_text(errors="replace")
    writes = copy.with_suffix(".writes")
    return Ended(status, seconds, told, int(writes.read_text()) if status == 0 else 0)


def _stage(command: Any, words: list[str], copy: Path, room: int) -> None:
    """In the child: the stage, without the process that delivers to MLflow."""
    from pipeline.tracking import runs

    os.dup2(os.open(copy.with_suffix(".stderr"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.chdir(copy)
    runs._start_delivery = lambda uri: None
    runs._SILENT_SECONDS = 0.0
    status, shim = 1, ctypes.CDLL(os.environ["NETINV_SHIM"])
    try:
        shim.fault_arm(ctypes.c_long(room), str(copy.resolve()).encode() + b"/")
        command(words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.flush()
    copy.with_suffix(".writes").write_text(str(shim.fault_seen()))
    os._exit(status)


def told_well(ended: Ended) -> bool:
    """Whether a stage ended well, or said in one sentence why not."""
    lines = [line for line in ended.errors.splitlines() if not line.startswith("warning: Not all of this run")]
    errors = [line for line in lines if line.startswith("error: ")]
    one = len(errors) == 1 and lines[-1] == errors[0] and "Traceback" not in ended.errors
    return ended.status == 0 or (ended.status in {2, 143} and one)


def terminate(stage: str, copy: Path, usual: dict[str, Ended], rng: random.Random) -> tuple[str, Ended, bool]:
    """Ask a stage to end."""
    after = rng.uniform(0, usual[stage].seconds)
    ended = run(stage, copy, end=(signal.SIGTERM, after))
    return f"after {after:.2f} s", ended, told_well(ended) or ended.status == -signal.SIGTERM  # before it has begun


def kill(stage: str, copy: Path, usual: dict[str, Ended], rng: random.Random) -> tuple[str, Ended, bool]:
    """Kill a stage, and run it once more: it must end as if nothing had been."""
    after = rng.uniform(0, usual[stage].seconds)
    killed = run(stage, copy, end=(signal.SIGKILL, after))
    again = run(stage, copy) if killed.status else killed
    told = f"after {after:.2f} s, status {killed.status}"
    return told, again, again.status == 0 and not (copy / "new/out/earlier").exists()


def fill(stage: str, copy: Path, usual: dict[str, Ended], rng: random.Random) -> tuple[str, Ended, bool]:
    """Let the disk be full from some write on."""
    room = rng.randrange(usual[stage].writes)
    ended = run(stage, copy, room)
    return f"after {room} of {usual[stage].writes} writes", ended, told_well(ended)


def spoil_json(stage: str, copy: Path, usual: dict[str, Ended], rng: random.Random) -> tuple[str, Ended, bool]:
    """Replace or remove a value in a file of JSON."""
    path = rng.choice(sorted(path for name in INPUTS for path in (copy / name).rglob("*.json")))
    values = json.loads(path.read_text())
    node, place = values, None
    while isinstance(node, (dict, list)) and node and (place is None or rng.random() < 0.6):
        parent, place = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = parent[place]
    worse = rng.choice(HOSTILE)
    if rng.random() < 0.2:
        del parent[place]
    else:
        parent[place] = worse
    path.write_text(json.dumps(values))
    ended = run(stage, copy)
    return f"{path.relative_to(copy)}: {place} is {worse!r} or gone", ended, told_well(ended)


def spoil_bytes(stage: str, copy: Path, usual: dict[str, Ended], rng: random.Random) -> tuple[str, Ended, bool]:
    """Damage a file, or put something else in its place."""
    path = rng.choice(sorted(path for name in INPUTS for path in (copy / name).rglob("*") if path.is_file()))
    how = rng.choice(HOW)
    spoil(path, how, rng)
    ended = run(stage, copy)
    return f"{path.relative_to(copy)} is {how}", ended, told_well(ended)


def spoil_tensors(stage: str, copy: Path, usual: dict[str, Ended], rng: random.Random) -> tuple[str, Ended, bool]:
    """Change a tensor of a file, with the sum of a data set's made to fit."""
    import torch
    from safetensors.torch import load_file, save

    path = rng.choice(sorted(path for name in INPUTS for path in (copy / name).rglob("*.safetensors")))
    tensors = dict(load_file(path))
    name = rng.choice(sorted(tensors))
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "fewer": lambda x: x[: len(x) // 2] if x.ndim else x,
        "one": lambda x: x[:1] if x.ndim else x,
        "none": lambda x: x[:0] if x.ndim else x,
        "flat": lambda x: x.flatten(),
        "deeper": lambda x: x[None],
        "0": torch.zeros_like,
        "negative": lambda x: x * -1 if x.dtype != torch.uint8 else x,
        "vast": lambda x: x * 10**6 if x.dtype != torch.uint8 else x,
        "no number": lambda x: x * float("nan") if x.is_floating_point() else x,
        "of another type": lambda x: x.double(),
    }
    how = rng.choice([*ways, "gone"])
    if how == "gone":
        del tensors[name]
    else:
        tensors[name] = ways[how](tensors[name])
    content = save({key: tensor.contiguous() for key, tensor in tensors.items()})
    path.write_bytes(content)
    spec = path.with_name("spec.json")
    if spec.exists():
        values = json.loads(spec.read_text())
        values["checksums"][path.name] = hashlib.sha256(content).hexdigest()
        if "labels" in tensors and tensors["labels"].ndim:
            values[f"num_{path.stem}"] = len(tensors["labels"])
        spec.write_text(json.dumps(values))
    ended = run(stage, copy)
    return f"{path.relative_to(copy)}: {name} is {how}", ended, told_well(ended)


if __name__ == "__main__":
    main()
