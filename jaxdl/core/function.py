"""Plain functions as layers, and a model as a plain function."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import describe, describe_tree
from jaxdl.core.layer import Cache, Layer, OnPadded, Parameterless, Params, Span, State
from jaxdl.core.mode import Eval
from jaxdl.core.number import is_hashable
from jaxdl.core.padded import map_values
from jaxdl.ops import activations

_POINTWISE = frozenset(activations.POINTWISE) | {jnp.tanh}
_FUNCTION_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    jax.custom_jvp,
    jax.custom_vjp,
    jnp.ufunc,
    type(jax.jit(abs)),
)


@dataclasses.dataclass(frozen=True)
class Function(Parameterless):
    """A plain function, `function(*arguments, x, **keywords)`, as a layer; `as_layer` makes it.

    Args:
        function: of one array, or of a tree of arrays.
        arguments: bound by position, before x.
        keywords: bound by name.
    """

    function: Callable[..., Any]
    arguments: tuple[object, ...] = ()
    keywords: tuple[tuple[str, object], ...] = ()
    padded: ClassVar[OnPadded] = "sequence"

    def compute(self, x: PyTree) -> PyTree:
        bound = functools.partial(self.function, *self.arguments, **dict(self.keywords))
        try:
            return map_values(bound, x) if self.function in _POINTWISE else bound(x)
        except Exception as error:
            error.add_note(
                f"This came from the function '{self.name}', called with {describe_tree(x)}."
            )
            raise

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        """The function of these steps, which is assumed to compute each step alone."""
        del params, state, span
        return self.compute(x), cache

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __repr__(self) -> str:
        positional = [repr(value) for value in self.arguments]
        named = [f"{key}={value!r}" for key, value in self.keywords]
        bound = positional + named
        return f"partial({', '.join([self.name, *bound])})" if bound else self.name


def as_layer(part: object) -> Layer:
    """A layer as it is; a plain function, or a `functools.partial` of one, as a layer.

    Args:
        part: a layer, or a function of one array.

    Raises:
        TypeError: the part is neither, such as a class, or a callable object that may hold arrays
            of its own; or a partial binds a value that cannot be hashed.
    """
    if isinstance(part, Layer):
        return part
    if not isinstance(part, functools.partial):
        return Function(as_function(part))
    keywords = tuple(sorted(part.keywords.items()))
    layer = Function(as_function(part.func), part.args, keywords)
    if not is_hashable(layer):
        raise TypeError(
            f"{layer} binds a value that cannot be hashed, such as an array or a list, and a layer "
            f"holds only hyperparameters "
            "— bind numbers, strings and tuples; arrays belong in the params of a jaxdl.Layer."
        )
    return layer


def as_function(function: object) -> Callable[..., Any]:
    """A plain function as it is.

    Raises:
        TypeError: a class, or a callable object that may hold arrays of its own.
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
            f"numpy.{function.__name__} cannot be traced — use that of jax.numpy: "
            f"jnp.{function.__name__}."
        )
    if not callable(function):
        raise TypeError(
            f"expected a layer or a function of one array, got {describe(function)}."
        )
    raise TypeError(
        f"a callable of type {type(function).__module__}.{type(function).__qualname__} may hold "
        f"state of its own, which a pure "
        "model cannot see — pass a plain function of one array, or write a jaxdl.Layer that "
        "returns its parameters from init."
    )


def forward(model: Layer, state: State) -> Callable[[Params, PyTree], PyTree]:
    """The plain function `f(params, x) -> y` of a model in evaluation, for research code.

    Args:
        model: a layer.
        state: its state.

    Returns:
        A pure function, which `jax.grad`, `jax.vmap` and `jax.jit` transform.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> model = dl.Dense(1)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> f = dl.forward(model, state)
    >>> jax.jacobian(f, argnums=1)(params, jnp.ones((1, 3))).shape
    (1, 1, 1, 3)
    """
    return lambda params, x: model.apply(params, state, x, Eval())[0]
