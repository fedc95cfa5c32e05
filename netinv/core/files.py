"""Results on disk, whole or not at all."""

import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from netinv.core.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name a place that can.") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well.

    Raises:
        InputError: There is something at ``path`` already, or it cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} is there already: name a new folder.")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name a place that can.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
