"""Numbers as people read them."""

import math


def number(value: float) -> str:
    """Three significant digits, thousands apart, and no exponent unless it is needed.

    Example:
        >>> number(0.98765), number(1.1), number(12345.6), number(0.0000123), number(0.0)
        ('0.988', '1.10', '12,346', '1.23e-05', '0')
    """
    if value == 0 or not 0.001 <= abs(value) < 1000:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}"


def percentage(share: float) -> str:
    """A share as a percentage that never claims an exact 0 or 100 it is not.

    Example:
        >>> percentage(0.98765), percentage(1.0), percentage(0.99996), percentage(0.0)
        ('98.8%', '100%', '>99.9%', '0%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    if 0.9995 <= share < 1:
        return ">99.9%"
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}"
