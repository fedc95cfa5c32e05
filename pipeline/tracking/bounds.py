"""Answers of a tracking server have an end, in bytes and in seconds, and what it lets down now and then is asked again.

Imported with MLflow, and not before.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import requests
from requests.adapters import HTTPAdapter

MAX_BYTES = 64 * 2**20
"""Largest answer that is read; those to this pipeline's questions have thousands of bytes."""
MAX_SECONDS = 60.0
"""Longest time that an answer may take, from the question to its last byte."""
TRIES, QUICK = 3, 1.0
"""How often a question is asked that failed within so many seconds: a server that is down or hangs is no such case."""
ONCE = ("/create", "/logged-models")
"""Ends of the addresses where asking twice makes two. The delivery looks for the first before it asks again."""
_PIECE = 2**16


class Bounded:
    """The body of an answer, which ends in an error where it would go on for ever."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def stream(self, amt: int | None = None, decode_content: bool | None = None) -> Iterator[bytes]:
        """What the body gives, piece by piece.

        Raises:
            requests.ConnectionError: It is larger, or takes longer, than an answer may.
        """
        size, end = 0, time.monotonic() + MAX_SECONDS
        # read1 gives what has arrived; read would wait for a whole piece, without a look at the clock.
        while part := self._body.read1(_PIECE, decode_content=decode_content):
            size += len(part)
            if size > MAX_BYTES or time.monotonic() > end:
                self._body.close()
                raise requests.ConnectionError(
                    f"the tracking server's answer is longer than {MAX_BYTES >> 20} MiB or {MAX_SECONDS:.0f} s"
                )
            yield part


_send = HTTPAdapter.send


def _send_bounded(adapter: HTTPAdapter, *arguments: Any, **options: Any) -> requests.Response:
    """As of requests, with a body of :class:`Bounded`, which is read at once where it is not asked for as a stream."""
    told: Future[requests.Response] = Future()

    def ask() -> None:
        try:
            answer = _send(adapter, *arguments, **options)
            answer.raw = Bounded(answer.raw)
            if not options.get("stream"):
                _ = answer.content
            told.set_result(answer)
        except Exception as error:
            told.set_exception(error)

    # A time-out of the socket's own starts again with every byte that a server drips.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return told.result(MAX_SECONDS)
    except TimeoutError:
        raise requests.ConnectionError(f"the tracking server's answer takes longer than {MAX_SECONDS:.0f} s") from None


def _send_patiently(
    adapter: HTTPAdapter, request: requests.PreparedRequest, *arguments: Any, **options: Any
) -> requests.Response:
    """Ask again at once where an error came at once."""
    again = 0 if request.path_url.partition("?")[0].endswith(ONCE) else TRIES - 1
    while True:
        begun = time.monotonic()
        try:
            answer = _send_bounded(adapter, request, *arguments, **options)
            if answer.status_code < 500 or not again or time.monotonic() - begun > QUICK:
                return answer
            answer.close()
        except (requests.ConnectionError, requests.exceptions.RetryError):
            if not again or time.monotonic() - begun > QUICK:
                raise
        again -= 1
        if hasattr(request.body, "seek"):
            requests.utils.rewind_body(request)


def bound_answers() -> None:
    """Have every answer bounded that MLflow's client gets, and questions repeated, for which it has no setting."""
    HTTPAdapter.send = _send_patiently  # type: ignore[method-assign, assignment]  # a method replaced
