"""The inversion: losses, the step, the loop; over several workers, and of several generators at once."""

from netinv.inversion.config import InversionConfig
from netinv.inversion.cost import batch_size_for, duration, step_cost
from netinv.inversion.joint import JointTraining
from netinv.inversion.loop import InversionTraining, invert
from netinv.inversion.missing import class_accuracies, missing_classes, read_as_asked, told_missing
from netinv.inversion.parallel import GlobalBatch
from netinv.inversion.variants import VECTOR_STATISTICS, variant_config, variant_of

__all__ = [
    "VECTOR_STATISTICS",
    "GlobalBatch",
    "InversionConfig",
    "InversionTraining",
    "JointTraining",
    "batch_size_for",
    "class_accuracies",
    "duration",
    "invert",
    "missing_classes",
    "read_as_asked",
    "step_cost",
    "told_missing",
    "variant_config",
    "variant_of",
]
