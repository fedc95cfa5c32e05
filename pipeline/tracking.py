"""Experiment tracking. The only module that imports mlflow.

A stage writes what it has to say to a journal on disk and goes on; a courier, one background process for each store,
takes the journal to MLflow:

    stage  --append-->  .mlflow-journal/<key>/  --courier-->  mlflow.db or a tracking server

So MLflow's imports (seconds of processor time) are paid once for a pipeline and not in the stage, a store has a single
writer on each machine, and a server that dies loses nothing: what the courier could not deliver stays in the journal
until the next courier or ``python -m pipeline.tracking flush``. Delivery is at least once, and every record is such
that MLflow takes it twice without a trace (metrics carry their time stamps, files their names), which together makes
exactly once.

A journal folder holds ``run.json`` (what the run is, and how far it was delivered; written by the deliverer alone
after the first moment), ``records.jsonl`` (append-only), ``files/`` (copies of artifacts), ``ended.json``, ``error``
(why the last delivery failed), ``children/`` (the same again) and ``lock``, which the stage holds while it lives.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click

from netinv.errors import InputError
from pipeline.stage import stage_command, write_text

if TYPE_CHECKING:
    import numpy as np
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray

    from netinv.data import DatasetSpec

MAX_PARAM_LENGTH = 6000
"""Characters that MLflow takes as the value of a parameter."""

_POLL_SECONDS = 0.2
_DELIVERY_SECONDS = 5.0
"""Between two deliveries of a running stage: 12 or so calls a minute, whatever it logs."""
_IDLE_SECONDS = 30.0
"""How long the courier waits for the next stage: longer than DVC and the imports take between two stages."""
_RESTART_SECONDS = 10.0
_GIVE_UP_SECONDS = 120.0
_NAME = re.compile(r"[\w. /-]+")
"""What MLflow takes as a name; checked at once, as a record that the store refuses would never be delivered."""


class Run:
    """One MLflow run. Calls append to the journal, take microseconds, and may come from several threads."""

    def __init__(self, folder: Path, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Begin a run in a journal folder that exists and is empty."""
        self._folder = folder
        self._tags = dict(tags)
        self._lock = threading.Lock()
        (folder / "records.jsonl").touch()
        self._append({"params": flatten(params)})
        state = {
            "uri": redacted(tracking_uri()),
            "experiment": experiment_name(),
            "pipeline": pipeline_name(),
            "name": name,
            "tags": {**tags, "journal": folder.name},
            "start_time": _now(),
            "run_id": None,
            "offset": 0,
            "done": False,
        }
        write_text(folder / "run.json", json.dumps(state))  # last: from here on the courier sees the run

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; ``None`` until the courier has told the store of it."""
        run_id: str | None = _read(self._folder / "run.json")["run_id"]
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step, which is counted in samples seen.

        Raises:
            ValueError: A name has characters that MLflow does not take.
        """
        for name in metrics:
            _check_name(name)
        now = _now()
        self._append({"metrics": [[name, float(value), now, int(step)] for name, value in metrics.items()]})

    def log_image(self, image: "NDArray[np.uint8]", key: str, step: int = 0) -> None:
        """Log an image, uint8 (H, W) or (H, W, 3), for the image view with its step slider.

        Raises:
            ValueError: The key has characters that MLflow does not take.
        """
        from PIL import Image

        _check_name(key)
        # The names that MlflowClient.log_image gives, which the image view reads; made here, so that a second
        # delivery overwrites the first.
        name = f"{key.replace('/', '~')}+step+{step}+timestamp+{_now()}+{uuid.uuid4()}"
        folder = self._new_file_folder()
        picture = Image.fromarray(image)
        picture.save(folder / f"{name}.png")
        picture.thumbnail((256, 256))
        picture.save(folder / f"{name}+compressed.webp")
        self._append({"files": [folder.name, "images"], "tags": {"mlflow.loggedImages": "True"}})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a copy of a file or folder, as it is now, under ``folder`` of the run's artifacts."""
        target = self._new_file_folder() / path.name
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copyfile(path, target)
        self._append({"files": [target.parent.name, folder]})

    def log_dataset(self, spec: "DatasetSpec", folder: Path) -> None:
        """Log a data set as an input of the run: its identity, from the spec alone, not its tensors."""
        tensors = {
            "features": [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *spec.image_shape]}}],
            "targets": [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}],
        }
        profile = spec.model_dump(mode="json", exclude={"name", "image_shape"})
        dataset = {
            "name": spec.name,
            "digest": hashlib.sha256(json.dumps(spec.checksums, sort_keys=True).encode()).hexdigest()[:16],
            "source_type": "local",
            "source": json.dumps({"uri": folder.as_posix()}),
            "schema": json.dumps({"mlflow_tensorspec": {part: json.dumps(tensors[part]) for part in tensors}}),
            "profile": json.dumps(profile),
        }
        self._append({"dataset": dataset})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, for instance what is known only while the stage runs."""
        self._append({"tags": {name: str(value) for name, value in tags.items()}})

    @contextlib.contextmanager
    def child(self, name: str, params: Mapping[str, Any] | None = None) -> Iterator["Run"]:
        """A run below this one, with its tags, for instance one generator of a variant."""
        folder = self._folder / "children" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        run = Run(folder, name, self._tags, params or {})
        with run._ending():
            yield run

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Record how the block ended."""
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:  # SIGTERM too, see stage_command
            status = "KILLED"
            raise
        finally:
            write_text(self._folder / "ended.json", json.dumps({"status": status, "end_time": _now()}))

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._lock, (self._folder / "records.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _new_file_folder(self) -> Path:
        folder = self._folder / "files" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder


@contextlib.contextmanager
def stage_run(
    stage: str,
    dataset: str,
    variant: str | None = None,
    params: Mapping[str, Any] | None = None,
    inputs: Sequence[Path] = (),
) -> Iterator[Run]:
    """Track one stage as a run, from its beginning to its end.

    When the block ends well, ``runs/<stage>/<dataset>-<variant>.json`` tells which run made the stage's output.

    Args:
        stage: Name of the stage.
        dataset: Name of the data set.
        variant: Variant, or model, that the stage is about.
        params: Nested settings; logged flat, as in ``invert.robust.epsilon``.
        inputs: Files under ``runs/`` of the stages whose outputs this one reads; the run links to theirs with the
            tags ``input.<stage>.<dataset>-<variant>``. A missing one is no error.

    Raises:
        InputError: The tracking server does not answer, or refuses the credentials.
    """
    uri = tracking_uri()
    check_server(uri)
    name = "-".join(filter(None, (dataset, variant)))
    tags = {"stage": stage, "dataset": dataset, **({"variant": variant} if variant else {}), **_environment(stage)}
    for path in inputs:
        if path.exists() and (run_id := _read(path)["run_id"]):
            tags[f"input.{path.parent.name}.{path.stem}"] = run_id
    folder = _journal() / uuid.uuid4().hex
    with _lock(folder / "lock"):
        run = Run(folder, " ".join(filter(None, (stage, dataset, variant))), tags, params or {})
        _start_courier()
        try:
            with run._ending():
                yield run
        finally:
            _await_delivery(folder, uri)
        lineage = {"run_id": run.id, "experiment": experiment_name()}
        write_text(Path("runs") / stage / f"{name}.json", json.dumps(lineage) + "\n")


def tracking_uri() -> str:
    """The store: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_root() / 'mlflow.db'}"


def experiment_name() -> str:
    """The experiment: ``MLFLOW_EXPERIMENT_NAME``, or ``netinv``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netinv"


def pipeline_name() -> str | None:
    """What groups the runs of one pipeline: ``NETINV_PIPELINE_RUN``, any name, or DVC's name of the experiment.

    Stages that share a name become children of one run of that name; without one they stand alone.
    """
    return os.environ.get("NETINV_PIPELINE_RUN") or os.environ.get("DVC_EXP_NAME") or None


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters, keys joined by dots.

    >>> flatten({"invert": {"robust": {"epsilon": 0.1}}, "seed": 0})
    {'invert.robust.epsilon': '0.1', 'seed': '0'}
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = str(value)
            if len(text) > MAX_PARAM_LENGTH:
                note = f"... ({len(text)} characters)"
                text = text[: MAX_PARAM_LENGTH - len(note)] + note
            flat[f"{prefix}{key}"] = text
    return flat


def redacted(text: str) -> str:
    """A URI, or a message that quotes one, without user, password and query.

    >>> redacted("https://ada:secret@host:5000/mlflow?token=1 is away")
    'https://host:5000/mlflow is away'
    """
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"://[^/\s]*@", "://", text))


