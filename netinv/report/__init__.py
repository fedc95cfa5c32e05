"""One self-contained page on everything that was inverted."""

from typing import TYPE_CHECKING

import lazy_loader

from netinv.report.inputs import (
    CURVES,
    MEND,
    TRAINING,
    Evaluated,
    Interpreted,
    Inverted,
    read_ablations,
    read_evaluations,
    read_values,
)
from netinv.report.summary import summary

if TYPE_CHECKING:
    from netinv.report.page import render

__all__ = [
    "CURVES",
    "MEND",
    "TRAINING",
    "Evaluated",
    "Interpreted",
    "Inverted",
    "read_ablations",
    "read_evaluations",
    "read_values",
    "render",
    "summary",
]

# The summary needs the base install only; the page needs more.
__getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"page": ["render"]})
