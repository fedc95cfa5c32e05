"""One self-contained page on everything that was inverted."""

from netinv.report.inputs import Evaluated, Inverted, read_ablations, read_csv, read_evaluations
from netinv.report.page import render

__all__ = [
    "Evaluated",
    "Inverted",
    "read_ablations",
    "read_csv",
    "read_evaluations",
    "render",
]
