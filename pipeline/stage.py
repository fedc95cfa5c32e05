"""What all stages share: outputs that are whole or absent, errors in one sentence, and an end when DVC ends."""

import atexit
import errno
import functools
import os
import shutil
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec

import click

from netinv.core import (
    FULL,
    InputError,
    bring_back,
    check_file,
    check_folder,
    guarded_output,
    listed,
    read_yaml,
    redacted,
    take_place,
    trade_memory_for_speed,
)
from pipeline.ending import begin, end_with_parent, ending, report_end
from pipeline.layers import at

P = ParamSpec("P")

SCRATCH = Path(".stage")
"""Locks and unfinished outputs, on the same file system as the outputs, so that a rename moves them."""

MENDABLE = {
    **dict.fromkeys(FULL, "The disk is full: free some space"),
    errno.EROFS: "Nothing can be written there: have it made writable",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "It may not be read or written: give this account the rights"),
    errno.EBUSY: "It is in use, or a mount point: free it, or name a folder in it",
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "A file is where a folder belongs, or the reverse: move it away"
    ),
    **dict.fromkeys((errno.ELOOP, errno.ENAMETOOLONG), "No file can have this path: give it another"),
    errno.EIO: "The disk fails: look after it",
}
"""What the machine refuses, and what its owner can do."""

_found: dict[Path, bytes] = {}
"""Settings and code as the stage found them; nothing where no DVC has started it."""


