"""Standard output and standard error, whose readers may go at any time."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any

from netinv.core.errors import InputError

BAR = "{desc} {percentage:.0f}%{postfix} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
"""A progress bar of tqdm with a note on how it stands, which a narrow terminal cuts off last."""


class Output:
    """Standard output or error, of which nothing depends: a reader that has gone changes no exit status.

    That may be a verdict, and work goes on without a reader.

    Args:
        stream: Where texts go; ``None`` where it was closed before the process began, and texts go nowhere.
        needed: Whether a text that there is no room for is an error. Of messages it is not: nothing could tell of it.
    """

    def __init__(self, stream: IO[str] | None, needed: bool) -> None:
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":  # its encoding may lack a letter
            stream.reconfigure(errors="backslashreplace")
        self._stream, self._needed = stream or io.StringIO(), needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            InputError: There is no room for it, and it is needed.
        """
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written.

        Raises:
            InputError: There is no room for it, and it is needed.
        """
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # or Python's own last flush fails as well
        if self._needed and not isinstance(error, BrokenPipeError):
            raise InputError(f"The standard output cannot be written ({error.strerror}).") from None


@contextmanager
def guarded_output() -> Iterator[None]:
    """A block in which what is printed has no say in how it ends."""
    with redirect_stdout(Output(sys.stdout, needed=True)), redirect_stderr(Output(sys.stderr, needed=False)):
        yield
