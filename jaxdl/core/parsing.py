"""Printed calls, read back without evaluating them: what `representation` prints, and no more."""

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

MAX_LENGTH = 2**24
"""How many characters a printed call may have."""

_LITERALS = (bool, int, float, str, type(None))


class Names(NamedTuple):
    """What the names in a printed call mean.

    Args:
        makers: classes and functions by name, which may be called.
        values: functions and others by name, which are only handed on.
    """

    makers: Mapping[str, Callable[..., Any]]
    values: Mapping[str, Any]

    def known(self, name: str) -> bool:
        """Whether a name means something."""
        return name in self.makers or name in self.values

    def meaning(self, name: str) -> Any:
        """What a known name means."""
        return self.makers[name] if name in self.makers else self.values[name]


class ParseError(ValueError):
    """A text is no printed call; the message is a predicate whose subject is the text."""


class UnknownNameError(ParseError):
    """A printed call has names that mean nothing here.

    Args:
        names: in the order they occur.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"names {', '.join(names)}, which nothing here is called")
        self.names = names


def parse_call(text: str, names: Names) -> Any:
    """The value that a printed call describes; nothing is evaluated.

    A call has a name from `makers` and any arguments; an argument is a call, a name, a number, a
    string, None, a Boolean, or a tuple, a list or a dict of these. The whole text is checked
    before the first call is made.

    Args:
        text: as `call_repr` prints it.
        names: what its names mean.

    Raises:
        UnknownNameError: a name is not among them.
        ParseError: the text has anything else, or a call of it fails.

    >>> parse_call("Fraction(3, 4)", Names({"Fraction": __import__("fractions").Fraction}, {}))
    Fraction(3, 4)
    """
    try:
        return _parsed(_tree(text), names)
    except RecursionError as error:
        raise ParseError("is nested too deeply") from error


def _parsed(tree: ast.expr, names: Names) -> Any:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _check_call(node)
    unknown = [name for name in dict.fromkeys(_names(tree)) if not names.known(name)]
    for name in unknown:
        if "." in name:
            raise ParseError(f"has {name!r}, an attribute")
    if unknown:
        raise UnknownNameError(unknown)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) not in names.makers:
            raise ParseError(f"calls {_name(node.func)}, which is only handed on")
    return _built(tree, names)


def _tree(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ParseError(f"has {len(text)} characters, of at most {MAX_LENGTH}")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ParseError(f"is no call that Python can read ({type(error).__name__})") from error


def _check_call(node: ast.Call) -> None:
    if not isinstance(node.func, (ast.Name, ast.Attribute)):
        raise ParseError(f"calls {_shown(node.func)}, which is no name")
    if any(isinstance(part, ast.Starred) for part in node.args):
        raise ParseError(f"has a starred argument in {_shown(node)}")
    if any(keyword.arg is None for keyword in node.keywords):
        raise ParseError(f"has a starred argument in {_shown(node)}")


def _names(node: ast.expr) -> Iterator[str]:
    """The names of an expression, from left to right.

    Raises:
        ParseError: it is no call, name, literal or container of these.
    """
    if isinstance(node, (ast.Name, ast.Attribute)):
        yield _name(node)
        return
    for part in _parts(node):
        yield from _names(part)


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Call):
        return [node.func, *node.args, *(keyword.value for keyword in node.keywords)]
    if isinstance(node, (ast.Tuple, ast.List)):
        return node.elts
    if isinstance(node, ast.Dict) and None not in node.keys:
        return [part for pair in zip(node.keys, node.values, strict=True) for part in pair]  # type: ignore[misc]
    if _is_literal(node):
        return []
    raise ParseError(f"has {_shown(node)}, which is no call, name or literal")


def _is_literal(node: ast.expr) -> bool:
    if _is_negative(node):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, _LITERALS)


def _is_negative(node: ast.expr) -> bool:
    """Whether it is a number, or `inf`, with a sign."""
    if not isinstance(node, ast.UnaryOp) or not isinstance(node.op, ast.USub):
        return False
    if isinstance(node.operand, ast.Name):
        return node.operand.id == "inf"
    return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)


def _name(node: ast.expr) -> str:
    """A name, or `module.name` as one: attributes are never read."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    raise ParseError(f"has {_shown(node)}, an attribute")


def _built(node: ast.expr, names: Names) -> Any:
    if isinstance(node, ast.Call):
        return _called(node, names)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return names.meaning(_name(node))
    if isinstance(node, ast.Tuple):
        return tuple(_built(part, names) for part in node.elts)
    if isinstance(node, ast.List):
        return [_built(part, names) for part in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_built(key, names): _built(part, names) for key, part in pairs if key}
    if isinstance(node, ast.UnaryOp):
        return -math.inf if isinstance(node.operand, ast.Name) else -_built(node.operand, names)
    assert isinstance(node, ast.Constant)
    return node.value


def _called(node: ast.Call, names: Names) -> Any:
    name = _name(node.func)
    arguments = [_built(part, names) for part in node.args]
    keywords = {str(each.arg): _built(each.value, names) for each in node.keywords}
    try:
        return names.makers[name](*arguments, **keywords)
    except Exception as error:
        raise ParseError(f"has a call of {name} that fails: {error}") from error


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
