"""How a classifier is interpreted."""

from typing import Annotated

from pydantic import Field, model_validator

from netinv.core import Config, Few, Resamples, Seed
from netinv.interpretation.training import DictionaryConfig

Images = Annotated[int, Field(ge=100, le=1_000_000)]
"""Images that a dictionary is trained on."""


class InterpretationConfig(Config):
    """What is trained on which activations, and what is looked at."""

    layer: str | None = Field(None, min_length=1)
    """Dotted name of the module whose output is interpreted; ``None`` is the penultimate features."""
    images: Images = 4096
    """Images of each kind (generated, real, noise) that a dictionary is trained on, or all where there are fewer."""
    measured: Images = 2048
    """Images of each kind that dictionaries are measured on; none of them was trained on."""
    dictionary: DictionaryConfig = DictionaryConfig()
    sweep: Few[Annotated[int, Field(ge=1, le=4_096)]] = (4, 32)
    """Other values of ``dictionary.active``, for the curve of sparsity and fidelity."""
    concepts: Annotated[int, Field(ge=1, le=1_000)] = 20
    """Units that are shown as pictures."""
    examples: Annotated[int, Field(ge=1, le=100)] = 8
    """Images of each kind that fire a unit most."""
    ascent_steps: Annotated[int, Field(ge=1, le=10_000)] = 40
    """Gradient steps towards the image that is made for a unit."""
    resamples: Resamples = 1000
    """Bootstrap resamples behind the interval of a mean."""
    seed: Seed = 0
    """Of all draws."""

    @model_validator(mode="after")
    def _consistent(self) -> "InterpretationConfig":
        if self.dictionary.active > self.dictionary.units:
            raise ValueError(
                f"dictionary.active is {self.dictionary.active}, above dictionary.units, {self.dictionary.units}"
            )
        if self.dictionary.active in self.sweep:
            raise ValueError(f"sweep has {self.dictionary.active}, which is dictionary.active already")
        return self
