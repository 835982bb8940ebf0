"""How values print: as the call that built them."""

import dataclasses
from typing import Any


def call_repr(layer: Any) -> str:
    """`Conv(32, 3, stride=2)`: required fields by position, the others by name where they differ
    from the default.

    Of what is no dataclass, its attributes.
    """
    shown = []
    if not dataclasses.is_dataclass(layer):
        attributes = (f"{name}={_value_repr(value)}" for name, value in vars(layer).items())
        return f"{type(layer).__name__}({', '.join(attributes)})"
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            shown.append(_value_repr(value))
        elif value != field.default:
            shown.append(f"{field.name}={_value_repr(value)}")
    return f"{type(layer).__name__}({', '.join(shown)})"


def _value_repr(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    return getattr(value, "__name__", None) or repr(value)
