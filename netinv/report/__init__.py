"""One self-contained page on everything that was inverted."""

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
from netinv.report.page import render
from netinv.report.summary import summary

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
