"""What a stage tells the experiment tracker: a journal on disk. No mlflow here; ``tracking.py`` delivers the journal.

A stage writes what it has to say to its journal and goes on; a courier, one background process for each store, takes
the journal to MLflow:

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

from netinv.core import InputError
from pipeline.stage import write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netinv.data import DatasetSpec
    from pipeline.registry import Candidate

MAX_PARAM_LENGTH = 6000
"""Characters that MLflow takes as the value of a parameter."""

JOURNAL = "journal:"
"""Begins what stands for the id of a run that the store has not told yet: its journal's key follows."""

_HTTP = ("http", "https")
_POLL_SECONDS = 0.05
_RESTART_SECONDS = 10.0
_GIVE_UP_SECONDS = 120.0
_NAME = re.compile(r"[\w. /-]+")
"""What MLflow takes as a name; checked at once, as a record that the store refuses would never be delivered."""


class Run:
    """One MLflow run. Calls append to the journal, take microseconds, and may come from several threads."""

    def __init__(
        self, folder: Path, name: str, tags: Mapping[str, str], params: Mapping[str, Any], key: str | None = None
    ) -> None:
        """Begin a run in a journal folder that exists and is empty; a ``key`` continues the run that has it."""
        self._folder = folder
        self._tags = dict(tags)
        self.key = key or folder.name
        """What finds the run in the store: its tag ``journal``."""
        self._lock = threading.Lock()
        self._children: dict[str, str] = {}
        (folder / "records.jsonl").touch()
        self._append({"params": flatten(params)})
        state: dict[str, Any] = {
            "uri": redacted(tracking_uri()),
            "experiment": experiment_name(),
            "pipeline": pipeline_name(),
            "name": name,
            "tags": {**tags, "journal": self.key},
            "start_time": now(),
            "run_id": None,
            "offset": 0,
            "done": False,
            "told": [],
        }
        write_text(folder / "run.json", json.dumps(state))  # last: from here on the courier sees the run

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; ``None`` until the courier has told the store of it."""
        run_id: str | None = read_json(self._folder / "run.json")["run_id"]
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step, which is counted in samples seen.

        Raises:
            ValueError: A name has characters that MLflow does not take.
        """
        for name in metrics:
            _check_name(name)
        moment = now()
        self._append({"metrics": [[name, float(value), moment, int(step)] for name, value in metrics.items()]})

    def log_image(self, image: "NDArray[np.uint8]", key: str, step: int = 0) -> None:
        """Log an image, uint8 (H, W) or (H, W, 3), for the image view with its step slider.

        Raises:
            ValueError: The key has characters that MLflow does not take.
        """
        from PIL import Image

        _check_name(key)
        # The names that MlflowClient.log_image gives, which the image view reads; made here, so that a second
        # delivery overwrites the first.
        name = f"{key.replace('/', '~')}+step+{step}+timestamp+{now()}+{uuid.uuid4()}"
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

    def log_models(self, name: str, candidates: "Sequence[Candidate]") -> None:
        """Offer generators to the model registry as versions of ``name``, the best first, with their model cards."""
        offers = []
        for candidate in candidates:
            folder = self._new_file_folder()
            shutil.copyfile(candidate.file, folder / "model.onnx")
            write_text(folder / "model_card.md", candidate.card)
            offers.append(candidate.model_dump(mode="json") | {"file": folder.name})
        self._append({"models": {"name": name, "candidates": offers}})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, for instance what is known only while the stage runs."""
        self._append({"tags": {name: str(value) for name, value in tags.items()}})

    @contextlib.contextmanager
    def child(self, name: str, params: Mapping[str, Any] | None = None, key: str | None = None) -> Iterator["Run"]:
        """A run below this one, with its tags, for instance one generator of a variant.

        Args:
            name: Name of the run.
            params: Nested settings; a run that is continued must have the same.
            key: Any text of the caller's that is the same when the work is taken up after a restart, and never again:
                the run that has it is continued, below this one. What it logged before is not to be logged again.
        """
        folder = self._folder / "children" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        run = Run(folder, name, self._tags, params or {}, key)
        self._children[name] = run.key
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
            write_text(self._folder / "ended.json", json.dumps({"status": status, "end_time": now()}))

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
    wait: bool = False,
) -> Iterator[Run]:
    """Track one stage as a run, from its beginning to its end.

    What is left at its end the courier delivers afterwards; only the run's id is waited for. When the block ends well,
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

    Raises:
        InputError: The tracking server does not answer, or refuses the credentials.
    """
    uri = tracking_uri()
    check_server(uri)
    name = "-".join(filter(None, (dataset, variant)))
    tags = {"stage": stage, "dataset": dataset, **({"variant": variant} if variant else {}), **_environment(stage)}
    earlier: dict[str, dict[str, str]] = {}  # parameters by stage and variant
    for path in inputs:
        if path.exists():
            made = read_json(path)
            tags[f"input.{path.parent.name}.{path.stem}"] = made["run_id"] or f"{JOURNAL}{made.get('journal')}"
            earlier |= made.get("params", {})
    own = flatten(params or {})
    inherited = {k: v for origin in earlier for k, v in _inherited(origin, variant, earlier[origin]).items()}
    folder = journals() / uuid.uuid4().hex
    with locked(folder / "lock"):
        run = Run(folder, " ".join(filter(None, (stage, dataset, variant))), tags, {**inherited, **own})
        _start_courier(uri)
        try:
            with run._ending():
                yield run
        finally:
            _hand_over(folder, uri, wait)
        lineage = {
            "run_id": run.id,
            "experiment": experiment_name(),
            "journal": run.key,
            "children": run._children,
            "params": {**earlier, "/".join(filter(None, (stage, variant))): own},
        }
        write_text(Path("runs") / stage / f"{name}.json", json.dumps(lineage) + "\n")


def _inherited(origin: str, variant: str | None, params: Mapping[str, str]) -> dict[str, str]:
    """Parameters of an earlier stage, under names that are the same for every data set and variant."""
    stage, _, other = origin.partition("/")
    prefix = f"{stage}." if other in ("", variant) else f"{stage}.{other}."
    return {f"{prefix}{name.removeprefix(f'{other}.')}": value for name, value in params.items()}


def tracking_uri() -> str:
    """The store: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


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
        InputError: It does not answer within seven seconds, or refuses the credentials.
    """
    parts = urlsplit(uri)
    if parts.scheme not in _HTTP:
        return
    base = redacted(uri).rstrip("/")
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"} if user and password else {}
    status = None
    if "MLFLOW_TRACKING_TOKEN" not in os.environ:  # a token, and a server too busy for this, are left to the courier
        with contextlib.suppress(OSError, ValueError):
            status = _http_status(f"{base}/api/2.0/mlflow/experiments/get?experiment_id=0", headers, timeout=2)
    if status is None and (silence := _silence(uri)):
        raise InputError(
            f"The tracking server {base} does not answer ({silence}): start it, correct "
            "MLFLOW_TRACKING_URI, or unset it to track in the local mlflow.db."
        )
    if status == 401:
        raise InputError(
            f"The tracking server {base} {'refuses the' if headers else 'asks for'} credentials: "
            f"{'correct' if headers else 'set'} MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def _silence(uri: str) -> str | None:
    """Why a tracking server gives no sign of life; ``None`` where it does, and for a store that is a file."""
    if urlsplit(uri).scheme not in _HTTP:
        return None
    try:
        _http_status(f"{redacted(uri).rstrip('/')}/health")
    except (OSError, ValueError) as error:
        return redacted(str(error)) or type(error).__name__
    return None


def _http_status(url: str, headers: Mapping[str, str] | None = None, timeout: float = 5) -> int:
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
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


def root() -> Path:
    """The repository; for a queued DVC experiment, which runs in a copy inside it, the one it was copied from."""
    return Path(str(Path.cwd()).partition("/.dvc/tmp/exps/")[0])


def journals() -> Path:
    return root() / ".mlflow-journal"


def courier_lock(uri: str) -> Path:
    """What the courier of a store holds while it is at work."""
    store = hashlib.sha256(redacted(uri).encode()).hexdigest()[:8]
    return journals() / f"courier-{store}.lock"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"Expected a name of letters, digits, spaces and _-./ for MLflow, got {name!r}")


def now() -> int:
    """Milliseconds since the epoch, MLflow's clock."""
    return time.time_ns() // 1_000_000


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a file lock, which ends with the process at the latest; yields whether it was to be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _start_courier(uri: str) -> None:
    """Start a courier where none is at work; of several at once, all but one end at once."""
    with locked(courier_lock(uri), wait=False) as none:
        if not none:
            return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), *_python_path()))}
    courier = subprocess.Popen(
        (sys.executable, "-m", "pipeline.tracking", "courier"),
        cwd=root(),
        env=environment,
        start_new_session=True,  # neither Ctrl-C nor the end of the stage ends it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    courier.returncode = 0  # it outlives this process on purpose: Popen need not warn of that


def _python_path() -> Iterable[str]:
    return filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))


def _hand_over(folder: Path, uri: str, wait: bool) -> None:
    """Wait until the store has told a run's id, and where asked or in doubt until it has the whole run.

    Where that fails, say so and leave the run in the journal.
    """
    ended = time.time()
    error = folder / "error"
    wait = wait or error.exists() or _silence(uri) is not None
    reason = "the courier is slow"
    restart = ended + _RESTART_SECONDS
    while time.time() < ended + _GIVE_UP_SECONDS:
        state = read_json(folder / "run.json")
        if state["done"] or (state["run_id"] and not wait):
            for sentence in state["told"]:
                print(sentence, file=sys.stderr)
            return
        if error.exists() and error.stat().st_mtime >= ended:
            reason = error.read_text()
            break
        if time.time() > restart:
            _start_courier(uri)
            restart += _RESTART_SECONDS
        time.sleep(_POLL_SECONDS)
    print(
        f"warning: Not all of this run has reached {redacted(uri)} ({reason}); it is kept in {journals().name}, and "
        "the next stage delivers it, or `python -m pipeline.tracking flush`.",
        file=sys.stderr,
    )
