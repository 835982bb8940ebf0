"""Whether all elements of a tree are finite, inside of a program and on the host."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool

from jaxdl.compiling.pytree import PyTree
from jaxdl.compiling.target import target
from jaxdl.data.source import Tree

SMALL = 2**12
"""Up to how many elements arrays are looked at together in a program, and by one call of NumPy on
the host.
"""


def are_finite(loss: Array, gradients: PyTree) -> Bool[Array, ""]:
    """Whether a loss and its gradients are finite.

    Σ 0·g is 0 where every element of g is finite, and NaN otherwise: unlike a norm it does not
    overflow. It takes one pass over the gradients; small arrays are concatenated, so that they are
    one kernel.
    """
    leaves = [leaf for leaf in jax.tree.leaves(gradients) if _is_floating(leaf)]
    small = [leaf.reshape(-1).astype(jnp.float32) for leaf in leaves if leaf.size <= SMALL]
    zeros = [(leaf * 0).sum().astype(jnp.float32) for leaf in leaves if leaf.size > SMALL]
    if small:
        zeros.append((jnp.concatenate(small) * 0).sum())
    return jnp.isfinite(sum(zeros, start=loss.astype(jnp.float32) * 0))


def select(condition: Array, new: Tree, old: Tree) -> Tree:
    """The new tree where a bool scalar is true, else the old one."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)


def apply_if(finite: Array, update: Callable[[], Tree], state: Tree) -> Tree:
    """The state after an update where that is finite, else the state as it is.

    On a CPU by a conditional: selects there cost a copy of each array that is updated. Elsewhere
    they fuse with the update, where a GPU would ask the host which branch to take. Outside of a
    program the update comes as it is, and who runs the step leaves it out: so its origin is found.
    """
    if not target().program:
        return update()
    if target().platform == "cpu" and not target().population:
        return lax.cond(finite, update, lambda: state)
    return select(finite, update(), state)


def run_if(condition: Array, function: Callable[[], tuple[Tree, Any]], state: Tree) -> Any:
    """What a function returns, a state and other arrays, where a condition holds; else the state
    as it is, and zeros.

    On a CPU by a conditional, elsewhere by selects; see `apply_if`.
    """
    shapes = jax.eval_shape(function)

    def nothing() -> tuple[Tree, Any]:
        return state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1])

    if target().platform == "cpu":
        return lax.cond(condition, function, nothing)
    return select(condition, function(), nothing())


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point element of a tree is finite: a bool scalar."""
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if _is_floating(leaf)]
    return jnp.stack(leaves).all() if leaves else jnp.asarray(True)


def is_finite(tree: PyTree) -> bool:
    """Whether every floating-point element of a tree of arrays is finite, found on the host.

    Arrays in a CPU's memory are looked at there: a program would have three kernels for each leaf,
    which take longer to compile than a training step.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size and _is_floating(leaf)]
    if all(isinstance(leaf, np.ndarray) or _in_cpu_memory(leaf.sharding) for leaf in leaves):
        with np.errstate(all="ignore"):
            return all(_is_finite(np.asarray(leaf)) for leaf in leaves)
    return bool(_all_finite(leaves))


_all_finite = jax.jit(all_finite)


def _is_floating(leaf: Array | np.ndarray) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _is_finite(array: np.ndarray) -> bool:
    """Of a large array without another of its size."""
    if array.size <= SMALL:
        return bool(np.isfinite(array).all())
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


@functools.lru_cache(maxsize=64)
def _in_cpu_memory(sharding: jax.sharding.Sharding) -> bool:
    on_cpu = all(device.platform == "cpu" for device in sharding.device_set)
    return sharding.is_fully_addressable and on_cpu