def check_server(uri: str) -> None:
    """Ask a tracking server for a sign of life; other stores are files, and need none.

    Raises:
        InputError: It does not answer within five seconds, or refuses the credentials.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    base = redacted(uri).rstrip("/")
    try:
        _http_status(f"{base}/health")
    except (OSError, ValueError) as error:
        raise InputError(
            f"The tracking server {base} does not answer ({redacted(str(error))}): start it, correct "
            "MLFLOW_TRACKING_URI, or unset it to track in the local mlflow.db."
        ) from None
    # Credentials of other kinds, and a server too busy to answer this, are left to the courier.
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        experiment = f"{base}/api/2.0/mlflow/experiments/get?experiment_id=0"
        with contextlib.suppress(OSError):
            if _http_status(experiment, {"Authorization": f"Basic {basic}"}) == 401:
                raise InputError(
                    f"The tracking server {base} refuses the credentials: correct MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD."
                )


def _http_status(url: str, headers: Mapping[str, str] | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _environment(stage: str) -> dict[str, str]:
    """Tags that tell where a run came from."""
    torch = sys.modules.get("torch")
    tags = {
        "host": platform.node(),
        "device": "cuda" if torch is not None and torch.cuda.is_available() else "cpu",
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


def _root() -> Path:
    """The repository; for a queued DVC experiment, which runs in a copy inside it, the one it was copied from."""
    return Path(str(Path.cwd()).partition("/.dvc/tmp/exps/")[0])


def _journal() -> Path:
    return _root() / ".mlflow-journal"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"Expected a name of letters, digits, spaces and _-./ for MLflow, got {name!r}")


def _now() -> int:
    """Milliseconds since the epoch, MLflow's clock."""
    return time.time_ns() // 1_000_000


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


