"""Numbers with a prefix of the SI, as tables and sentences show them."""

import math

_PREFIXES = ("n", "µ", "m", "", "k", "M", "G", "T", "P")


def scaled(value: float) -> str:
    """A number with three digits and a prefix, and a space for the unit; a small integer as it is.

    Args:
        value: any number; beyond 10¹⁸ and below 10⁻⁹ it has more digits, or fewer.

    >>> scaled(2_467), scaled(0.000_25), scaled(0), scaled(12)
    ('2.47 k', '250 µ', '0 ', '12 ')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f} "
    if isinstance(value, int) and abs(value) < 1000:
        return f"{value} "
    power = math.floor(math.log10(abs(value) * 1.0005) / 3)
    power = min(max(power, -3), 5)
    digits = f"{value / 1000**power:#.3g}".rstrip(".")
    return f"{digits} {_PREFIXES[power + 3]}"


def seconds(value: float) -> str:
    """A time: `250 µs`, `1.20 s`.

    Args:
        value: in seconds.
    """
    return f"{scaled(value)}s"


def percent(share: float) -> str:
    """A share as a percentage with two digits or three: `4.2 %`, `107 %`.

    Args:
        share: 1 is 100 %.
    """
    if share >= 0.0995:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %"
