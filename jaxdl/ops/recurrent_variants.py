"""Recurrences over time, [time, batch, ...], whose derivative is that of the scanned step: any
step, and the less common forms of the long short-term memory and the gated recurrent unit.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.nn import sigmoid
from jaxtyping import Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.ops.linear import along_last
from jaxdl.ops.recurrent import Hidden, Hiddens, Kernel, Mask, Projected


def scan(step: Callable[[PyTree, PyTree], PyTree], first: PyTree, steps: PyTree) -> PyTree:
    """sₜ = step(sₜ₋₁, xₜ), of all steps.

    Args:
        step: of a state and the input of a step; it returns the next state.
        first: s₀.
        steps: x, [time, ...].

    Returns:
        s of all steps, [time, ...].
    """

    def body(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        state = step(state, x)
        return state, state

    return lax.scan(body, first, steps)[1]


def lstm(
    projected: Projected,
    kernel: Float[Array, "projection gates"],
    hidden: Float[Array, "batch projection"],
    cell: Hidden,
    mask: Float[Array, "batch projection"] | None = None,
    *,
    peepholes: Float[Array, " weights"] | None = None,
    projection: Float[Array, "features projection"] | None = None,
) -> tuple[Float[Array, "time batch projection"], Hiddens]:
    """The long short-term memory with peepholes (Gers and Schmidhuber, 2000) and a projection of
    its state (Sak et al., 2014).

        z = aₜ + (m ⊙ hₜ₋₁) R in four parts i, f, g, o, and p in three parts i, f, o
        i = σ(z + p ⊙ cₜ₋₁),  f = σ(z + p ⊙ cₜ₋₁),  cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(z)
        o = σ(z + p ⊙ cₜ),  hₜ = (o ⊙ tanh(cₜ)) P

    Args:
        projected: a [time, batch, 4 · features], the projected inputs x W + b of all steps, the
            gates in the order i, f, g, o.
        kernel: R [projection, 4 · features].
        hidden: h₀ [batch, projection].
        cell: c₀ [batch, features].
        mask: m [batch, projection], the dropout mask of the state in the product, or None.
        peepholes: p [3 · features], or None for zeros.
        projection: P [features, projection], or None for the identity.

    Returns:
        h and c of all steps.
    """
    by_gate = None if peepholes is None else jnp.split(peepholes[None], 3, -1)

    def step(state: tuple[Array, Array], a: Array) -> tuple[Array, Array]:
        hidden, cell = state
        i, f, g, o = jnp.split(a + _product(hidden, kernel, mask), 4, -1)
        if by_gate is not None:
            i = i + by_gate[0] * cell
            f = f + by_gate[1] * cell
        cell = sigmoid(f) * cell + sigmoid(i) * jnp.tanh(g)
        if by_gate is not None:
            o = o + by_gate[2] * cell
        hidden = sigmoid(o) * jnp.tanh(cell)
        if projection is not None:
            hidden = along_last(hidden, projection)
        return hidden, cell

    return scan(step, (hidden, cell), projected)


def gru_reset_before(
    projected: Projected, kernel: Kernel, hidden: Hidden, mask: Mask = None
) -> Hiddens:
    """The gated recurrent unit with the reset before the product (Cho et al., 2014).

        r, z = σ(aₜ + (m ⊙ hₜ₋₁) R),  n = tanh(aₜ + (r ⊙ m ⊙ hₜ₋₁) R),  each with its part of a
        and R,  hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Args:
        projected: a [time, batch, 3 · features], the projected inputs x W + b of all steps, the
            gates in the order r, z, n.
        kernel: R [features, 3 · features].
        hidden: h₀ [batch, features].
        mask: m [batch, features], the dropout mask of the state in the products, or None.

    Returns:
        h of all steps, [time, batch, features].
    """
    features = hidden.shape[-1]
    gates_kernel = kernel[:, : 2 * features]
    candidate_kernel = kernel[:, 2 * features :]

    def step(hidden: Array, a: Array) -> Array:
        gates = sigmoid(a[:, : 2 * features] + _product(hidden, gates_kernel, mask))
        r, z = jnp.split(gates, 2, -1)
        n = jnp.tanh(a[:, 2 * features :] + _product(r * hidden, candidate_kernel, mask))
        return n + z * (hidden - n)

    return scan(step, hidden, projected)


def _product(hidden: Array, kernel: Array, mask: Array | None) -> Array:
    """(m ⊙ h) R of one step."""
    return along_last(hidden if mask is None else hidden * mask, kernel)
