"""The door by which files of other versions and hands come in: regular, of a bounded size, or refused in one sentence.

Everything that is read as text, JSON or a table of numbers passes here, and comes out as plain values.
"""

import csv
import io
import json
import math
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from netinv.core.errors import InputError

MAX_TEXT = 256 * 2**20
"""Bytes of the largest text that is read."""
MAX_FILE = 2**37
"""Bytes of the largest file of weights."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that a clone has in the place of a large one."""
MAX_NUMBER = 1e15
MAX_YAML, MAX_VALUES, MAX_DEPTH = 2**20, 20_000, 30
"""Bytes, values and levels of the largest settings."""


def read_text(path: Path, mend: str, most: int = MAX_TEXT) -> str:
    """A regular file as UTF-8.

    Args:
        path: The file.
        mend: What to do where it cannot be read, for the message, such as ``fetch the data set again``; of a
            missing file it becomes ``fetch the data set first, or name another folder``.
        most: Bytes that it may have.

    Raises:
        InputError: It is missing, no regular file, too large, or no text.
    """
    try:
        expect_regular(path, most)
        return path.read_bytes().decode("utf-8-sig")
    except NotADirectoryError:
        raise InputError(f"{path.parent} is a file: name a folder that has {path.name} in it.") from None
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else None
        reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else told or error
        if isinstance(error, FileNotFoundError) and mend.endswith(" again"):  # it may never have been made
            mend = f"{mend.removesuffix(' again')} first, or name another folder"
        raise InputError(f"{path} is not readable ({reason}): {mend}.") from None


def expect_regular(path: Path, most: int = MAX_FILE) -> None:
    """Make sure that reading a path comes to an end, as that of a pipe, a device or a file of holes may not.

    Raises:
        OSError: It is missing, no regular file, of more bytes than ``most``, or what git-lfs puts in a file's place.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    if found.st_size > most:
        raise OSError(f"it has {found.st_size:,} bytes, and at most {most:,} are read")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise OSError("it is a pointer of git-lfs, in whose place git lfs pull puts the file")


def parse_json(text: str) -> Any:
    """JSON as plain values.

    Raises:
        ValueError: It is none; says in a clause where. So are numbers of thousands of digits, and deep nesting.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, mend: str, most: int = MAX_TEXT) -> Any:
    """A file of JSON; arguments as :func:`read_text`.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        return parse_json(read_text(path, mend, most))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not readable JSON ({error}): {mend}.") from None


def read_yaml(path: Path, mend: str) -> Any:
    """A file of settings in YAML, by the parser that DVC uses, so that both read the same values.

    Args:
        path: The file.
        mend: What to do where it cannot be read, for the message.

    Raises:
        InputError: It cannot be read, is no YAML, or holds what settings never need and what no later check would come
            to an end with: aliases that contain themselves or multiply, deep nesting, numbers not finite or vast.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = read_text(path, mend, MAX_YAML)
    try:
        _expect_shallow(text)
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply, at most {MAX_DEPTH} levels are read: {mend}.") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # the parser's, of dates that are none
        raise InputError(f"{path} cannot be read ({error}): {mend}.") from None
    _expect_plain(values, path)
    return values


def _expect_shallow(text: str) -> None:
    """Count what opens before the parser does, which takes the square of it.

    Raises:
        RecursionError: Hundreds of levels are open at once.
    """
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if bracket in "[{" else -1))
        if depth > 10 * MAX_DEPTH:
            raise RecursionError
    if re.search(rf"^(?:\s*[-?]\s){{{10 * MAX_DEPTH}}}", text, re.MULTILINE):
        raise RecursionError


def _expect_plain(values: Any, path: Path) -> None:
    """Walk through all values, however they refer to each other; the path is for messages.

    Raises:
        InputError: They are too many, too deep, not finite or vast; names the key of such a number.
    """
    count = 0
    open_: list[tuple[Any, tuple[Any, ...]]] = [(values, ())]
    while open_:
        value, keys = open_.pop()
        count += 1
        if count > MAX_VALUES or len(keys) > MAX_DEPTH:
            raise InputError(
                f"{path} has more than {MAX_VALUES:,} values or {MAX_DEPTH} levels: do without aliases (*)."
            )
        if isinstance(value, dict):
            for key, part in value.items():  # a key is looked at before what it holds, whose place it then names
                open_ += [(part, (*keys, key)), (key, keys)]
        elif isinstance(value, (list, set, tuple)):
            open_ += [(part, (*keys, index)) for index, part in enumerate(value)]
        elif isinstance(value, (int, float)) and not abs(value) < 2**63:
            told = value if isinstance(value, float) else f"a whole number of {value.bit_length()} bits"
            place = repr(".".join(map(str, keys)))[1:-1] or "the file"
            raise InputError(f"{path}: {place}: {told} is no setting, numbers are finite and below 2^63.")


def read_numbers(path: Path, mend: str, columns: Collection[str] = ()) -> list[dict[str, float]]:
    """A table of finite numbers, with names in its first line.

    Args:
        path: A CSV file.
        mend: As for :func:`read_text`.
        columns: Names that it must have, others beside.

    Raises:
        InputError: The file is missing or holds something else; names the line and the column.
    """
    table = csv.reader(io.StringIO(read_text(path, mend)), strict=True)
    records = []
    try:
        names = next(table, [])
        if not names or not all(names) or len({*names}) < len(names):
            raise ValueError(f"its first line names no columns, or one of them twice: {','.join(names)[:80]!r}")
        if lacking := [name for name in columns if name not in names]:
            raise ValueError(f"it has no column {', '.join(lacking)}")
        for number, row in enumerate(table, start=2):
            if len(row) != len(names):
                raise ValueError(f"line {number} has {len(row)} values for {len(names)} columns")
            records.append({name: _finite(text, number, name) for name, text in zip(names, row, strict=True)})
        if not records:
            raise ValueError("it holds no records")
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a readable table of numbers ({error}): {mend}.") from None
    return records


def _finite(text: str, line: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= MAX_NUMBER:
        raise ValueError(f"line {line}, column {column}: {text[:40]!r} is no number of at most {MAX_NUMBER:g}")
    return value
