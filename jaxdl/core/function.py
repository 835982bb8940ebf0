"""Plain functions as layers, and a model as a plain function."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.error import describe, describe_tree
from jaxdl.core.layer import Cache, Layer, OnPadded, Parameterless, Params, Span, State
from jaxdl.core.mode import Eval
from jaxdl.core.padded import over_values
from jaxdl.ops import activations


@dataclasses.dataclass(frozen=True)
class Function(Parameterless):
    """A plain function, `function(*arguments, x, **keywords)`, as a layer; `as_layer` makes it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    padded: ClassVar[OnPadded] = "whole"

    def compute(self, x: Any) -> Any:
        bound = functools.partial(self.function, *self.arguments, **dict(self.keywords))
        try:
            return over_values(bound, x) if self.function in _ELEMENTWISE else bound(x)
        except Exception as error:
            error.add_note(
                f"This came from the function '{self.name}', called with {describe_tree(x)}."
            )
            raise

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        """The function of these steps; that it computes each alone is taken on trust."""
        del params, state, span
        return self.compute(x), cache

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __repr__(self) -> str:
        bound = [repr(value) for value in self.arguments] + [
            f"{key}={value!r}" for key, value in self.keywords
        ]
        return f"partial({', '.join([self.name, *bound])})" if bound else self.name


_ELEMENTWISE = frozenset(activations.BY_STEP) | {jnp.tanh}


_FUNCTION_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    jax.custom_jvp,
    jax.custom_vjp,
    jnp.ufunc,
    type(jax.jit(abs)),
)


def as_layer(part: Any) -> Layer:
    """A layer as it is; a plain function, or a `functools.partial` of one, lifted to a layer.

    Raises:
        TypeError: the part is neither, such as a class, or a callable object that may hold arrays
            of its own.
    """
    if isinstance(part, Layer):
        return part
    if not isinstance(part, functools.partial):
        return Function(as_function(part))
    layer = Function(as_function(part.func), part.args, tuple(sorted(part.keywords.items())))
    try:
        hash(layer)
    except TypeError:
        raise TypeError(
            f"{layer} binds a value that cannot be hashed, such as an array or a list, and a layer "
            f"holds hyperparameters "
            "only — bind numbers, words and tuples; arrays belong in the params of a jaxdl.Layer."
        ) from None
    return layer


def as_function(function: Any) -> Callable[..., Any]:
    """A plain function as it is; an error for a class, or for a callable object that may hold
    arrays of its own.
    """
    if isinstance(function, type):
        raise TypeError(
            f"{function.__name__} is a class where a layer is expected — call it: "
            f"{function.__name__}(…)."
        )
    if isinstance(function, _FUNCTION_TYPES):
        return function
    if isinstance(function, np.ufunc):
        raise TypeError(
            f"numpy.{function.__name__} cannot be traced — take that of jax.numpy: "
            f"jnp.{function.__name__}."
        )
    if not callable(function):
        raise TypeError(f"expected a layer or a function of one array, got {describe(function)}.")
    raise TypeError(
        f"a callable of type {type(function).__module__}.{type(function).__qualname__} may hold "
        f"state of its own, which a pure "
        "model cannot see — pass a plain function of one array, or write a jaxdl.Layer that "
        "returns its parameters from init."
    )


def forward(model: Layer, state: State) -> Callable[[Params, Any], Any]:
    """The plain function `f(params, x) -> y` of a model in evaluation, for research code.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> model = dl.Dense(1)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> f = dl.forward(model, state)
    >>> jax.jacobian(f, argnums=1)(params, jnp.ones((1, 3))).shape
    (1, 1, 1, 3)
    """
    return lambda params, x: model.apply(params, state, x, Eval())[0]
