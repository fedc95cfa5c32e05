"""Numbers as callers give them."""

import math
import operator
from numbers import Real
from typing import Any, SupportsIndex

from netinv.core.errors import InputError


def whole(value: SupportsIndex, what: str, least: int | None = None) -> int:
    """A whole number of Python, numpy or torch as one of Python; what has a fraction is not cut off.

    Args:
        value: It.
        what: What it is called in the error.
        least: The smallest that it may be.

    Raises:
        InputError: It is of another type, such as a float, be it 2.0, or a bool, or too small.

    Example:
        >>> import numpy as np
        >>> whole(np.int64(3), "The seed")
        3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        told = repr(value) if isinstance(value, str) else value
        raise InputError(f"{what} is {told}: give a whole number.")
    if least is not None and number < least:
        raise InputError(f"{what} is {number}: give {least} or more.")
    return number


def positive(value: Any, what: str) -> float:
    """A number above 0, which may be infinite, as one of Python.

    Args:
        value: It.
        what: What it is called in the error.

    Raises:
        InputError: It is of another type, such as a text or a bool, or not above 0.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not number > 0:
        raise InputError(f"{what} is {value!r}: give a number above 0.")
    return number
