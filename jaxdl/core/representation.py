"""How values print: as the call that built them."""

import dataclasses
import functools


def call_repr(value: object) -> str:
    """`Conv(32, 3, stride=2)`: required fields by position, others by name where they differ from
    their default; all attributes by name, if the value is not a dataclass.
    """
    name = type(value).__name__
    if dataclasses.is_dataclass(value):
        shown = _changed_fields(value)
    else:
        attributes = vars(value).items()
        shown = [f"{key}={value_repr(attribute)}" for key, attribute in attributes]
    return f"{name}({', '.join(shown)})"


def _changed_fields(value: object) -> list[str]:
    shown: list[str] = []
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        if not field.init:
            continue
        current = getattr(value, field.name)
        if _is_positional(field):
            shown.append(value_repr(current))
        elif _is_required(field) or current != field.default:
            shown.append(f"{field.name}={value_repr(current)}")
    return shown


def _is_positional(field: dataclasses.Field[object]) -> bool:
    return _is_required(field) and not field.kw_only


def _is_required(field: dataclasses.Field[object]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def value_repr(value: object) -> str:
    """A value as an argument of a call: functions and classes by their names, bound ones as
    `partial(name, …)`, containers element by element, anything else by its `repr`.

    >>> value_repr((len, functools.partial(round, ndigits=2)))
    '(len, partial(round, ndigits=2))'
    """
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, functools.partial):
        named = [f"{name}={value_repr(part)}" for name, part in value.keywords.items()]
        return f"partial({', '.join([*map(value_repr, (value.func, *value.args)), *named])})"
    if type(value) is tuple:
        return f"({', '.join(map(value_repr, value))}{',' * (len(value) == 1)})"
    if type(value) is list:
        return f"[{', '.join(map(value_repr, value))}]"
    if type(value) is dict:
        pairs = (f"{value_repr(key)}: {value_repr(part)}" for key, part in value.items())
        return f"{{{', '.join(pairs)}}}"
    return getattr(value, "__name__", None) or repr(value)
