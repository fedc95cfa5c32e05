"""What a stage that was killed needs to go on: the state and the history of each of its generators, on storage."""

import errno
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from netinv.core import InputError

_ABANDONED = timedelta(days=1)
"""Without a sign of life on storage that others may use: a stage at work writes at its every record."""
MAX_BYTES = 2**37
"""Of a file that is read."""

History = list[dict[str, float]]


def fingerprint(parts: Iterable[bytes | Path]) -> str:
    """A digest of contents and files, in this order: what differs in any of them never resumes from another."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:32]


class Checkpoints:
    """The checkpoints of one stage at certain settings, in ``<storage>/<stage>/<key>/``.

    Each file is there whole, or not at all. What the same stage has left at other settings is forgotten when this one
    begins: no other stage's, and on storage that several machines or experiments may share, only what nobody has
    written to for a day.

    Args:
        storage: A folder, or a URL of any kind that fsspec knows, such as ``s3://bucket/path``.
        stage: The stage with its data set and variant, as in ``invert-digits-robust``.
        key: Fingerprint of all that the results depend on.

    Raises:
        InputError: The storage cannot be used.
    """

    def __init__(self, storage: str, stage: str, key: str) -> None:
        import fsspec

        try:
            self._fs, root = fsspec.url_to_fs(storage)
            self._folder = f"{root.rstrip('/')}/{stage}/{key}"
            self._fs.makedirs(self._folder, exist_ok=True)
            self._forget_others(timedelta(0) if _is_of_one_workspace(storage) else _ABANDONED)
            if not self._is_file("run"):
                self._discard("run")
            run = self._read("run")
            self.run = run.decode() if run and re.fullmatch(rb"[0-9a-f]{32}", run) else uuid.uuid4().hex
            """Names this run of the stage, and is the same again when a killed stage goes on."""
            self._write("run", self.run.encode())
        except Exception as error:  # each kind of storage has its own
            raise InputError(f"Checkpoints cannot be kept in ray.storage={storage} ({error}).") from None

    def load(self, index: int | str) -> tuple[History, bytes | None]:
        """What is there of a generator or trial: its records so far, and its last state if there is one.

        Records that cannot be read are discarded, with the state that belongs to them: the work begins anew.
        """
        names = f"{index}.json", f"{index}.pt"
        place, reason = f"{self._folder}/{names[0]}", "it is no file of a size that can be meant"
        if odd := [name for name in names if not self._is_file(name)]:
            place = f"{self._folder}/{odd[0]}"
        else:
            history, state = map(self._read, names)
            try:
                return [] if history is None else _history(history), state
            except (ValueError, RecursionError) as error:
                reason = str(error)
        for name in names:
            self._discard(name)
        print(f"warning: {place} is damaged ({reason}) and discarded: {index} begins anew.", file=sys.stderr)
        return [], None

    def save_history(self, index: int | str, history: History) -> None:
        """Keep the records, at every one, so that none is logged twice."""
        self._write(f"{index}.json", json.dumps(history).encode())

    def save_state(self, index: int | str, state: bytes) -> None:
        """Keep a state, after the records up to it."""
        self._write(f"{index}.pt", state)

    def remove(self) -> None:
        """Forget everything: the stage is done."""
        with suppress(FileNotFoundError):  # whoever shares the storage may have cleared up
            self._fs.rm(self._folder, recursive=True)

    def _forget_others(self, idle: timedelta) -> None:
        """Remove what the stage has left at other settings and has not written to for so long."""
        stage, _, ours = self._folder.rpartition("/")
        for other in self._fs.ls(stage, detail=False, refresh=True):
            if other.rstrip("/").rpartition("/")[2] == ours:
                continue
            if not idle or datetime.now(UTC) - self._last_written(other) > idle:
                self._fs.rm(other, recursive=True)

    def _last_written(self, folder: str) -> datetime:
        times = [self._fs.modified(file) for file in self._fs.find(folder)]
        return max((time if time.tzinfo else time.replace(tzinfo=UTC) for time in times), default=datetime.now(UTC))

    def _is_file(self, name: str) -> bool:
        """Whether reading it comes to an end; so does reading what is not there."""
        try:
            about = self._fs.info(f"{self._folder}/{name}")
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            raise
        return about["type"] == "file" and (about["size"] or 0) <= MAX_BYTES

    def _discard(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm(f"{self._folder}/{name}", recursive=True)

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._fs.cat_file(f"{self._folder}/{name}")
        except FileNotFoundError:
            return None
        return content

    def _write(self, name: str, content: bytes) -> None:
        self._fs.makedirs(self._folder, exist_ok=True)  # another machine's idea of what is abandoned may differ
        self._fs.pipe_file(f"{self._folder}/.{name}", content)
        self._fs.mv(f"{self._folder}/.{name}", f"{self._folder}/{name}")


def _history(content: bytes) -> History:
    records = json.loads(content)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError("no list of records")
    for record in records:
        if "step" not in record or not all(isinstance(value, (int, float)) for value in record.values()):
            raise ValueError("a record is not one of numbers by name, with its step")
    return records


def _is_of_one_workspace(storage: str) -> bool:
    """Whether the storage is a folder inside this workspace, whose stages keep each other off their outputs."""
    # An absolute path names one folder for every copy of the repository, such as those of queued experiments.
    return (
        "://" not in storage
        and not Path(storage).expanduser().is_absolute()
        and Path(storage).resolve().is_relative_to(Path.cwd().resolve())
    )
