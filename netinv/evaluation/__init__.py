"""What generated images are worth: metrics, measures with controls, the privacy audit."""

from netinv.evaluation.config import EvaluationConfig
from netinv.evaluation.evaluate import Evaluation, evaluate, measure_images
from netinv.evaluation.judging import DECISIVE, MAX_COPIES, SIGNIFICANCE, surplus
from netinv.evaluation.metrics import nearest_neighbours, ssim, vendi_score
from netinv.evaluation.objectives import OBJECTIVES, objectives
from netinv.evaluation.pictures import save_evaluation
from netinv.evaluation.privacy import MEMBERSHIP_ALARM, MIN_POOL, Pools, membership, memorisation_test, roc_auc

__all__ = [
    "DECISIVE",
    "MAX_COPIES",
    "MEMBERSHIP_ALARM",
    "MIN_POOL",
    "OBJECTIVES",
    "SIGNIFICANCE",
    "Evaluation",
    "EvaluationConfig",
    "Pools",
    "evaluate",
    "measure_images",
    "membership",
    "memorisation_test",
    "nearest_neighbours",
    "objectives",
    "roc_auc",
    "save_evaluation",
    "ssim",
    "surplus",
    "vendi_score",
]
