"""What people start: inversion in one call, the command ``netinv``, the playground."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from netinv.app.api import invert, settings_of
    from netinv.app.command import main
    from netinv.app.evaluating import evaluate
    from netinv.app.interpreting import interpret
    from netinv.app.inversions import DoubtfulClassifier, Inversion, MissingClasses
    from netinv.app.refining import refine

__all__ = [
    "DoubtfulClassifier",
    "Inversion",
    "MissingClasses",
    "evaluate",
    "interpret",
    "invert",
    "main",
    "refine",
    "settings_of",
]

# The command draws from exported generators in an install without torch, which the rest needs.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "api": ["invert", "settings_of"],
        "command": ["main"],
        "evaluating": ["evaluate"],
        "interpreting": ["interpret"],
        "inversions": ["DoubtfulClassifier", "Inversion", "MissingClasses"],
        "refining": ["refine"],
    },
)
