"""Functions with arguments bound by `functools.partial`, as values that hash and compare."""

import functools
from collections.abc import Callable

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.hashable import check_hashable
from jaxdl.losses.per_example import function_name

Arguments = tuple[object, ...]
Keywords = tuple[tuple[str, object], ...]


def unbound(
    function: Callable[..., PyTree],
) -> tuple[Callable[..., PyTree], Arguments, Keywords]:
    """A function without its `functools.partial`, the bound arguments, and the bound keywords."""
    if not isinstance(function, functools.partial):
        return function, (), ()
    keywords = tuple(sorted(function.keywords.items()))
    return function.func, function.args, keywords


def check_bound(
    what: str,
    function: Callable[..., PyTree],
    arguments: Arguments,
    keywords: Keywords,
) -> None:
    """Checks that a function and its bound arguments can be hashed.

    Args:
        what: the role of the function, for the error: "metric".
        function: without its `functools.partial`.
        arguments: bound by position.
        keywords: bound by name.

    Raises:
        TypeError: one cannot be hashed.
    """
    name = f"{what} '{function_name(function)}'"
    check_hashable(name, function)
    values = dict(keywords).values()
    for value in (*arguments, *values):
        check_hashable(f"{name} binds {value!r}", value)


def format_call(name: str, arguments: Arguments, keywords: Keywords) -> str:
    """A function's name and its bound arguments, as in a call of `functools.partial`."""
    positional = [repr(value) for value in arguments]
    named = [f"{key}={value!r}" for key, value in keywords]
    return ", ".join([name, *positional, *named])


def rebound(
    function: Callable[..., PyTree], arguments: Arguments, keywords: Keywords
) -> Callable[..., PyTree]:
    """What `unbound` was given."""
    if not arguments and not keywords:
        return function
    return functools.partial(function, *arguments, **dict(keywords))


def format_bound(
    function: Callable[..., PyTree], arguments: Arguments, keywords: Keywords
) -> str:
    """A function by its name; with bound arguments as the `functools.partial` that binds them."""
    name = function_name(function)
    if not arguments and not keywords:
        return name
    return f"functools.partial({format_call(name, arguments, keywords)})"
