"""Numbers as people read them: as many digits as they carry, thin thousands, one unit for a column."""

from __future__ import annotations

import math

THIN = "\u202f"  # no line breaks there


def significant(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits without an exponent: ``170``, ``43.1``, ``0.142``, ``12
    400``.
    """
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    if rounded != 0:  # 9.996 rounds to 10.0, which has a digit more before the point
        decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(decimals, 0)}f}".replace(",", THIN)


def tick(value: float) -> str:
    """A number on an axis: ``0.1``, ``50``, ``2 000``, with no more digits than it has."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".") if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"
    return text.replace(",", THIN)


def fixed(value: float, decimals: int) -> str:
    """``value`` with ``decimals`` places; a positive value too small for them is given as ``<0.001``."""
    smallest = 10.0**-decimals
    if 0 < abs(value) < smallest / 2:
        return f"<{smallest:.{decimals}f}" if value > 0 else f">-{smallest:.{decimals}f}"
    return f"{value:,.{decimals}f}".replace(",", THIN)


def scientific(value: float) -> str:
    """Two digits at any magnitude: ``0.0064``, ``5.9e-05``."""
    return f"{value:.2g}"


def perplexity(value: float) -> str:
    """Two decimals below 100, fewer above: ``26.90``, ``132.3``, ``71 200``."""
    return fixed(value, 2) if value < 100 else fixed(value, 1) if value < 1000 else significant(value)


def megabytes(value: float) -> str:
    """Bytes as megabytes (10⁶) without the unit."""
    return significant(value / 1e6)


def percent(value: float) -> str:
    """A share as per cent with one decimal, without the sign: 0.797 → ``79.7``."""
    return fixed(100 * value, 1)


def times(value: float) -> str:
    """A ratio with its sign: ``6.5×``, ``12×``."""
    return f"{significant(value, 2 if value >= 1 else 3)}×"
