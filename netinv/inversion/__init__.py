"""The inversion: losses, the step, the loop; over several workers, and of several generators at once."""

from netinv.inversion.config import InversionConfig
from netinv.inversion.joint import JointTraining
from netinv.inversion.loop import InversionTraining, classify, dropout_at, invert, loss_terms, optimization
from netinv.inversion.parallel import GlobalBatch

__all__ = [
    "GlobalBatch",
    "InversionConfig",
    "InversionTraining",
    "JointTraining",
    "classify",
    "dropout_at",
    "invert",
    "loss_terms",
    "optimization",
]
