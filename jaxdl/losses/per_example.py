"""Per-example functions `f(outputs, targets) -> [batch]`: their names, and shapes to trace them."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdl.compiling.pytree import PyTree


def innermost(function: object) -> object:
    """The function under partials, `jax.jit` and other wrappers."""
    if isinstance(function, functools.partial):
        return innermost(function.func)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is None:
        return function
    return innermost(wrapped)


def function_name(function: object) -> str:
    """The name of a function under its partials and wrappers; of another callable its type's."""
    function = innermost(function)
    return getattr(function, "__name__", type(function).__name__)


def format_shapes(tree: PyTree) -> str:
    """The shapes and dtypes of a pytree, for an error.

    >>> format_shapes(jnp.zeros((4, 10)))
    'shape (4, 10), float32'
    >>> format_shapes({"a": jnp.zeros(4)})
    "dict {'a': 'shape (4,), float32'}"
    """
    described = jax.tree.map(_format_shape, tree)
    if isinstance(described, str):
        return described
    return f"{type(tree).__name__} {described}"


def _format_shape(leaf: jax.typing.ArrayLike | jax.ShapeDtypeStruct) -> str:
    return f"shape {jnp.shape(leaf)}, {jnp.result_type(leaf)}"


def probe_batch_size(outputs: PyTree, targets: PyTree) -> int:
    """A batch size for tracing a loss, of which a result `[batch]` can be recognised.

    It is at least 2 and the length of no other axis: the outputs' own where that serves, since a
    loss may be written for one batch size, else an even number.

    Args:
        outputs: a pytree of arrays or `jax.ShapeDtypeStruct`, `[batch, ...]`.
        targets: the same of the targets.
    """
    leaves = jax.tree.leaves((outputs, targets))
    others = {length for leaf in leaves for length in leaf.shape[1:]}
    candidates = itertools.count(4, 2)
    first = leaves[0].shape if leaves else ()
    if first and first[0] > 1:
        candidates = itertools.chain(first[:1], candidates)
    return next(size for size in candidates if size not in others)


def with_batch_size(tree: PyTree, size: int) -> PyTree:
    """Shapes and dtypes of a pytree `[batch, ...]`, with a batch size of one's own."""

    def resized(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (size, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(resized, tree)


def returned_shapes(
    loss: Callable[..., PyTree],
    outputs: PyTree,
    targets: PyTree,
    **arguments: jax.ShapeDtypeStruct,
) -> PyTree:
    """Shapes and dtypes that a loss returns, by `jax.eval_shape`.

    Raises:
        Exception: whatever the loss raises, with a note that names the loss and its arguments.
    """
    try:
        return jax.eval_shape(loss, outputs, targets, **arguments)
    except Exception as error:
        name = function_name(loss)
        error.add_note(
            f"This came from loss '{name}', called with {format_operands(outputs, targets)}."
        )
        raise


def format_operands(outputs: PyTree, targets: PyTree) -> str:
    """The shapes and dtypes that a loss is called with, for an error."""
    return f"outputs of {format_shapes(outputs)} and targets of {format_shapes(targets)}"
