"""The names of the inversion's variants; ``CONTRIBUTING.md`` lists what else there is of each."""

from typing import Literal, get_args

Variant = Literal["standard", "robust"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
