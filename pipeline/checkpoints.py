"""What a stage that was killed needs to go on: the state and the history of each of its generators, on storage."""

import errno
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from netinv.core import InputError, redacted
from pipeline.stage import alone

_ABANDONED = timedelta(days=1)
"""Without a sign of life on storage that others may use, after which what a stage has left there is removed."""
_BEAT = 5.0
"""Seconds from one sign of life of a stage at work to the next."""
_PATIENCE = 30.0
"""Seconds without one after which a stage of another machine counts as dead."""
_HOST = socket.gethostname()
_OWNER = re.compile(r"owner\.(?P<host>.+)\.(?P<pid>\d{1,9})\.[0-9a-f]{32}")
"""Names of the files of which each is one stage's sign of life."""
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
    written to for a day. There, a stage that begins while another is at work at the same settings has a folder of its
    own, ``<key>-<number>``; and what a dead one has left goes to the next that begins. In a folder of the workspace a
    second one is refused, whatever its settings and outputs are.

    Args:
        storage: A folder, or a URL of any kind that fsspec knows, such as ``s3://bucket/path``.
        stage: The stage with its data set and variant, as in ``invert-digits-robust``.
        key: Fingerprint of all that the results depend on.

    Raises:
        InputError: The storage cannot be used, or another process is at this stage in this workspace.
    """

    def __init__(self, storage: str, stage: str, key: str) -> None:
        import fsspec

        self._storage, self._warned, self._unwritten = storage, False, set[str]()
        self._lock, own = ExitStack(), _is_of_one_workspace(storage)
        if own:
            self._lock.enter_context(alone(f"checkpoints-{stage}", f"at work on {stage}"))
        weakref.finalize(self, self._lock.close)
        try:
            self._fs, root = fsspec.url_to_fs(storage)
            place = f"{root.rstrip('/')}/{stage}"
            there = _listed(self._fs, place)
            self._claim = None if own else self._claimed(place, key, there)
            self._folder = self._claim.folder if self._claim else f"{place}/{key}"
            self._fs.makedirs(self._folder, exist_ok=True)
            self._forget_others(place, there, timedelta(0) if own else _ABANDONED)
            for name in _listed(self._fs, self._folder):
                if name.startswith("."):  # what a killed stage has not written to its end
                    self._discard(name)
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

        Raises:
            InputError: The storage cannot be used.
        """
        try:
            return self._load(index)
        except Exception as error:
            raise InputError(
                f"Checkpoints cannot be read from ray.storage={self._storage} ({error}): mend that, and run this again."
            ) from None

    def _load(self, index: int | str) -> tuple[History, bytes | None]:
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
        self._keep(f"{index}.json", json.dumps(history).encode())

    def save_state(self, index: int | str, state: bytes) -> None:
        """Keep a state, after the records up to it."""
        if f"{index}.json" not in self._unwritten:
            self._keep(f"{index}.pt", state)

    def remove(self) -> None:
        """Forget everything: the stage is done."""
        if self._claim:
            self._claim.release()
        try:
            self._fs.rm(self._folder, recursive=True)
        except FileNotFoundError:  # another user of the storage may have removed it
            pass
        except Exception as error:  # the outputs are there, whatever becomes of these
            self._warn(f"cannot be removed from {self._folder} ({error}): remove them yourself")
        self._lock.close()

    def _keep(self, name: str, content: bytes) -> None:
        """Write a file. Where a server does not take it the work goes on, and the next one is tried again.

        What the disk of this machine does not take ends the stage: it would not take the outputs, either.
        """
        from fsspec.implementations.local import LocalFileSystem

        try:
            self._write(name, content)
            self._unwritten.discard(name)
        except Exception as error:  # each kind of storage has its own
            if isinstance(self._fs, LocalFileSystem):
                raise
            self._unwritten.add(name)
            if not self._warned:
                self._warn(f"cannot be written ({error}): the stage goes on, and loses more if it is killed")
            self._warned = True

    def _warn(self, what: str) -> None:
        print(redacted(f"warning: Checkpoints in ray.storage={self._storage} {what}."), file=sys.stderr)

    def _claimed(self, place: str, key: str, there: list[str]) -> "_Claim":
        """A folder in which no other stage is at work: one that a dead stage has left, or a new one."""
        left = [name for name in sorted(there) if name == key or name.startswith(f"{key}-")]
        folders = iter(dict.fromkeys([*left, key, f"{key}-{uuid.uuid4().hex[:8]}"]))  # the last has never been there
        while not (claim := _Claim(self._fs, f"{place}/{next(folders)}")).is_alone():
            claim.release()
        weakref.finalize(self, claim.ended.set)
        return claim

    def _forget_others(self, place: str, there: list[str], idle: timedelta) -> None:
        """Remove what the stage has left at other settings and has not written to for so long."""
        for other in (f"{place}/{name}" for name in there):
            # Each kind of storage has its own errors. A file that has just gone is a sign of life, and what cannot be
            # removed now is left to the next stage that begins.
            with suppress(Exception):
                if other != self._folder and (not idle or datetime.now(UTC) - self._last_written(other) > idle):
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
        partial = f"{self._folder}/.{name}.{uuid.uuid4().hex}"  # of a name that nobody else writes to
        self._fs.pipe_file(partial, content)
        self._fs.mv(partial, f"{self._folder}/{name}")


