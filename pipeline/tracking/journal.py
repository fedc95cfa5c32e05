"""What a stage tells the experiment tracker: a journal on disk. ``delivery.py`` takes it to MLflow.

A journal folder holds ``run.json`` (what the run is, and how far it was delivered; written by the deliverer alone
after the first moment), ``records.jsonl`` (append-only), ``files/`` (copies of artifacts), ``ended.json``, ``error``
(why the last delivery failed), ``children/`` (the same again) and ``lock``, which the stage holds while it lives.
"""

import contextlib
import hashlib
import itertools
import json
import os
import posixpath
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from netinv.core import InputError, expect_regular, is_secret, redacted, write_text
from pipeline.tracking.store import experiment_name, pipeline_name, root, tracking_uri

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netinv.data import DatasetSpec
    from pipeline.tracking.registry import Candidate

MAX_KEY_LENGTH, MAX_PARAM_LENGTH = 250, 6000
"""Characters that MLflow takes as the value of a parameter."""

JOURNAL = "journal:"
"""Begins what stands for the id of a run that the store has not told yet: its journal's key follows."""

OWN_ID = "{run_id}"
"""In a description, stands for the id that the store gives the run."""

DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow shows at the top of a run, as Markdown."""
_MAX_DESCRIPTION = 7500
"""Characters, below the 8000 that MLflow takes as the value of a tag."""
_PICTURE_SIDE = 512
"""Pixels up to which pictures are enlarged, by whole numbers."""

MAX_STATE = 2**26
"""Bytes of a journal's file that is read at once."""
_NAME = re.compile(r"[\w. /-]+")
"""What MLflow takes as a name; checked at once, as a record that the store refuses would never be delivered."""


class Run:
    """One MLflow run. Calls append to the journal, take microseconds, and may come from several threads."""

    def __init__(
        self,
        folder: Path,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        key: str | None = None,
        for_pipeline: bool = False,
        flat: Mapping[str, str] | None = None,
    ) -> None:
        """Begin a run in a journal folder that exists and is empty.

        A ``key`` continues the run that has it. ``flat`` are parameters that
        :func:`flatten` gave. What a run ``for_pipeline`` logs stands in the pipeline's run as well.
        """
        self._folder = folder
        self._name, self._picture = name, ""
        self._tags = {tag: redacted(value) for tag, value in tags.items()}
        self.key = key or folder.name
        """What finds the run in the store: its tag ``journal``."""
        self._lock = threading.Lock()
        self.children: dict[str, str] = {}
        (folder / "records.jsonl").touch()
        self._append({"params": {**(flat or {}), **flatten(params)}})
        pipeline = pipeline_name()
        state: dict[str, Any] = {
            "uri": redacted(tracking_uri()),
            "experiment": experiment_name(),
            "pipeline": pipeline,
            "name": name if pipeline is None else f"{name} ({pipeline})",  # told apart wherever runs are compared
            "for_pipeline": for_pipeline,
            "tags": {**self._tags, "journal": self.key},
            "start_time": now(),
            "run_id": None,
            "offset": 0,
            "done": False,
            "told": [],
        }
        write_text(folder / "run.json", json.dumps(state))  # last: from here on the delivery sees the run

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; ``None`` until it is delivered."""
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

    def log_earlier_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Say what the run of this key has logged already: it is sent only where the store has no such run.

        It may have been deleted since, or the store may be another one.
        """
        moment = now()
        self._append({"earlier": [[name, float(value), moment, int(step)] for name, value in metrics.items()]})

    def log_image(self, image: "NDArray[np.uint8]", key: str, step: int = 0) -> None:
        """Log an image, uint8 (H, W) or (H, W, 3), for the image view with its step slider, and as the run's face.

        Small ones are enlarged.

        Raises:
            ValueError: The key has characters that MLflow does not take.
        """
        from PIL import Image

        _check_name(key)
        # The names that MlflowClient.log_image gives, which the image view reads; made here, so that a second
        # delivery overwrites the first.
        name = f"{key.replace('/', '~')}+step+{step}+timestamp+{now()}+{uuid.uuid4()}"
        folder = self._new_file_folder()
        scale = max(1, _PICTURE_SIDE // max(image.shape[:2]))
        picture = Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1))
        picture.save(folder / f"{name}.png")
        picture.thumbnail((256, 256))
        picture.save(folder / f"{name}+compressed.webp")
        self._append({"files": [folder.name, "images"], "tags": {"mlflow.loggedImages": "True"}})
        address = f"get-artifact?path={quote(f'images/{name}.png', safe='')}&run_uuid={OWN_ID}"
        self._picture = f"![{key}]({address})"
        self.describe("")

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

    def describe(self, text: str) -> None:
        """Set the run's description, Markdown, below the image that it logged last; lines beyond MLflow's bound go."""
        text = f"{self._picture}\n\n{text}".strip()
        if len(text) > _MAX_DESCRIPTION:
            text = f"{text[:_MAX_DESCRIPTION].rpartition(chr(10))[0]}\n\n(cut)"
        self._append({"tags": {DESCRIPTION: text}})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, for instance what is known only while the stage runs."""
        self._append({"tags": {name: str(value) for name, value in tags.items()}})

    @contextlib.contextmanager
    def child(self, name: str, params: Mapping[str, Any] | None = None, key: str | None = None) -> Iterator["Run"]:
        """A run below this one, with its tags, for instance one generator of a variant.

        Args:
            name: Name of the run, to which the name of this one is added.
            params: Nested settings; a run that is continued must have the same.
            key: Any text of the caller's that is the same when the work is taken up after a restart, and never again:
                the run that has it is continued, below this one. What it logged before is not to be logged again.
        """
        folder = self._folder / "children" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        about = self._name.partition(" ")[2]  # the data set and the variant
        run = Run(folder, f"{name} of {about}" if about else name, self._tags, params or {}, key)
        self.children[name] = run.key
        with run.ending():
            yield run

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Record how the block ended."""
        try:
            yield
        except BaseException as error:
            # SIGTERM too, see stage_command
            with contextlib.suppress(InputError):  # a full disk is told by what failed first; the end is then KILLED
                self._end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        self._end("FINISHED")

    def _end(self, status: str) -> None:
        write_text(self._folder / "ended.json", json.dumps({"status": status, "end_time": now()}))

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            append_record(self._folder, record)

    def _new_file_folder(self) -> Path:
        folder = self._folder / "files" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder


