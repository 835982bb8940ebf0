"""Values that a module defines under their own name, and which exist only once."""

import sys


def is_module_attribute(value: object) -> bool:
    """Whether a value, such as a function or a class, is what its module holds under its name."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    return getattr(sys.modules.get(module), name, None) is value
