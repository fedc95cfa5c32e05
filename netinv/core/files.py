"""Results on disk, whole or not at all, in places that are tried before the work."""

import csv
import errno
import io
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from netinv.core.errors import InputError, listed

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where there is no room."""
IGNORED_NAMES = {"lost+found", ".ds_store", "thumbs.db", "desktop.ini", ".ipynb_checkpoints", "__macosx"}
"""What systems and programs put into folders, in lower case; a folder that holds nothing else is empty."""


def expanded(path: str) -> Path:
    """A path that may begin with ``~`` or ``~user``.

    Raises:
        InputError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{path} names the home of a user that this machine does not know: write the path out."
        ) from None


def expect_once(paths: Sequence[Path]) -> None:
    """Refuse a path that is named twice, in whatever spelling: what lies there would count double.

    Raises:
        InputError: One is; names it.
    """
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{path} is named twice: name each folder once.")


def check_file(path: Path, *suffixes: str) -> None:
    """Make sure, before the work, that a file can be written; an earlier file there will be replaced.

    Args:
        path: The file.
        suffixes: Those of files of this kind, such as ``.onnx``, so that no file of another kind is replaced; where
            none are given, the file may have any.

    Raises:
        InputError: It is a folder or a device, nothing can be written there, or it has another suffix.
    """
    with _os_errors_as_input_errors(path):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is {'a folder' if path.is_dir() else 'no file'} already: name a file.")
        _try(_partial(_nearest(path)))
    if suffixes and path.suffix not in suffixes:
        raise InputError(f"{path} has no name that ends in {' or '.join(suffixes)}: name such a file.")


def check_folder(path: Path, replaces: tuple[str, ...] | None = ()) -> None:
    """Make sure, before the work, that a new folder can be written.

    Args:
        path: The folder.
        replaces: Names, as patterns, of the files of a folder that will be replaced: it holds the first of them, and
            nothing that has none of them. An empty folder will be replaced as well where any are given. ``None``
            replaces a folder whatever it holds.

    Raises:
        InputError: There is something else at ``path`` already, or nothing can be written there.
    """
    place = Path(os.path.realpath(path))
    with _os_errors_as_input_errors(path):
        _clear(place)
        _expect_replaceable(path, replaces)
        _try(_earlier(_partial(_nearest(path))))


def _expect_replaceable(path: Path, replaces: tuple[str, ...] | None) -> None:
    """Refuse what lies where a new folder belongs; arguments as :func:`check_folder`.

    Raises:
        InputError: It is more than will be replaced.
    """
    if path.exists() and (replaces == () or not path.is_dir()):
        raise InputError(f"{path} is there already: name a new folder.")
    if replaces and (held := _held(Path(os.path.realpath(path)))):
        if replaces[0] not in held:
            raise InputError(f"{path} holds other files: name a new folder.")
        if others := [name for name in held if not any(fnmatchcase(name, form) for form in replaces)]:
            raise InputError(f"{path} holds other files too ({listed(others, 5)}): move them away.")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, with the permissions it had.

    Raises:
        InputError: As :func:`check_file`, before the block or at its end.
    """
    check_file(path)
    place = Path(os.path.realpath(path))  # where a link leads; unlike resolve it takes links in a circle as they are
    with _os_errors_as_input_errors(path), _beside(place) as partial:
        yield partial
        with suppress(OSError):  # there is no earlier file, or its file system knows no permissions
            shutil.copymode(place, partial)
        try:
            partial.replace(place)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            shutil.copyfile(partial, place)  # a mounted file keeps its place


@contextmanager
def new_folder(path: Path, replaces: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well.

    Raises:
        InputError: As :func:`check_folder`, before the block or at its end.
    """
    check_folder(path, replaces)
    place = Path(os.path.realpath(path))
    with _os_errors_as_input_errors(path), _beside(place) as partial:
        partial.mkdir()
        yield partial
        _expect_replaceable(path, replaces)  # it may have come during the block
        if replaces:
            take_place(partial, place)
        else:
            partial.rename(place)  # fails where a folder with files comes in this very moment


def take_place(partial: Path, place: Path) -> None:
    """Rename a finished folder to ``place``, on the same file system; an earlier one there goes when that is done.

    A mount point cannot be renamed: its files are replaced one by one, and ``partial`` may lie in it.

    Raises:
        OSError: It cannot be; an earlier one stays where it was, but for a mount point, which is left without files.
    """
    earlier = _earlier(partial)
    _remove(earlier)  # left by a process that was killed
    if partial.parent == place:
        _fill(place, partial)
        return
    try:
        if place.exists():
            place.rename(earlier)
    except OSError as error:
        if error.errno != errno.EBUSY:  # a folder of the same file system can be a mount point, too
            raise
        _fill(place, partial)
        return
    try:
        partial.rename(place)
    except BaseException:
        bring_back(partial, place)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def bring_back(partial: Path, place: Path) -> None:
    """Undo the half of :func:`take_place` after which a process was killed."""
    if not os.path.lexists(place):
        with suppress(FileNotFoundError):
            _earlier(partial).rename(place)


def _earlier(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.earlier")


def _fill(place: Path, partial: Path) -> None:
    """Replace what a folder holds. An interruption leaves files missing, never a mix of old and new."""
    for name in set(_held(place)) - {partial.name}:
        _remove(place / name)
    for name in _names(partial):
        shutil.move(partial / name, place / name)


def _held(folder: Path) -> list[str]:
    """Names in a folder, if it is one, without ignored ones and the unfinished files of other processes."""
    unfinished = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.\d{{1,7}}(\.earlier)?")
    names = _names(folder) if folder.is_dir() else []
    return [name for name in names if name.casefold() not in IGNORED_NAMES and not unfinished.fullmatch(name)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
def _os_errors_as_input_errors(path: Path) -> Iterator[None]:
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
    _clear(path)
    partial = _partial(path)
    try:
        yield partial
    finally:
        _remove(partial)


def _nearest(path: Path) -> Path:
    """A place of the same name in the nearest folder that there is."""
    place = Path(os.path.realpath(path))
    return next(parent for parent in place.parents if parent.exists()) / place.name


def _try(probe: Path) -> None:
    """Make a temporary name once: permissions alone do not tell."""
    _remove(probe)
    probe.mkdir()
    probe.rmdir()


def _partial(place: Path) -> Path:
    """A hidden path of this process on the file system of a place: beside it, or in it where it is a mount point."""
    return (place if place.is_mount() else place.parent) / f".{place.name}.{_machine()}.{os.getpid()}"


def _machine() -> str:
    """Where the number of a process means the same one: on this machine, in this container."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # there are no containers
        space = 0
    try:
        machine = Path("/etc/machine-id").read_text().strip()  # machines of one name may share a disk
    except OSError:
        machine = ""
    return f"{zlib.crc32(f'{os.uname().nodename} {space} {machine}'.encode()):08x}"


def _clear(place: Path) -> None:
    """Take away what killed processes of this machine left, and bring back what one had moved out of the way."""
    mine = _partial(place)
    form = re.compile(rf"({re.escape(mine.name.removesuffix(str(os.getpid())))}(\d{{1,7}}))(\.earlier)?")
    with suppress(OSError):  # what belongs to somebody else stays
        for found in filter(None, map(form.fullmatch, _names(mine.parent))):
            if not _lives(int(found[2])):
                partial = mine.with_name(found[1])
                bring_back(partial, place)
                _remove(partial)
                _remove(_earlier(partial))


def _lives(process: int) -> bool:
    """Whether another process of this number is at work."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return process != os.getpid()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
