"""Numbers as callers give them."""

import operator
from typing import SupportsIndex

from netinv.core.errors import InputError


def whole(value: SupportsIndex, what: str) -> int:
    """A whole number of Python, numpy or torch as one of Python; what has a fraction is not cut off.

    Args:
        value: It.
        what: What it is called in the error.

    Raises:
        InputError: It is of another type, such as a float, be it 2.0, or a bool.

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
        raise InputError(f"{what} is {value}: give a whole number.")
    return number
