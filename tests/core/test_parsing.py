"""Printed calls are read back by their names, and nothing else is."""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxdl.core.parsing import Names, ParseError, UnknownNameError, parse_call
from jaxdl.core.representation import value_repr

calls: list[Any] = []


def made(*arguments: Any, **keywords: Any) -> tuple[Any, ...]:
    """Records that it was called."""
    calls.append((arguments, keywords))
    return arguments, keywords


NAMES = Names({"made": made, "np.float32": float}, {"relu": jax.nn.relu, "inf": math.inf})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2.5", -2.5),
        ("'a'", "a"),
        ("None", None),
        ("(1, (True,), [], {})", (1, (True,), [], {})),
        ("{'a': [1, -inf]}", {"a": [1, -math.inf]}),
        ("np.float32(0.5)", 0.5),
        ("relu", jax.nn.relu),
        ("made(1, made(), b=relu)", ((1, ((), {})), {"b": jax.nn.relu})),
    ],
)
def test_what_is_read(text: str, value: Any) -> None:
    assert parse_call(text, NAMES) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "made(",
        "made().__class__",
        "made.__class__(1)",
        "().__class__.__bases__[0].__subclasses__()",
        "relu.__globals__",
        "os.system('true')",
        "relu(1)",
        "(lambda: 0)()",
        "made(lambda: 0)",
        "made([x for x in (1,)])",
        "made({x for x in (1,)})",
        "made(*(1,))",
        "made(**{'a': 1})",
        "made({**{}})",
        "made(x := 3)",
        "made(1 + 1)",
        "made('a' * 10**9)",
        "made(-'a')",
        "made(not 1)",
        "made(1 if 1 else 2)",
        "made(b'x')",
        "made(f'{made()}')",
        "made(1j)",
        "made(...)",
        "made((1,)[0])",
        "made()()",
        "made(1); made(2)",
        "import os",
        "await made()",
        "made(\0)",
        "-" * 10**5 + "1",
        "(" * 10**4,
        "made(" * 10**3 + ")" * 10**3,
    ],
)
def test_anything_else_is_refused_and_nothing_runs(text: str) -> None:
    calls.clear()
    with pytest.raises(ParseError):
        parse_call(f"{text}", NAMES)
    assert not calls


@pytest.mark.parametrize("text", ["open('x')", "made(eval('1'), __import__('os'))"])
def test_unknown_names_are_named_and_nothing_runs(text: str) -> None:
    calls.clear()
    with pytest.raises(UnknownNameError) as caught:
        parse_call(f"made(made(), {text})", NAMES)
    assert caught.value.names in (["open"], ["eval", "__import__"])
    assert not calls


def test_a_call_that_fails_is_said() -> None:
    names = Names({"int": int}, {})
    with pytest.raises(ParseError, match="has a call of int that fails: invalid literal"):
        parse_call("int('a')", names)


def test_a_text_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxdl.core.parsing.MAX_LENGTH", 5)
    with pytest.raises(ParseError, match="has 6 characters, of at most 5"):
        parse_call("123456", NAMES)


def test_values_print_as_arguments() -> None:
    bound = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    assert value_repr((1,)) == "(1,)"
    assert (
        value_repr([Path, {"a": bound}])
        == "[Path, {'a': partial(leaky_relu, negative_slope=0.2)}]"
    )