class _Claim:
    """A stage's hold on a folder of shared storage: a file that is written anew every few seconds, until it lets go.

    Others judge by whether its content changes, and by no clock, since those of machines differ. Each writes its own
    file first and looks for others then, so that of two that begin at once no more than one finds itself alone.
    """

    def __init__(self, fs: Any, folder: str) -> None:
        self.folder, self.ended = folder, threading.Event()
        self._fs, self._name = fs, f"owner.{_HOST}.{os.getpid()}.{uuid.uuid4().hex}"
        self._fs.makedirs(folder, exist_ok=True)
        self._beat()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def is_alone(self) -> bool:
        """Whether no other stage is at work here."""
        owners = filter(_OWNER.fullmatch, _listed(self._fs, self.folder))
        return not any(self._is_alive(name) for name in owners if name != self._name)

    def release(self) -> None:
        """Let go of the folder."""
        self.ended.set()
        self._thread.join()
        with suppress(Exception):  # the next stage that looks removes it
            self._fs.rm(f"{self.folder}/{self._name}")

    def _live(self) -> None:
        while not self.ended.wait(_BEAT):
            with suppress(Exception):  # a sign of life that fails is made up for by the next
                self._beat()

    def _beat(self) -> None:
        self._fs.pipe_file(f"{self.folder}/{self._name}", uuid.uuid4().bytes)

    def _is_alive(self, owner: str) -> bool:
        """Whether a stage is at work, by its file; a dead one's is removed."""
        import psutil

        found, file = _OWNER.fullmatch(owner), f"{self.folder}/{owner}"
        assert found
        pid = int(found["pid"])
        with suppress(FileNotFoundError):  # it has just let go
            if found["host"] != _HOST or (pid != os.getpid() and psutil.pid_exists(pid)):
                print(
                    f"Looking for {_PATIENCE:.0f} s at most whether a stage is at work in {self.folder}",
                    file=sys.stderr,
                )
                begun, content = time.monotonic(), self._fs.cat_file(file)
                while time.monotonic() - begun < _PATIENCE:
                    time.sleep(_BEAT / 10)
                    if self._fs.cat_file(file) != content:
                        return True
            self._fs.rm(file)
        return False


def _listed(fs: Any, folder: str) -> list[str]:
    """Names in a folder, as they are now; none where it is not there."""
    try:
        return [path.rstrip("/").rpartition("/")[2] for path in fs.ls(folder, detail=False, refresh=True)]
    except FileNotFoundError:
        return []


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
