"""What can be told of a per-example function `f(outputs, targets) -> [batch]`: its name, and shapes
at its ends.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def innermost(function: Any) -> Any:
    """The function under partials, `jax.jit` and other wrappers."""
    if isinstance(function, functools.partial):
        return innermost(function.func)
    wrapped = getattr(function, "__wrapped__", None)
    return function if wrapped is None else innermost(wrapped)


def function_name(function: Any) -> str:
    """What its author called it, under partials and wrappers; a callable value has the name of its
    type.
    """
    function = innermost(function)
    return getattr(function, "__name__", type(function).__name__)


def shown(tree: PyTree) -> str:
    """`shape (4, 10), float32` for an array, and for any other pytree its type with its leaves told
    so.
    """
    described = jax.tree.map(lambda leaf: f"shape {jnp.shape(leaf)}, {jnp.result_type(leaf)}", tree)
    return described if isinstance(described, str) else f"{type(tree).__name__} {described}"


def telling_batch(outputs: PyTree, targets: PyTree) -> int:
    """A batch length of at least 2 that no other axis has, so that a result of [batch] is told from
    all others.

    The outputs' own length where it serves, because a loss may be written for one length only; else
    an even number.
    """
    leaves = jax.tree.leaves((outputs, targets))
    others = {length for leaf in leaves for length in leaf.shape[1:]}
    given = [leaf.shape[0] for leaf in leaves[:1] if leaf.shape and leaf.shape[0] > 1]
    return next(
        length for length in itertools.chain(given, itertools.count(4, 2)) if length not in others
    )
