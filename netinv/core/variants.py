"""The names of the inversion's variants, for whoever asks for one; what they stand for, ``netinv.inversion`` knows."""

from typing import Literal, get_args

Variant = Literal["standard", "robust"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
