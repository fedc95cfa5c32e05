"""Results on disk, whole or not at all, in places that are tried before the work."""

import csv
import errno
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from netinv.core.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where there is no room."""


def check_file(path: Path) -> None:
    """Make sure, before the work, that a file can be written; an earlier file there will be replaced.

    Raises:
        InputError: It is a folder or a device, or nothing can be written there.
    """
    with _told(path):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'no file'} already: name a file.")
        _try(path)


def check_folder(path: Path, replaces: str | None = None) -> None:
    """Make sure, before the work, that a new folder can be written.

    Args:
        path: The folder.
        replaces: A folder that holds a file of this name will be replaced, and so will an empty one.

    Raises:
        InputError: There is something else at ``path`` already, or nothing can be written there.
    """
    with _told(path):
        if path.is_dir() and replaces is not None:
            if any(path.iterdir()) and not (path / replaces).exists():
                raise InputError(f"{path} holds other files: name a new folder.")
        elif path.exists():
            raise InputError(f"{path} is there already: name a new folder.")
        _try(path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Raises:
        InputError: As :func:`check_file`, before the block or at its end.
    """
    check_file(path)
    place = Path(os.path.realpath(path))  # where a link leads; unlike resolve it takes links in a circle as they are
    with _told(path), _beside(place) as partial:
        yield partial
        partial.replace(place)


@contextmanager
def new_folder(path: Path, replaces: str | None = None) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well.

    Raises:
        InputError: As :func:`check_folder`, before the block or at its end.
    """
    check_folder(path, replaces)
    place = Path(os.path.realpath(path))
    with _told(path), _beside(place) as partial:
        partial.mkdir()
        yield partial
        take_place(partial, place)


def take_place(partial: Path, place: Path) -> None:
    """Rename a finished folder to ``place``, on the same file system; an earlier one there goes when that is done.

    Raises:
        OSError: It cannot be; an earlier one stays where it was.
    """
    earlier = partial.with_name(f"{partial.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)  # left by a process that was killed
    replaces = place.exists()
    if replaces:
        place.rename(earlier)
    try:
        partial.rename(place)
    except BaseException:
        if replaces:
            earlier.rename(place)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def save_csv(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write a table of records with the same keys, whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(path, text.getvalue())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses, in one sentence."""
    try:
        yield
    except OSError as error:
        mend = "free some space" if error.errno in FULL else "name a place that can"
        raise InputError(f"{path} cannot be written ({error.strerror or error}): {mend}.") from None


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path next to another, with nothing there before the block and after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    _remove(partial)  # left by a process of the same number that was killed
    try:
        yield partial
    finally:
        _remove(partial)


def _try(path: Path) -> None:
    """Make the temporary name once, in the nearest folder that there is: permissions alone do not tell."""
    place = Path(os.path.realpath(path))
    folder = next(parent for parent in place.parents if parent.exists())
    probe = _partial(folder / place.name)
    _remove(probe)
    probe.mkdir()
    probe.rmdir()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
