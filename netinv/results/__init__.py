"""What was measured: estimates with intervals, the schema of ``results.json``, and what follows in sentences."""

from netinv.results.estimates import (
    LEVEL,
    MIN_SAMPLES,
    SPREAD_RESAMPLES,
    Bootstrap,
    Estimate,
    Measure,
    NotMeasured,
    spread_estimate,
)
from netinv.results.numbers import number, percentage
from netinv.results.schema import (
    GRID_CLASSES,
    GRID_COLUMNS,
    AccuracyBin,
    Audit,
    CalibrationBin,
    Comparison,
    Kind,
    Pair,
    Results,
    RobustPoint,
    Row,
    load_results,
)
from netinv.results.sentences import HEADLINE, Finding, findings

__all__ = [
    "GRID_CLASSES",
    "GRID_COLUMNS",
    "HEADLINE",
    "LEVEL",
    "MIN_SAMPLES",
    "SPREAD_RESAMPLES",
    "AccuracyBin",
    "Audit",
    "Bootstrap",
    "CalibrationBin",
    "Comparison",
    "Estimate",
    "Finding",
    "Kind",
    "Measure",
    "NotMeasured",
    "Pair",
    "Results",
    "RobustPoint",
    "Row",
    "findings",
    "load_results",
    "number",
    "percentage",
    "spread_estimate",
]