def append_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a journal: all of it, or nothing where that fails. The stage and the delivery both do.

    Raises:
        OSError: The disk is full, for instance.
    """
    import fcntl

    line = json.dumps(record).encode() + b"\n"
    with (folder / "records.jsonl").open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # so that nobody else's record is cut away below
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"", b"\n"):  # what a kill left of a record, to which this one is not to be glued
            line = b"\n" + line
        rest = line
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            if file.seek(0, os.SEEK_END) < size + len(line):  # a whole one may have been delivered already
                file.truncate(size)
            raise


def read_record(line: bytes) -> dict[str, Any] | None:
    """The record that a whole line of a journal holds; ``None`` for a damaged one, such as a kill leaves."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters, keys joined by dots, of characters that MLflow takes; secrets are left out.

    >>> flatten({"invert": {"robust": {"epsilon": 0.1}}, "seed": 0})
    {'invert.robust.epsilon': '0.1', 'seed': '0'}
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        # A number under such a name counts something, such as tokens.
        if is_secret(str(key)) and not isinstance(value, int | float | None):
            value = "***"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
            continue
        text = redacted(str(value))
        if len(text) > MAX_PARAM_LENGTH:
            note = f"... ({len(text)} characters)"
            text = text[: MAX_PARAM_LENGTH - len(note)] + note
        flat[_key(f"{prefix}{key}", flat)] = text
    return flat


def _key(name: str, taken: Mapping[str, str]) -> str:
    """A parameter's name in characters that MLflow takes, and no other's."""
    name = re.sub(r"[^/\w. :-]", "_", name)[:MAX_KEY_LENGTH]
    # MLflow rejects names that look like paths.
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        name = name.replace("/", "_").lstrip(".") or "_"
    others = (f"{name[: MAX_KEY_LENGTH - 4]}_{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain((name,), others) if each not in taken)


def journals() -> Path:
    return root() / ".mlflow-journal"


def delivery_lock(uri: str) -> Path:
    """What the process that delivers to a store holds while it is at work."""
    store = hashlib.sha256(redacted(uri).encode()).hexdigest()[:8]
    return journals() / f"delivery-{store}.lock"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"Expected a name of letters, digits, spaces and _-./ for MLflow, got {name!r}")


def now() -> int:
    """Milliseconds since the epoch, MLflow's clock."""
    return time.time_ns() // 1_000_000


def read_json(path: Path) -> Any:
    """One of a journal's own small files.

    Raises:
        OSError: It cannot be read, or is no regular file, or too large.
        InputError: It is no JSON, as a machine that lost its power may leave it.
    """
    expect_regular(path, MAX_STATE)
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        told = f"{path} is damaged ({error}): mend it, or delete its folder to give these records up."
        raise InputError(told) from None
