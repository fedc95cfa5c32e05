"""What was measured, as types: estimates with intervals, and the schema of ``results.json``."""

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

__all__ = [
    "GRID_CLASSES",
    "GRID_COLUMNS",
    "LEVEL",
    "MIN_SAMPLES",
    "SPREAD_RESAMPLES",
    "AccuracyBin",
    "Audit",
    "Bootstrap",
    "CalibrationBin",
    "Comparison",
    "Estimate",
    "Kind",
    "Measure",
    "NotMeasured",
    "Pair",
    "Results",
    "RobustPoint",
    "Row",
    "load_results",
    "spread_estimate",
]
