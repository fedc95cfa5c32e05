"""One self-contained page on everything that was inverted."""

from netinv.report.charts import number
from netinv.report.inputs import (
    CURVES,
    MEND,
    TRAINING,
    Evaluated,
    Inverted,
    read_ablations,
    read_evaluations,
    read_values,
)
from netinv.report.page import render

__all__ = [
    "CURVES",
    "MEND",
    "TRAINING",
    "Evaluated",
    "Inverted",
    "number",
    "read_ablations",
    "read_evaluations",
    "read_values",
    "render",
]
