"""How generators are measured."""

from typing import Annotated

from pydantic import Field, model_validator

from netinv.classifiers import ClassifierTrainingConfig, ConvClassifierConfig
from netinv.core import AttackSteps, Config, Few, PixelBound, Resamples, Seed, Sharpness
from netinv.evaluation.privacy import MIN_POOL
from netinv.evaluation.students import DistillationConfig
from netinv.results import MIN_SAMPLES

Samples = Annotated[int, Field(ge=MIN_SAMPLES, le=1_000_000)]
"""Images behind a number with an interval."""


class EvaluationConfig(Config):
    """How generators are measured."""

    num_samples: Samples = 2048
    """Images drawn from each generator; also the bound on each reference row. A Frechet distance asks for 2048."""
    seed: Seed = 0
    """Of the draws, the attack's starts, the resampling and the students."""
    sharpness: Few[Sharpness] = (1.0, 3.0, 10.0)
    """Fixed values of the condition's sharpness to measure accuracy at, beside the variant's own range."""
    sharpness_samples: Samples = 500
    """Images drawn at each of them."""
    vendi_samples: Annotated[int, Field(ge=MIN_SAMPLES, le=10_000)] = 100
    """Images of each class behind a Vendi score; where a class has fewer, fewer in every row."""
    epsilons: Few[PixelBound] = Field((0.0, 0.05, 0.1, 0.2, 0.3), min_length=1)
    """L-infinity bounds of the robustness curve, in pixels of [0, 1]."""
    robust_epsilon: PixelBound = 0.1
    """The one of them that is a headline number."""
    attack_steps: AttackSteps = 10
    """PGD steps, of size 2.5 epsilon / steps, with one random start."""
    robust_samples: Samples = 200
    """Images of each row that are attacked."""
    privacy_samples: Samples = 1000
    """Images of each row that the privacy audit looks at."""
    privacy_pool: Annotated[int, Field(ge=MIN_POOL, le=1_000_000)] = 5000
    """Bound on its training pool and its test pool, which are of equal size."""
    resamples: Resamples = 1000
    """Bootstrap resamples behind the interval of a mean."""
    student: ClassifierTrainingConfig | None = ClassifierTrainingConfig(epochs=5, batch_size=128)
    """How a student is trained on images and labels; ``null`` leaves it out."""
    distillation: DistillationConfig | None = DistillationConfig()
    """How another one is taught the classifier's own answers to the images; ``null`` leaves it out."""
    student_architecture: ConvClassifierConfig = ConvClassifierConfig(channels=(16, 32), dropout=0)
    """Of both, with fresh weights."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationConfig":
        if self.robust_epsilon not in self.epsilons:
            raise ValueError(f"robust_epsilon must be one of epsilons, {list(self.epsilons)}")
        return self
