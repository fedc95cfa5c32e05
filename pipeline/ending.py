"""How a stage ends early: because it is asked to, or because a process is gone that it cannot do without."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ClassVar, NoReturn

from netinv.core import InputError

GRACE = 20.0
"""Seconds that a stage has to clear up. After them it ends as it is: half-written outputs lie in ``.stage``, where no
later stage reads, and the next run removes them."""
TERMINATED = 128 + signal.SIGTERM
"""Exit status of a stage that was asked to end."""


class Terminated(KeyboardInterrupt):
    """The stage is asked to end; it leaves through the same clean-up as an interrupt."""


class _State:
    """Of this process, which has one main thread."""

    reason: BaseException | None = None
    """Raised in the main thread when the next signal comes."""
    unwinding = False
    alarm: tuple[socket.socket, socket.socket] | None = None
    """Where the signal is heard while the main thread is busy in a library."""
    due: ClassVar[list[Callable[[], None]]] = []
    """What is to be done even where the clean-up hangs."""


def begin() -> None:
    """A stage begins: nobody has asked it to end, and SIGTERM unwinds it."""
    _State.reason, _State.unwinding = None, False
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _unwind)
    if _State.alarm is None:
        _State.alarm = reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_insist, args=(reader,), daemon=True).start()


def ending() -> BaseException | None:
    """Why the stage is clearing up before its time; ``None`` where it is not."""
    return _State.reason if _State.unwinding else None


def end(error: InputError) -> None:
    """End the stage with an error, from any thread."""
    if not _State.unwinding:
        _State.reason = error
        os.kill(os.getpid(), signal.SIGTERM)


def end_with_parent() -> None:
    """End when the parent is gone: DVC that is killed leaves its command running, which would race the next run."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def done_at_the_end(action: Callable[[], None]) -> Iterator[None]:
    """Do something at the end of the block, and also where the stage ends without coming to it."""
    _State.due.append(action)
    try:
        yield
    finally:
        _State.due.remove(action)
        action()


def _unwind(number: int, frame: FrameType | None) -> None:
    signal.alarm(0)  # Ray's handler of the signal, which calls this one, aborts the process three seconds later
    if _State.unwinding:  # the clean-up is not to be interrupted
        return
    _State.unwinding = True
    _State.reason = _State.reason or Terminated()
    sys.unraisablehook = _silent
    raise _State.reason


def _insist(alarm: socket.socket) -> NoReturn:
    """Wait for the signal, and then for the end.

    The main thread may hang on what is gone, and a library may swallow an exception that comes out of nowhere.
    """
    while alarm.recv(1) != bytes((signal.SIGTERM,)):
        pass
    time.sleep(GRACE)
    status = report_end(_State.reason)
    for action in reversed(_State.due):
        with suppress(Exception):  # the others are due as well
            action()
    sys.stderr.flush()
    os._exit(status)


def report_end(reason: BaseException | None) -> int:
    """Say why a stage ends early; returns the exit status."""
    if isinstance(reason, InputError):
        print(f"error: {reason}", file=sys.stderr)
        return 2
    print("error: Terminated; nothing half-written was left behind.", file=sys.stderr)
    return TERMINATED


def _silent(unraisable: object) -> None:
    """What objects say when they are taken down before their time is of no use to anybody."""
