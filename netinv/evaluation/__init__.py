"""What generated images are worth: metrics, measures with controls, the privacy audit."""

from netinv.evaluation.config import EvaluationConfig
from netinv.evaluation.evaluate import Evaluation, evaluate
from netinv.evaluation.metrics import vendi_score
from netinv.evaluation.objectives import OBJECTIVES, objectives
from netinv.evaluation.pictures import save_evaluation

__all__ = [
    "OBJECTIVES",
    "Evaluation",
    "EvaluationConfig",
    "evaluate",
    "objectives",
    "save_evaluation",
    "vendi_score",
]
