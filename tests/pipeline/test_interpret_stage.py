"""What the stage ``interpret`` says at its end."""

from types import SimpleNamespace
from typing import Any

from netinv.results import Estimate, NotMeasured
from pipeline import interpret


def test_what_was_not_measured_is_not_told_as_nothing() -> None:
    headline = {
        "explained_variance": Estimate(value=0.75, low=0.7, high=0.8, n=100),
        "transfer": NotMeasured(not_measured="no real images were given"),
    }
    found: Any = SimpleNamespace(results=SimpleNamespace(headline=headline, units=()))
    assert interpret._told("digits", found) == (
        "interpret digits: explained variance 0.750, loss recovered on real images not measured, 0 units"
    )
