"""How values print: as the call that built them."""

import dataclasses


def call_repr(value: object) -> str:
    """`Conv(32, 3, stride=2)`: required fields by position, others by name where they differ from
    their default; all attributes by name, if the value is not a dataclass.
    """
    name = type(value).__name__
    if dataclasses.is_dataclass(value):
        shown = _changed_fields(value)
    else:
        attributes = vars(value).items()
        shown = [f"{key}={_value_repr(attribute)}" for key, attribute in attributes]
    return f"{name}({', '.join(shown)})"


def _changed_fields(value: object) -> list[str]:
    shown: list[str] = []
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        current = getattr(value, field.name)
        if _is_required(field) and not field.kw_only:
            shown.append(_value_repr(current))
        elif _is_required(field) or current != field.default:
            shown.append(f"{field.name}={_value_repr(current)}")
    return shown


def _is_required(field: dataclasses.Field[object]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _value_repr(value: object) -> str:
    if isinstance(value, type):
        return value.__name__
    return getattr(value, "__name__", None) or repr(value)
