"""Progress for the person who waits: a bar on a terminal, a line now and then in a log."""

import sys
import time

LINE_SECONDS = 20
"""Between two lines of progress in a log."""


class Progress:
    """How much of a stage's work is done."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        from tqdm import tqdm

        from netinv.core import BAR

        self._title, self._unit, self._total, self._first, self._done = title, unit, total, done, done
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc=title, bar_format=BAR, disable=None)

    def advance(self, amount: int, note: str, at_once: bool = False) -> None:
        """Count work that is done, and show a clause on how it stands; ``at_once`` for what deserves its own line."""
        self._done += amount
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(amount)
        now = time.monotonic()
        if self._bar.disable and (at_once or now - self._last_line > LINE_SECONDS):
            self._last_line = now
            rate = (self._done - self._first) / max(now - self._start, 1e-9)
            left = f"; {(self._total - self._done) / rate:.0f} s left" if rate and not at_once else ""
            print(f"{self._title}: {self._done} of {self._total} {self._unit}s, {note}{left}", file=sys.stderr)

    def write(self, sentence: str) -> None:
        """Print a line of its own."""
        self._bar.write(f"{self._title}: {sentence}", file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
