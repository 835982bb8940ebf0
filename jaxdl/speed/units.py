"""Numbers with a prefix of the SI, as tables and sentences show them."""

import math


def scaled(value: float) -> str:
    """Three digits and a prefix, with a space for the unit.

    >>> scaled(2_467), scaled(0.000_25), scaled(0)
    ('2.47 k', '250 µ', '0 ')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f} "
    power = min(max(math.floor(math.log10(abs(value) * 1.0005) / 3), -3), 5)
    return f"{value / 1000**power:#.3g}".rstrip(".") + f" {'nµm kMGTP'[power + 3]}".replace(
        "  ", " "
    )


def seconds(value: float) -> str:
    """A time: `250 µs`, `1.20 s`."""
    return f"{scaled(value)}s"


def percent(share: float) -> str:
    """A share as a percentage with two digits or three: `4.2 %`, `107 %`."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
