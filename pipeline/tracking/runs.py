"""A stage as a run: from its beginning to its end, with the process beside it that delivers its journal."""

import contextlib
import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from netinv.core import best_device, check_file, redacted, write_text
from pipeline.stage import locked
from pipeline.tracking.journal import JOURNAL, Run, delivery_lock, flatten, journals, read_json
from pipeline.tracking.lineage import Lineage, lineage_path, read_lineage
from pipeline.tracking.store import check_server, experiment_name, root, silence, tracking_uri

_POLL_SECONDS = 0.05
_RESTART_SECONDS = 5.0
_SILENT_SECONDS = 10.0
"""How long a stage waits, at its end, for a delivery that makes no progress: a broken server, disk or database."""
_GIVE_UP_SECONDS = 120.0
"""And for one that does, such as the first of a new database on a busy machine."""


@contextlib.contextmanager
def stage_run(
    stage: str,
    dataset: str,
    variant: str | None = None,
    params: Mapping[str, Any] | None = None,
    inputs: Sequence[Path] = (),
    wait: bool = False,
    for_pipeline: bool = False,
) -> Iterator[Run]:
    """Track one stage as a run, from its beginning to its end.

    What is left at its end is delivered afterwards; only the run's id is waited for. When the block ends well,
    ``runs/<stage>/<dataset>-<variant>.json`` tells which run made the stage's output, and with which parameters: a run
    has those of its inputs as well, so that a table of measures shows what led to them.

    Args:
        stage: Name of the stage.
        dataset: Name of the data set.
        variant: Variant, or model, that the stage is about.
        params: Nested settings; logged flat, as in ``invert.robust.epsilon``.
        inputs: Files under ``runs/`` of the stages whose outputs this one reads; the run links to theirs with the
            tags ``input.<stage>.<dataset>-<variant>`` and has their parameters as ``<stage>.<key>``, or as
            ``<stage>.<variant>.<key>`` where the variant is not its own. A missing one is no error.
        wait: Wait for the whole delivery, for a stage after which there may be no other one, and no machine.
        for_pipeline: What the run logs stands in the pipeline's run as well, where there is one.

    Raises:
        InputError: The tracking server does not answer, or refuses the credentials, or the file cannot be written.
    """
    uri = tracking_uri()
    check_server(uri)
    record = lineage_path(stage, dataset, variant)
    check_file(record)
    tags = {"stage": stage, "dataset": dataset, **({"variant": variant} if variant else {}), **_environment(stage)}
    earlier: dict[str, dict[str, str]] = {}  # parameters by stage and variant
    for path in inputs:
        if path.exists():
            made = read_lineage(path)
            tags[f"input.{path.parent.name}.{path.stem}"] = made.run_id or f"{JOURNAL}{made.journal}"
            earlier |= made.params
    own = flatten(params or {})
    inherited = {k: v for origin in earlier for k, v in _inherited(origin, variant, earlier[origin]).items()}
    folder = journals() / uuid.uuid4().hex
    with locked(folder / "lock"):
        title = " ".join(filter(None, (stage, dataset, variant)))
        run = Run(folder, title, tags, {}, for_pipeline=for_pipeline, flat={**inherited, **own})
        _start_delivery(uri)
        try:
            with run.ending():
                yield run
        finally:
            if (folder / "ended.json").exists():  # else the disk is full, and the delivery cannot write either
                _hand_over(folder, uri, wait)
        lineage = Lineage(
            run_id=run.id,
            experiment=experiment_name(),
            journal=run.key,
            children=run.children,
            params={**earlier, "/".join(filter(None, (stage, variant))): own},
        )
        write_text(record, lineage.model_dump_json() + "\n")


def _inherited(origin: str, variant: str | None, params: Mapping[str, str]) -> dict[str, str]:
    """Parameters of an earlier stage, under names that are the same for every data set and variant."""
    stage, _, other = origin.partition("/")
    prefix = f"{stage}." if other in ("", variant) else f"{stage}.{other}."
    return {f"{prefix}{name.removeprefix(f'{other}.')}": value for name, value in params.items()}


def _environment(stage: str) -> dict[str, str]:
    """Tags that tell where a run came from."""
    tags = {
        "host": platform.node(),
        "device": best_device() if "torch" in sys.modules else "cpu",
        "mlflow.source.name": f"pipeline.{stage}",
        "mlflow.source.type": "LOCAL",
    }
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.exp_name"] = name
    commit = _git("rev-parse", "HEAD")
    if commit is not None:
        tags["mlflow.source.git.commit"] = commit
        # What the pipeline itself writes does not make the code another one.
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!metrics", ":!plots")
        tags["mlflow.source.git.dirty"] = str(bool(changes))
    return tags


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(("git", *arguments), capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, no repository or no commit


def _start_delivery(uri: str) -> None:
    """Start the delivery where none is at work; of several at once, all but one end at once."""
    with locked(delivery_lock(uri), wait=False) as none:
        if not none:
            return
    paths = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    delivery = subprocess.Popen(
        (sys.executable, "-m", "pipeline.tracking", "deliver"),
        cwd=root(),
        env=environment,
        start_new_session=True,  # neither Ctrl-C nor the end of the stage ends it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    delivery.returncode = 0  # it outlives this process on purpose: Popen need not warn of that


def _hand_over(folder: Path, uri: str, wait: bool) -> None:
    """Wait until the store has told a run's id, and where asked or in doubt until it has the whole run.

    Where that fails, or nothing moves for ten seconds, say so and leave the run in the journal.
    """
    ended = moved = time.time()
    error = folder / "error"
    wait = wait or error.exists() or silence(uri) is not None
    reason = f"the delivery made no progress for {_SILENT_SECONDS:.0f} s"
    restart = ended if error.exists() else ended + _RESTART_SECONDS  # a delivery that was refused has ended
    while time.time() < min(moved + _SILENT_SECONDS, ended + _GIVE_UP_SECONDS):
        state = read_json(folder / "run.json")
        if state["done"] or (state["run_id"] and not wait):
            for sentence in state["told"]:
                print(sentence, file=sys.stderr)
            return
        if error.exists() and error.stat().st_mtime >= ended:
            reason = error.read_text()
            break
        if time.time() > restart:
            _start_delivery(uri)
            restart = time.time() + _RESTART_SECONDS
        moved = max(moved, _last_progress(uri))
        time.sleep(_POLL_SECONDS)
    print(
        f"warning: Not all of this run has reached {redacted(uri)} ({reason}); it is kept in {journals().name}: "
        "`python -m pipeline.tracking flush` delivers it, or the next stage.",
        file=sys.stderr,
    )


def _last_progress(uri: str) -> float:
    """When the delivery last wrote down that something is through, went on with a new database, or computed at all."""
    database = Path(uri.removeprefix("sqlite:///"))
    signs = [*journals().glob("*/run.json"), *journals().glob("*/children/*/run.json")]
    signs.append(delivery_lock(uri))
    signs += database.parent.glob(f".{database.name}.new*") if uri.startswith("sqlite:///") else ()
    times = [0.0]
    for path in signs:
        with contextlib.suppress(OSError):  # gone meanwhile
            times.append(path.stat().st_mtime)
    return max(times)
