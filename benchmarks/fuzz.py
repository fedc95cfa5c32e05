"""What every reader makes of settings and files that others have changed: part of ``make torture``.

    python benchmarks/fuzz.py --project DIR --settings 5000 --files 1000

A trial changes ``params.yaml``, or a file that a finished pipeline (``make repro`` in DIR) has left, as Hypothesis
draws it, and reads it as the product does, in a process of its own. Survived is what is read, or refused by an
:class:`netinv.core.InputError` of one line and at most 1,500 characters, within ten seconds and 2 GiB. Settings that
are taken must be finite, give every data set its own, and pass the estimates of what they would take, or be refused by
those.
"""

import argparse
import faulthandler
import gzip
import json
import os
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a process of a trial begins as a copy of this one, which must have no threads

import torch
from damages import Damage, damages, write_yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from readers import FILES, SETTINGS, Reader, network
from tqdm import tqdm

from netinv.core import InputError

SECONDS, BYTES, LETTERS = 10, 2 * 2**30, 1500
"""Of a trial: its time, its memory beyond what it begins with, its message."""


@dataclass
class Line:
    """What came of one kind of file."""

    tried: int = 0
    survived: int = 0
    refused: int = 0
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)


def prepare(root: Path) -> None:
    """Beside the pipeline's files: those that people bring, and those that a stage leaves when it is killed."""
    from PIL import Image
    from safetensors.torch import save_file

    import netinv
    from netinv.audit import Policy
    from netinv.classifiers import load_checkpoint
    from netinv.data import load_digits
    from pipeline.checkpoints import Checkpoints
    from pipeline.tracking import journal

    foreign = root / "foreign"
    foreign.mkdir()
    torch.manual_seed(0)
    weights = network().state_dict()
    torch.save(weights, foreign / "last.pt")
    save_file(weights, foreign / "last.safetensors")
    data = load_digits()
    for split in ("train", "test"):
        for i in range(12):
            labelled = getattr(data, split)
            path = foreign / "images" / split / str(int(labelled.labels[i]) % 3) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labelled.images[i, 0].numpy()).save(path)
    with gzip.open(foreign / "images.tar.gz", "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(foreign / "images", "images")
    with zipfile.ZipFile(foreign / "images.zip", "w") as archive:
        for path in sorted((foreign / "images").rglob("*.png")):
            archive.write(path, path.relative_to(foreign))
    classifier = load_checkpoint(root / "models/digits/classifier")
    config = netinv.InversionConfig(steps=1, batch_size=20)
    with warnings.catch_warnings(action="ignore"):
        netinv.invert(classifier, image_shape=classifier.image_shape, config=config, attempts=1, progress=False).save(
            foreign / "inversion"
        )
    write_yaml(foreign / "policy.yaml", Policy().model_dump(mode="json"))
    checkpoints = Checkpoints(str(foreign / "checkpoints"), "invert-digits-robust", "0123")
    checkpoints.save_history(0, [{"step": 1.0, "loss": 2.0}])
    checkpoints.save_state(0, b"a state")
    for sign in (foreign / "checkpoints").rglob("owner.*"):  # of a stage that is dead
        sign.unlink()
    here = Path.cwd()
    os.chdir(foreign)
    folder = journal.journals() / "one"
    folder.mkdir(parents=True)
    with journal.Run(folder, "one", {}, {"seed": 1}).ending():
        pass
    os.chdir(here)


def attempt(read: Callable[[Path], Any], damage: Damage, root: Path) -> tuple[str, str]:
    """What comes of a trial, in a process of its own: ``read``, ``refused``, or a failure with its trace."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(sender, json.dumps(_outcome(read, damage, root)).encode()[:60000])
        os._exit(0)
    os.close(sender)
    until, told = time.monotonic() + SECONDS, b""
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            told = os.read(receiver, 2**16)
            os.close(receiver)
            if told:
                kind, text = json.loads(told)
                return kind, text
            return "ended", f"its process ended with {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(receiver)
    return "endless", f"it had not ended after {SECONDS} s"


def _outcome(read: Callable[[Path], Any], damage: Damage, root: Path) -> tuple[str, str]:
    """In the trial's process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    try:
        damage.do()
        read(root)
    except InputError as error:
        told = str(error)
        whole = told and "\n" not in told and len(told) <= LETTERS
        return ("refused", told) if whole else ("told badly", f"{len(told)} letters: {told[:300]!r}")
    except BaseException as error:
        return "raised", f"{type(error).__name__}: " + "".join(traceback.format_exception(error)[-3:])[-1200:]
    return "read", ""


def campaign(name: str, reader: Reader, whole: Path, scratch: Path, num: int, begin: int) -> Line:
    """So many trials of one reader."""
    line = Line()
    bar = tqdm(total=num, desc=name, unit=" trials", mininterval=10)
    watched = sorted({pattern.split("/")[0] for pattern in reader.paths})

    @seed(begin)
    @settings(
        max_examples=num,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damages(scratch, reader.paths))
    def trial(damage: Damage) -> None:
        start = time.monotonic()
        kind, told = attempt(reader.read, damage, scratch)
        seconds = time.monotonic() - start
        line.tried += 1
        bar.update()
        line.survived += kind in {"read", "refused"}
        line.refused += kind == "refused"
        line.longest = max(line.longest, seconds)
        if kind not in {"read", "refused"}:
            line.failures.append(f"{damage.told}\n    {kind}: {told}")
            print(f"FAILED: {line.failures[-1]}", file=sys.stderr, flush=True)
        for top in watched:
            _restore(whole / top, scratch / top)

    trial()
    bar.close()
    return line


def _restore(whole: Path, place: Path) -> None:
    if place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
    else:
        shutil.rmtree(place)
    shutil.copytree(whole, place, symlinks=True) if whole.is_dir() else shutil.copy(whole, place)


def main() -> None:
    """Do it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True, help="where make repro has run on the digits")
    parser.add_argument("--settings", type=int, default=200, help="altered params.yaml")
    parser.add_argument("--files", type=int, default=200, help="altered files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faulthandler.enable()
    sys.path.insert(0, str(Path(__file__).parent))  # its network is named as readers:network
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        whole, scratch = Path(folder) / "whole", Path(folder) / "copy"
        whole.mkdir()
        for name in (
            "data",
            "models",
            "generators",
            "onnx",
            "evaluation",
            "interpretation",
            "metrics",
            "plots",
            "runs",
        ):
            shutil.copytree(options.project / name, whole / name)
        shutil.copytree(options.project / "ablation", whole / "ablation")
        shutil.copy("params.yaml", whole)
        prepare(whole)
        shutil.copytree(whole, scratch, symlinks=True)
        for reader in (SETTINGS, *FILES.values()):
            kind, told = attempt(reader.read, Damage("none", lambda: None), scratch)
            assert kind == "read", told  # undisturbed
        wanted = [("settings", SETTINGS, options.settings)]
        wanted += [(name, reader, round(options.files * reader.share)) for name, reader in FILES.items()]
        table = {name: campaign(name, reader, whole, scratch, num, options.seed) for name, reader, num in wanted if num}
    print("| what is changed | tried | survived | of these refused | longest, s |\n|" + "---|" * 5)
    for name, line in table.items():
        print(f"| {name} | {line.tried} | {line.survived} | {line.refused} | {line.longest:.1f} |")
    sys.exit(any(line.failures for line in table.values()))


if __name__ == "__main__":
    main()