@contextmanager
def replaced(out: Path, *files: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``out`` when the block ends well, and vanishes when it does not.

    No second process writes the same output meanwhile. Where ``out`` is a link, its target is replaced.

    Args:
        out: The folder.
        files: Other outputs, which the block writes itself, at the end of its work.

    Raises:
        InputError: Another process is writing the same output, or one of all these could not be written in the end, or
            settings or code were changed meanwhile.
    """
    place = _place(out)
    for file in files:
        check_file(file)
    name = "-".join(Path(os.path.relpath(out)).parts)
    with alone(name, f"writing {out}"):
        place.parent.mkdir(parents=True, exist_ok=True)
        room = place if place.is_mount() else place.parent
        another_disk = room.stat().st_dev != SCRATCH.stat().st_dev
        partial = room / f".{place.name}.partial" if another_disk else SCRATCH / name
        bring_back(partial, place)
        check_folder(place, replaces=None)
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        partial.mkdir()
        try:
            yield partial
            _expect_unchanged()
            take_place(partial, place)
        except OSError as error:
            if error.errno in FULL and error.filename is None:  # of a write, which tells no name
                error.filename = str(out)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _place(out: Path) -> Path:
    """Where an output is in truth.

    Raises:
        InputError: A file is there, or the output lies where DVC would not take it from.
    """
    place = out.resolve()
    if place.exists() and not place.is_dir():
        raise InputError(f"{out} is no folder, where a stage writes one: move it away.")
    root = os.environ.get("DVC_ROOT")
    if root and not out.absolute().parent.resolve().is_relative_to(Path(root).resolve()):
        raise InputError(
            f"{out.parent} is a link out of the repository, from where DVC takes no outputs: make it a folder, and "
            f"{out} a link."
        )
    return place


def _settings_and_code() -> dict[Path, bytes]:
    """What DVC reads when a stage has ended, and records as what its outputs were made with."""
    if "DVC_STAGE" not in os.environ:
        return {}
    code = (path for folder in ("netinv", "pipeline") for path in Path(folder).rglob("*.py"))
    files = (path for path in (Path("dvc.yaml"), Path("params.yaml"), *code) if path.is_file())
    return {path: path.read_bytes() for path in files}


def _expect_unchanged() -> None:
    """See that DVC will record the settings and the code that the stage has worked with, and no later ones.

    Raises:
        InputError: Some that the stage depends on, by ``dvc.yaml``, are others than at its beginning.
    """
    now, params = _settings_and_code(), Path("params.yaml")
    changed = [path for path in _found | now if now.get(path) != _found.get(path)]
    if not _found or not changed:
        return
    from ruamel.yaml import YAML

    load = YAML(typ="safe", pure=True).load
    name, _, item = os.environ["DVC_STAGE"].rpartition(":")[2].partition("@")
    stage = at(load(_found.get(Path("dvc.yaml"), b"")), f"stages.{name}") or {}
    different = [str(path) for path in changed if any(path.is_relative_to(str(part)) for part in stage.get("deps", ()))]
    if params in changed:
        matrix = [*stage.get("matrix", ())]
        values = item.rsplit("-", len(matrix) - 1)  # of which the first, the data set, may have a hyphen itself
        keys = " ".join(map(str, stage.get("params", ())))
        for part, value in zip(matrix, values, strict=False):
            keys = keys.replace(f"${{item.{part}}}", value)
        before, after = load(_found.get(params, b"")), read_yaml(params, "put it back, and run the stage again")
        different += [f"{key} in {params}" for key in keys.split() if at(before, key) != at(after, key)]
    if different:
        raise InputError(
            f"{listed(different)} changed while the stage was at work, and DVC would record its outputs as made with "
            "that: put it back if it was not meant, and run the stage again."
        )


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a file lock, which ends with the process at the latest; yields whether it was free."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def alone(name: str, doing: str) -> Iterator[None]:
    """Refuse a second process at the same work, for instance beside the orphan of a killed ``dvc repro``.

    Raises:
        InputError: Another one is at it.
    """
    lock = SCRATCH / f"{name}.lock"
    with locked(lock, wait=False) as free:
        if not free:
            raise InputError(f"Process {lock.read_text() or '?'} is still {doing}: wait for it, or end it.")
        lock.write_text(str(os.getpid()))
        yield


def _expect_home() -> None:
    """Refuse an account without a home, which MLflow and Ray ask for when they are imported.

    Raises:
        InputError: There is neither ``HOME`` nor an entry of this user.
    """
    try:
        Path.home()
    except RuntimeError:
        raise InputError("This account has no home: set HOME to a folder that it can write.") from None


def stage_command(function: Callable[P, None]) -> Callable[P, None]:
    """Wrap a stage's main function: user errors become one sentence and exit status 2, signals unwind in order.

    An unexpected error ends with 2 as well, behind its trace without the secrets that its messages may quote.
    """

    @functools.wraps(function)
    @guarded_output()
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        if os.environ.get("NETINV_VERBOSE") != "1":  # what libraries say is not for who waits for a stage
            warnings.simplefilter("ignore")
        trade_memory_for_speed()
        begin()
        if "DVC_ROOT" in os.environ:
            end_with_parent()
        _found.clear()
        _found.update(_settings_and_code())
        succeeded = _leave_at_once()
        try:
            _expect_home()
            with _end_reported():
                try:
                    function(*args, **kwargs)
                finally:
                    sys.stdout.flush()
            succeeded.set()
        except (InputError, FloatingPointError) as error:
            print(f"error: {redacted(str(error))}", file=sys.stderr)
            sys.exit(2)
        except Exception as error:  # 1, Python's own status, is a verdict of the audit
            if isinstance(error, OSError) and error.errno in MENDABLE:
                told = f"error: {MENDABLE[error.errno]} ({redacted(str(error))}), and run the stage again.\n"
            else:
                told = redacted(traceback.format_exc())
            print(told, file=sys.stderr, end="")
            sys.exit(2)
        except KeyboardInterrupt:
            print("error: Interrupted; nothing half-written was left behind.", file=sys.stderr)
            sys.exit(130)

    return command


path_option = functools.partial(click.option, type=click.Path(path_type=Path), required=True)
"""An option of a command for a file or a folder."""


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


@contextmanager
def _end_reported() -> Iterator[None]:
    """Whatever a library makes of an exception that comes out of nowhere: the stage has been asked to end."""
    try:
        yield
    except BaseException:
        if (reason := ending()) is None:
            raise
        sys.exit(report_end(reason))


def _leave_at_once() -> threading.Event:
    """Under DVC, end the process without taking its modules down, once the event is set: torch needs half a second.

    Registered before the libraries register theirs, it is called after all of those.
    """
    succeeded = threading.Event()

    def leave() -> None:
        if succeeded.is_set():
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with suppress(OSError):  # its reader has gone
                    stream.flush()
            os._exit(0)

    if "DVC_ROOT" in os.environ:
        atexit.register(leave)
    return succeeded