@contextlib.contextmanager
def _lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a file lock, which ends with the process at the latest; yields whether it was to be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


# ---- From the journal to MLflow ----


def _start_courier() -> None:
    """Start a courier; where one is at work already, the new one ends at once."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), *_python_path()))}
    courier = subprocess.Popen(
        (sys.executable, "-m", "pipeline.tracking", "courier"),
        cwd=_root(),
        env=environment,
        start_new_session=True,  # neither Ctrl-C nor the end of the stage ends it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    courier.returncode = 0  # it outlives this process on purpose: Popen need not warn of that


def _python_path() -> Iterable[str]:
    return filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))


def _await_delivery(folder: Path, uri: str) -> None:
    """Wait until a run that ended is delivered; where that fails, say so and leave it in the journal."""
    ended = time.time()
    error = folder / "error"
    reason = "the courier is slow"
    restart = ended + _RESTART_SECONDS
    while time.time() < ended + _GIVE_UP_SECONDS:
        if _read(folder / "run.json")["done"]:
            return
        if error.exists() and error.stat().st_mtime >= ended:
            reason = error.read_text()
            break
        if time.time() > restart:  # the last one may have gone home just before this run began
            _start_courier()
            restart += _RESTART_SECONDS
        time.sleep(_POLL_SECONDS / 4)
    print(
        f"warning: Not all of this run has reached {redacted(uri)} ({reason}); it is kept in {_journal().name}, and "
        "the next stage delivers it, or `python -m pipeline.tracking flush`.",
        file=sys.stderr,
    )


class _Deliverer:
    """Takes journals to one store; the courier and ``flush`` each have one."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._attempts: dict[tuple[Path, bool], float] = {}
        self._monitor: Any = None

    def folders(self) -> list[Path]:
        """Journals for this store, oldest first."""
        found = [(state, path.parent) for path in _journal().glob("*/run.json") if (state := _read(path))]
        ours = [(state["start_time"], folder) for state, folder in found if state["uri"] == redacted(self.uri)]
        return [folder for _, folder in sorted(ours)]

    def deliver(self, at_once: bool = False) -> bool:
        """Deliver what is due; returns whether any stage is still at work."""
        with _lock(_journal() / "deliver.lock"):  # against a flush at the same time
            at_work = [self._deliver_journal(folder, at_once) for folder in self.folders()]
        return any(at_work)

    def _deliver_journal(self, folder: Path, at_once: bool) -> bool:
        with _lock(folder / "lock", wait=False) as orphan:
            if orphan and _read(folder / "run.json")["done"]:
                shutil.rmtree(folder)
                return False
            over = orphan or (folder / "ended.json").exists()
            attempt = (folder, over)  # the end is delivered at once
            due = self._attempts.get(attempt, -_DELIVERY_SECONDS) + _DELIVERY_SECONDS
            if at_once or time.monotonic() >= due:
                try:
                    if not over:
                        self._sample_system(folder)
                    self._deliver_run(folder, None, orphan)
                    (folder / "error").unlink(missing_ok=True)
                except Exception as error:  # whatever MLflow or a network raises: the stage goes on
                    reason = redacted(" ".join(str(error).split()))[:500]
                    write_text(folder / "error", reason or type(error).__name__)
                self._attempts[attempt] = time.monotonic()
            return not orphan

    def _sample_system(self, folder: Path) -> None:
        """Add the machine's load to the records of a stage at work, under the names of MLflow's view of it."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        first = self._monitor is None
        if first:
            self._monitor = SystemMetricsMonitor("", tracking_uri=self.uri)  # type: ignore[no-untyped-call]
        self._monitor.collect_metrics()
        load = self._monitor.aggregate_metrics()
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        if first:  # the load is that since the last look
            return
        now = _now()
        seconds = (now - _read(folder / "run.json")["start_time"]) // 1000
        metrics = [[f"system/{name}", float(value), now, seconds] for name, value in load.items()]
        with (folder / "records.jsonl").open("a") as file:
            file.write(json.dumps({"metrics": metrics}) + "\n")

    def _deliver_run(self, folder: Path, parent: str | None, orphan: bool) -> bool:
        """Deliver all that a run has written; returns whether that is all it will ever write."""
        path = folder / "run.json"
        state = _read(path)
        if state["done"]:
            return True
        if state["run_id"] is None:
            state["run_id"] = self._create_run(state, parent)
            write_text(path, json.dumps(state))
        run_id = state["run_id"]
        ended = self._end(folder, orphan)  # read before the records, so that none can come after those
        state["offset"] = self._send_records(run_id, folder, state["offset"])
        write_text(path, json.dumps(state))
        children = [self._deliver_run(child.parent, run_id, orphan) for child in folder.glob("children/*/run.json")]
        if ended is None or not all(children):
            return False
        self._connect().set_terminated(run_id, ended["status"], ended["end_time"])
        if parent is None and state["pipeline"] is not None:
            group = self._pipeline_run(state)
            self._connect().set_terminated(group, ended["status"], ended["end_time"])
        state["done"] = True
        write_text(path, json.dumps(state))
        return True

    def _end(self, folder: Path, orphan: bool) -> Any:
        """How a run ended, or ``None`` while it goes on. A stage that is gone without a word was killed."""
        if (folder / "ended.json").exists():
            return _read(folder / "ended.json")
        last_word = (folder / "records.jsonl").stat().st_mtime
        return {"status": "KILLED", "end_time": int(last_word * 1000)} if orphan else None

    def _create_run(self, state: dict[str, Any], parent: str | None) -> str:
        experiment = self._experiment(state["experiment"])
        if parent is None and state["pipeline"] is not None:
            parent = self._pipeline_run(state)
        tags = {**state["tags"], **({"mlflow.parentRunId": parent} if parent else {})}
        # The answer to an earlier request may have been lost on its way.
        return self._find_run(experiment, "journal", tags["journal"]) or self._new_run(experiment, state, tags)

    def _pipeline_run(self, state: dict[str, Any]) -> str:
        """The run that stands for a whole pipeline; it has the status of the stage that ended last."""
        experiment = self._experiment(state["experiment"])
        tags = {"stage": "pipeline", "pipeline": state["pipeline"]}
        pipeline = {"start_time": state["start_time"], "name": state["pipeline"]}
        return self._find_run(experiment, "pipeline", tags["pipeline"]) or self._new_run(experiment, pipeline, tags)

    def _find_run(self, experiment: str, tag: str, value: str) -> str | None:
        quoted = value.replace("'", "")  # the filter language has no escape
        runs = self._connect().search_runs([experiment], f"tags.{tag} = '{quoted}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _new_run(self, experiment: str, state: dict[str, Any], tags: dict[str, str]) -> str:
        run = self._connect().create_run(experiment, state["start_time"], tags, state["name"])
        run_id: str = run.info.run_id
        return run_id

    def _send_records(self, run_id: str, folder: Path, offset: int) -> int:
        """Send the records from an offset of the journal on; returns the offset behind them."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        with (folder / "records.jsonl").open("rb") as file:
            file.seek(offset)
            lines = [line for line in file if line.endswith(b"\n")]
        records = [json.loads(line) for line in lines]
        tags = {name: value for record in records for name, value in record.get("tags", {}).items()}
        client = self._connect()
        client.log_batch(  # in as many calls as MLflow's limits ask for
            run_id,
            metrics=[Metric(*metric) for record in records for metric in record.get("metrics", ())],
            params=[Param(*item) for record in records for item in record.get("params", {}).items()],
            tags=[RunTag(*item) for item in tags.items()],
        )
        for record in records:
            if "files" in record:
                source, target = record["files"]
                client.log_artifacts(run_id, str(folder / "files" / source), target)
            if "dataset" in record:
                context = [InputTag("mlflow.data.context", "pipeline")]
                client.log_inputs(run_id, [DatasetInput(Dataset(**record["dataset"]), context)])
        return offset + sum(map(len, lines))

    def _experiment(self, name: str) -> str:
        client = self._connect()
        experiment = client.get_experiment_by_name(name)
        experiment_id: str = (
            experiment.experiment_id if experiment else client.create_experiment(name, self._artifact_location())
        )
        return experiment_id

    def _artifact_location(self) -> str | None:
        """A server knows its own place for artifacts; without one they lie beside the database."""
        if not self.uri.startswith("sqlite:///"):
            return None
        return str(Path(self.uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts")

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # the journal is the retry
            os.environ["MLFLOW_LOGGING_LEVEL"] = "CRITICAL"
            os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # with the password in it
            from mlflow.tracking import MlflowClient

            database = Path(self.uri.removeprefix("sqlite:///"))
            if self.uri.startswith("sqlite:///") and not database.exists():
                # A new database takes seconds of migrations: an end among them must not leave half of one.
                fresh = database.with_name(f".{database.name}.new")
                fresh.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                fresh.rename(database)
            self._client = MlflowClient(self.uri)
        return self._client


@click.group()
def main() -> None:
    """Deliver tracking records to MLflow."""


@main.command()
@stage_command
def flush() -> None:
    """Deliver what an unreachable tracking server, or a kill, has left in the journal."""
    uri = tracking_uri()
    check_server(uri)
    deliverer = _Deliverer(uri)
    deliverer.deliver(at_once=True)
    deliverer.deliver()  # clears away what is done
    with _lock(_journal() / "deliver.lock"):
        errors = [(folder / "error").read_text() for folder in deliverer.folders() if (folder / "error").exists()]
        others = {_read(path)["uri"] for path in _journal().glob("*/run.json")} - {redacted(uri)}
    for other in sorted(others):
        print(f"There are records for {other} as well: set MLFLOW_TRACKING_URI to it and run this again.")
    if errors:
        raise InputError(f"{len(errors)} runs could not be delivered to {redacted(uri)}: {errors[0]}")
    print(f"All records for {redacted(uri)} are delivered.")


@main.command(hidden=True)
def courier() -> None:
    """Deliver the journal as it grows, and go home when no stage has been at work for a while."""
    uri = tracking_uri()
    store = hashlib.sha256(redacted(uri).encode()).hexdigest()[:8]
    with _lock(_journal() / f"courier-{store}.lock", wait=False) as alone:
        if not alone:
            return
        # A stage waits for the courier at its end, so it tries again rather than wait MLflow's two minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        deliverer = _Deliverer(uri)
        busy = time.monotonic()
        while time.monotonic() < busy + _IDLE_SECONDS:
            if deliverer.deliver():
                busy = time.monotonic()
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
