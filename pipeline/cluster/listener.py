"""What Ray Tune tells of its trials, passed on to whoever listens in this process.

Tune keeps its callbacks with the search, on disk, and brings them back when a search that was killed goes on. So a
callback has no state of its own: it finds in this module to whom it speaks. Imported with Tune, and not before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune

Subscriber = Callable[[Any, bool], None]
"""Takes a trial of Tune's, and whether it is still running."""

_subscribers: list[Subscriber] = []


@contextmanager
def subscribed(subscriber: Subscriber) -> Iterator[None]:
    """Have ``subscriber`` called with every trial at its every record and at its end, while the block runs."""
    _subscribers.append(subscriber)
    try:
        yield
    finally:
        _subscribers.remove(subscriber)


class Listener(tune.Callback):
    """Tune's callback."""

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
        """A trial has a new record."""
        self._notify(trial, True)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has come to its end, or was stopped."""
        self._notify(trial, False)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has failed."""
        self._notify(trial, False)

    def on_experiment_end(self, trials: Any, **_: Any) -> None:
        """All trials have ended, those among them that had ended before a search was killed."""
        for trial in trials:
            self._notify(trial, False)

    def _notify(self, trial: Any, running: bool) -> None:
        for subscriber in _subscribers:
            subscriber(trial, running)
