"""The names of the inversion's variants; their settings are in ``netinv.inversion``."""

from typing import Literal, get_args

Variant = Literal["standard", "robust"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
