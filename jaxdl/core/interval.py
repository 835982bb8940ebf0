"""How often something is done: every so many steps, epochs or seconds."""

import dataclasses
import re
from typing import Literal

Unit = Literal["steps", "epochs", "seconds"]

_UNITS: dict[str, tuple[Unit, int]] = {
    "step": ("steps", 1),
    "epoch": ("epochs", 1),
    "second": ("seconds", 1),
    "minute": ("seconds", 60),
    "hour": ("seconds", 3600),
}
_INTERVAL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*")
_COUNTED = "steps or epochs, such as '100 steps' or '1 epoch'"
_TIMED = "steps, epochs, seconds, minutes or hours, such as '500 steps' or '5 minutes'"


@dataclasses.dataclass(frozen=True)
class Interval:
    """The number of steps, epochs or seconds from one time to the next.

    Args:
        count: above 0; whole for steps and epochs.
        unit: "steps", "epochs" or "seconds".
    """

    count: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, what: str = "every", timed: bool = True) -> "Interval":
        """The interval that a string describes, such as "500 steps" or "1 minute".

        Args:
            text: a number and a unit: steps, epochs, seconds, minutes or hours.
            what: the name of the argument, for the error.
            timed: whether it may be a time.

        Raises:
            ValueError: it describes none.

        >>> Interval.parse("2.5 minutes")
        Interval(count=150.0, unit='seconds')
        """
        match = _INTERVAL.fullmatch(text) if isinstance(text, str) else None
        known = match is not None and match[2] in _UNITS and float(match[1]) > 0
        if match is None or not known or (_UNITS[match[2]][0] == "seconds" and not timed):
            units = _TIMED if timed else _COUNTED
            raise ValueError(
                f"{what} is a number and what it counts, in {units}; got {text!r}."
            )
        unit, factor = _UNITS[match[2]]
        count = float(match[1]) * factor
        if unit != "seconds" and not count.is_integer():
            raise ValueError(f"{what} counts whole {unit}, got {text!r}.")
        return cls(count, unit)

    def __str__(self) -> str:
        return f"{self.count:g} {self.unit}"


EACH_EPOCH = Interval(1.0, "epochs")
