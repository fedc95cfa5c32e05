"""The door by which files of other versions and hands come in: regular, of a bounded size, or refused in one sentence.

Everything that is read as text, JSON or a table of numbers passes here, and comes out as plain values.
"""

import csv
import io
import json
import math
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from netinv.core.errors import InputError

MAX_TEXT = 256 * 2**20
"""Bytes of the largest text that is read."""
MAX_NUMBER = 1e15


def read_text(path: Path, mend: str, most: int = MAX_TEXT) -> str:
    """A regular file as UTF-8.

    Args:
        path: The file.
        mend: What to do where it cannot be read, for the message, such as ``fetch the data set again``.
        most: Bytes that it may have.

    Raises:
        InputError: It is missing, no regular file, too large, or no text.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size:,} bytes, and at most {most:,} are read")
        return path.read_bytes().decode()
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else None
        reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else told or error
        raise InputError(f"{path} is not readable ({reason}): {mend}.") from None


def expect_regular(path: Path) -> None:
    """Make sure that reading a path comes to an end, as that of a pipe or a device may not.

    Raises:
        OSError: It is missing, or no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")


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
