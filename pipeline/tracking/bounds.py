"""Answers of a tracking server have an end, in bytes and in seconds, and what it lets down now and then is asked again.

Imported with MLflow, and not before.
"""

import threading
import time
from concurrent.futures import Future
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

MAX_BYTES = 64 * 2**20
"""Largest answer that is read; those to this pipeline's questions have thousands of bytes."""
MAX_SECONDS = 60.0
"""Longest time that an answer may take, from the question to its last byte, beside what sending the question takes."""
SLOWEST = 100_000
"""Bytes a second that a line carries at least. A question may have a file in it."""
TRIES, QUICK = 3, 1.0
"""How often a question is asked that failed within so many seconds: a server that is down or hangs is no such case."""
ONCE = ("/create", "/logged-models")
"""Ends of the addresses where asking twice makes two. The delivery looks for the first before it asks again."""
_PIECE = 2**16


_send = HTTPAdapter.send


def _send_bounded(
    adapter: HTTPAdapter, request: requests.PreparedRequest, *arguments: Any, **options: Any
) -> requests.Response:
    """As of requests, which is given whole answers within the bounds.

    Raises:
        requests.ConnectionError: One is larger, or takes longer, than an answer may, or ends too early.
    """
    told: Future[requests.Response] = Future()
    seconds = MAX_SECONDS + int(request.headers.get("Content-Length", 0)) / SLOWEST
    end = time.monotonic() + seconds
    late = f"the tracking server's answer takes longer than {seconds:.0f} s, with what was sent for it"

    def ask() -> None:
        try:
            answer, content = _send(adapter, request, *arguments, **options), bytearray()
            # read1 gives what has arrived; read would wait for a whole piece, without a look at the clock.
            while part := answer.raw.read1(_PIECE, decode_content=True):
                content += part
                if len(content) > MAX_BYTES or time.monotonic() > end:
                    answer.close()
                    long = f"the tracking server's answer is longer than {MAX_BYTES >> 20} MiB"
                    raise requests.ConnectionError(long if len(content) > MAX_BYTES else late)
            answer._content, answer._content_consumed = bytes(content), True  # as reading it leaves them
            told.set_result(answer)
        except HTTPError as error:  # of the body, which requests has not read
            told.set_exception(requests.ConnectionError(error))
        except Exception as error:
            told.set_exception(error)

    # A time-out of the socket's own starts again with every byte that a server drips.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return told.result(seconds)
    except TimeoutError:
        raise requests.ConnectionError(late) from None


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
