"""What an inversion will take, before it begins: the batch that suits an image's size, and the cost of a step."""

import resource
import sys
import time
from typing import NamedTuple

import torch

from netinv.classifiers import InvertibleClassifier
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion.config import InversionConfig
from netinv.inversion.loop import InversionTraining


class StepCost(NamedTuple):
    """What one step takes."""

    seconds: float
    memory: int
    """Bytes that the process, or on a GPU torch, has held at most so far."""

    def describe(self, steps: int) -> str:
        """A sentence on what so many steps will take. What follows them is done in their batches and their memory."""
        return (
            f"A step takes about {self.seconds:.2g} s, the {steps} steps {duration(steps * self.seconds)}, with "
            f"{self.memory / 2**30:.1f} GiB of memory. The measurement at the end and further attempts come on top."
        )


def step_cost(
    classifier: InvertibleClassifier, config: InversionConfig, architecture: GeneratorConfig, most: float = 1.0
) -> StepCost:
    """The cost of a step, from one that is done and thrown away; a second one where the first took below ``most`` s.

    The first step of a process also pays for what later ones find done. Torch's random state is left as it was.
    """
    cuda = [classifier.device] if classifier.device.type == "cuda" else []
    brief = config.model_copy(update={"steps": 2, "log_every": 1})
    with torch.random.fork_rng(devices=cuda):
        generator = ConditionedGenerator(architecture, classifier.num_classes, classifier.image_shape)
        training = iter(InversionTraining(generator.to(classifier.device), classifier, brief, seed=0))
        begun = time.perf_counter()
        next(training)
        seconds = time.perf_counter() - begun
        if seconds < most:
            begun = time.perf_counter()
            next(training)
            seconds = time.perf_counter() - begun
    if cuda:
        return StepCost(seconds, torch.cuda.max_memory_allocated(classifier.device))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return StepCost(seconds, held * (1 if sys.platform == "darwin" else 1024))


def duration(seconds: float) -> str:
    """In the unit that people would use.

    Example:
        >>> duration(40), duration(600), duration(30_000), duration(400_000)
        ('40 seconds', '10 minutes', '8.3 hours', '4.6 days')
    """
    for unit, length in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
