"""What all stages share: outputs that are whole or absent, errors in one sentence, and an end when DVC ends."""

import atexit
import csv
import errno
import functools
import io
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, ParamSpec

import click

from netinv.core import InputError

P = ParamSpec("P")

SCRATCH = Path(".stage")
"""Locks and unfinished outputs, on the same file system as the outputs, so that a rename moves them."""


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``out`` when the block ends well, and vanishes when it does not.

    A lock keeps a second process away from the same output, for instance the orphan of a killed ``dvc repro``.

    Raises:
        InputError: Another process is writing the same output.
    """
    import fcntl

    SCRATCH.mkdir(exist_ok=True)
    name = "-".join(Path(os.path.relpath(out)).parts)
    with (SCRATCH / f"{name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise InputError(f"Process {lock.read() or '?'} is still writing {out}: wait for it, or end it.") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        partial = SCRATCH / name
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        partial.mkdir()
        try:
            yield partial
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write records of one shape as CSV with a header, in one step."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(path, text.getvalue())


def stage_command(function: Callable[P, None]) -> Callable[P, None]:
    """Wrap a stage's main function: user errors become one sentence and exit status 2, signals unwind in order."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        _quieten()
        signal.signal(signal.SIGTERM, _unwind)
        _end_with_dvc()
        succeeded = _leave_at_once()
        try:
            function(*args, **kwargs)
            succeeded.set()
        except (InputError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            print(f"error: The disk is full ({error}): free some space and run the stage again.", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("error: Interrupted; nothing half-written was left behind.", file=sys.stderr)
            sys.exit(130)

    return command


def _be_verbose(context: click.Context, option: click.Parameter, verbose: bool) -> None:
    if verbose:
        os.environ["NETINV_VERBOSE"] = "1"


verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_be_verbose,
    help="Show what Ray and other libraries log; so does NETINV_VERBOSE=1.",
)


def _quieten() -> None:
    """Libraries' chatter is not for the person who waits for a stage; NETINV_VERBOSE=1 gives it back."""
    if os.environ.get("NETINV_VERBOSE") != "1":
        warnings.simplefilter("ignore")


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """A termination request leaves through the same clean-up as an interrupt."""
    raise KeyboardInterrupt


def _leave_at_once() -> threading.Event:
    """Under DVC, end the process without taking its modules down, once the event is set: torch needs half a second.

    Registered before the libraries register theirs, it is called after all of those.
    """
    succeeded = threading.Event()

    def leave() -> None:
        if succeeded.is_set():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    if "DVC_ROOT" in os.environ:
        atexit.register(leave)
    return succeeded


def _end_with_dvc() -> None:
    """DVC that is killed leaves its command running, which would race the next run: end when the parent is gone."""
    if "DVC_ROOT" not in os.environ:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
