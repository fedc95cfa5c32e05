"""The inversion: losses, the step, the loop; over several workers, and of several generators at once.

In the order in which they are best read:

| module | what it holds |
|---|---|
| `variants`, `config` | standard and robust, and all that they set |
| `step` | one step: its random numbers, and a pure function of them and the weights |
| `losses` | the loss, with the paper's symbols |
| `loop` | the loop, which goes on from any of its states |
| `bounds` | a perturbation bound for each class |
| `joint` | several generators as one program |
| `parallel` | one generator on several workers |
| `parts` | a batch in parts |
| `missing` | which classes a generator cannot draw |
| `cost` | what an inversion will take |
"""

from netinv.inversion.config import InversionConfig
from netinv.inversion.cost import duration, step_cost
from netinv.inversion.joint import JointTraining
from netinv.inversion.loop import InversionTraining, invert
from netinv.inversion.missing import class_accuracies, missing_classes, missing_message, read_as_asked
from netinv.inversion.parallel import GlobalBatch
from netinv.inversion.variants import VECTOR_STATISTICS, variant_config, variant_of

__all__ = [
    "VECTOR_STATISTICS",
    "GlobalBatch",
    "InversionConfig",
    "InversionTraining",
    "JointTraining",
    "class_accuracies",
    "duration",
    "invert",
    "missing_classes",
    "missing_message",
    "read_as_asked",
    "step_cost",
    "variant_config",
    "variant_of",
]
