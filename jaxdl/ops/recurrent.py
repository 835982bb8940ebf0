"""Recurrences over time, [time, batch, features], whose derivative is a linear recurrence.

The derivative of a scanned cell accumulates the gradient of the recurrent kernel step by step.
Here the tangent of each recurrence is written out instead: the terms of the kernel's tangent at
all steps are one product before a loop that is linear in the tangents and constant in the kernel.
Its transpose is a backward loop without that gradient, and one product after it. Since the rule is
one for tangents, and itself plain mathematics, derivatives of all orders, `vmap` and `jit` apply.

Sequences that are shorter than others need no mask: the steps after their end do not affect those
before.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxdl.ops.linear import add_bias, along_last

Projected = Float[Array, "time batch gates"]
Hidden = Float[Array, "batch features"]
Hiddens = Float[Array, "time batch features"]
Kernel = Float[Array, "features gates"]
Mask = Float[Array, "batch features"] | None
Arrays = tuple[Array, ...]
Primals = tuple[Any, ...]
"""Arrays, of which the last, the mask, may be None."""


def recurrence(
    activation: Callable[[Array], Array],
    projected: Projected,
    kernel: Kernel,
    hidden: Hidden,
    mask: Mask = None,
) -> Hiddens:
    """The simple recurrence hₜ = φ(aₜ + (m ⊙ hₜ₋₁) R) (Elman, 1990).

    Args:
        activation: φ, elementwise.
        projected: a [time, batch, features], the projected inputs x W + b of all steps.
        kernel: R [features, features].
        hidden: h₀ [batch, features].
        mask: m [batch, features], the dropout mask of the state in the recurrent product, or None.

    Returns:
        h of all steps, [time, batch, features].
    """
    return _recurrence(activation, projected, kernel, hidden, mask)


def lstm(
    projected: Projected, kernel: Kernel, hidden: Hidden, cell: Hidden, mask: Mask = None
) -> tuple[Hiddens, Hiddens]:
    """The long short-term memory (Hochreiter and Schmidhuber, 1997; with the forget gate of Gers et
    al., 2000).

        i, f, o = σ(z),  g = tanh(z),  with z = aₜ + (m ⊙ hₜ₋₁) R in four parts i, f, g, o
        cₜ = f ⊙ cₜ₋₁ + i ⊙ g,  hₜ = o ⊙ tanh(cₜ)

    Args:
        projected: a [time, batch, 4 · features], the projected inputs x W + b of all steps, the
            gates in the order i, f, g, o.
        kernel: R [features, 4 · features].
        hidden, cell: h₀ and c₀ [batch, features].
        mask: m, as in `recurrence`.

    Returns:
        h and c of all steps, [time, batch, features].
    """
    return _lstm(projected, kernel, hidden, cell, mask)


def gru(
    projected: Projected,
    kernel: Kernel,
    bias: Float[Array, " features"],
    hidden: Hidden,
    mask: Mask = None,
) -> Hiddens:
    """The gated recurrent unit (Cho et al., 2014; the reset after the product, as in cuDNN,
    PyTorch, Flax and Keras).

        r, z = σ(aₜ + u),  n = tanh(aₜ + r ⊙ (u + b)),  with u = (m ⊙ hₜ₋₁) R, each in three parts
        hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Args:
        projected: a [time, batch, 3 · features], the projected inputs x W + b of all steps, the
            gates in the order r, z, n.
        kernel: R [features, 3 · features].
        bias: b [features], of the part that is reset.
        hidden: h₀ [batch, features].
        mask: m, as in `recurrence`.

    Returns:
        h of all steps, [time, batch, features].
    """
    return _gru(projected, kernel, bias, hidden, mask)


def _product(hidden: Array, kernel: Array, mask: Mask) -> Array:
    """(m ⊙ h) R, of one step, or of all steps in one matrix product."""
    if mask is not None:
        hidden = hidden * (mask if hidden.ndim == 2 else mask[None])
    return along_last(hidden, kernel)


def _previous(first: Array, states: Array) -> Array:
    """The state before each step."""
    return jnp.concatenate([first[None], states[:-1]])


def _drive(
    kernel: Array,
    mask: Mask,
    before: Array,
    projected_dot: Array,
    kernel_dot: Array,
    mask_dot: Array | None,
) -> Array:
    """The terms of the tangents of the inputs, the kernel and the mask in ż at all steps:
    dₜ = ȧₜ + (m ⊙ hₜ₋₁) Ṙ + (ṁ ⊙ hₜ₋₁) R.
    """
    drive = projected_dot + _product(before, kernel_dot, mask)
    return drive if mask is None else drive + _product(before, kernel, mask_dot)


@jax.custom_jvp
def _lstm(
    projected: Array, kernel: Array, hidden: Array, cell: Array, mask: Mask
) -> tuple[Array, Array]:
    hiddens, _, cells = _lstm_scan(projected, kernel, hidden, cell, mask)
    return hiddens, cells


def _split(gates: Array, count: int = 4) -> list[Array]:
    return jnp.split(gates, count, -1)


def _lstm_scan(
    projected: Array, kernel: Array, hidden: Array, cell: Array, mask: Mask
) -> tuple[Array, Array, Array]:
    """The state, the gates and the cell of all steps; XLA removes those that are not used.

    σ(z) is computed as (1 + tanh(z / 2)) / 2: one tanh for all four gates is the fastest loop on a
    CPU.
    """
    features = hidden.shape[-1]
    gate = jnp.arange(4 * features, dtype=jnp.int32)[None] // features
    scale = jnp.where(gate == 2, 1.0, 0.5).astype(projected.dtype)

    def step(
        carry: tuple[Array, Array], a: Array
    ) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        hidden, cell = carry
        z = a + _product(hidden, kernel, mask)
        gates = jnp.tanh(z * scale) * scale + (1 - scale)
        i, f, g, o = _split(gates)
        cell = f * cell + i * g
        hidden = o * jnp.tanh(cell)
        return (hidden, cell), (hidden, gates, cell)

    return lax.scan(step, (hidden, cell), projected)[1]


@_lstm.defjvp
def _lstm_jvp(
    primals: Primals, tangents: Primals
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    projected, kernel, hidden, cell, mask = primals
    projected_dot, kernel_dot, hidden_dot, cell_dot, mask_dot = tangents
    _, gates, cells = _lstm_scan(projected, kernel, hidden, cell, mask)
    i, f, g, o = _split(gates)
    # All steps at once are faster than in the loop.
    squashed = jnp.tanh(cells)
    hiddens = o * squashed
    previous = _previous(cell, cells)
    before = _previous(hidden, hiddens)
    drive = _drive(kernel, mask, before, projected_dot, kernel_dot, mask_dot)
    # ∂cₜ/∂z of the gates i, f and g.
    by_i = g * i * (1 - i)
    by_f = previous * f * (1 - f)
    by_g = i * (1 - g * g)
    # ∂hₜ/∂z of the gate o, and ∂hₜ/∂cₜ.
    by_o = squashed * o * (1 - o)
    by_cell = o * (1 - squashed * squashed)

    def step(
        carry: tuple[Array, Array], at: Arrays
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        hidden_dot, cell_dot = carry
        drive, by_i, by_f, by_g, by_o, by_cell, f = at
        i_dot, f_dot, g_dot, o_dot = _split(drive + _product(hidden_dot, kernel, mask))
        cell_dot = f * cell_dot + by_i * i_dot + by_f * f_dot + by_g * g_dot
        hidden_dot = by_o * o_dot + by_cell * cell_dot
        return (hidden_dot, cell_dot), (hidden_dot, cell_dot)

    _, dots = lax.scan(
        step, (hidden_dot, cell_dot), (drive, by_i, by_f, by_g, by_o, by_cell, f)
    )
    return (hiddens, cells), dots


@jax.custom_jvp
def _gru(projected: Array, kernel: Array, bias: Array, hidden: Array, mask: Mask) -> Array:
    return _gru_states(projected, kernel, bias, hidden, mask)[0]


def _gru_states(
    projected: Array, kernel: Array, bias: Array, hidden: Array, mask: Mask
) -> tuple[Array, ...]:
    """The state, the three gates and the part that was reset, of all steps."""
    features = hidden.shape[-1]

    def step(hidden: Array, a: Array) -> tuple[Array, Arrays]:
        u = _product(hidden, kernel, mask)
        gates = 0.5 + 0.5 * jnp.tanh(0.5 * (a + u)[:, : 2 * features])
        r, z = _split(gates, 2)
        reset = u[:, 2 * features :] + bias[None]
        n = jnp.tanh(a[:, 2 * features :] + r * reset)
        new = n + z * (hidden - n)
        return new, (new, r, z, n, reset)

    return lax.scan(step, hidden, projected)[1]


@_gru.defjvp
def _gru_jvp(primals: Primals, tangents: Primals) -> tuple[Array, Array]:
    projected, kernel, bias, hidden, mask = primals
    projected_dot, kernel_dot, bias_dot, hidden_dot, mask_dot = tangents
    hiddens, r, z, n, reset = _gru_states(projected, kernel, bias, hidden, mask)
    before = _previous(hidden, hiddens)
    a_r, a_z, a_n = _split(projected_dot, 3)
    zeros = jnp.zeros_like(projected_dot)
    u_r, u_z, u_n = _split(_drive(kernel, mask, before, zeros, kernel_dot, mask_dot), 3)
    # ∂hₜ/∂z of the parts n, r and z, and ∂hₜ/∂u of the part n.
    by_n = (1 - z) * (1 - n * n)
    by_r = by_n * reset * r * (1 - r)
    by_z = (before - n) * z * (1 - z)
    by_u = by_n * r
    drive = (
        by_n * a_n + by_u * add_bias(u_n, bias_dot) + by_r * (a_r + u_r) + by_z * (a_z + u_z)
    )

    def step(hidden_dot: Array, at: Arrays) -> tuple[Array, Array]:
        drive, by_r, by_z, by_u, z = at
        r_dot, z_dot, u_dot = _split(_product(hidden_dot, kernel, mask), 3)
        hidden_dot = drive + by_r * r_dot + by_z * z_dot + by_u * u_dot + z * hidden_dot
        return hidden_dot, hidden_dot

    return hiddens, lax.scan(step, hidden_dot, (drive, by_r, by_z, by_u, z))[1]


def _simple(
    activation: Callable[[Array], Array],
    projected: Array,
    kernel: Array,
    hidden: Array,
    mask: Mask,
) -> Array:
    def step(hidden: Array, a: Array) -> tuple[Array, Array]:
        hidden = activation(a + _product(hidden, kernel, mask))
        return hidden, hidden

    return lax.scan(step, hidden, projected)[1]


_recurrence = jax.custom_jvp(_simple, nondiff_argnums=(0,))


@_recurrence.defjvp
def _recurrence_jvp(
    activation: Callable[[Array], Array], primals: Primals, tangents: Primals
) -> tuple[Array, Array]:
    projected, kernel, hidden, mask = primals
    projected_dot, kernel_dot, hidden_dot, mask_dot = tangents
    hiddens = _simple(activation, projected, kernel, hidden, mask)
    before = _previous(hidden, hiddens)
    z = projected + _product(before, kernel, mask)
    slope = jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]
    drive = _drive(kernel, mask, before, projected_dot, kernel_dot, mask_dot)

    def step(hidden_dot: Array, at: Arrays) -> tuple[Array, Array]:
        drive, slope = at
        hidden_dot = slope * (drive + _product(hidden_dot, kernel, mask))
        return hidden_dot, hidden_dot

    return hiddens, lax.scan(step, hidden_dot, (drive, slope))[1]


def reverse_sequences(x: Array, lengths: Array | None) -> Array:
    """Reverses each sequence within its length; the padding stays where it is.

    Args:
        x: [time, batch, ...].
        lengths: [batch] int32, or None if all have the full length.
    """
    if lengths is None:
        return x[::-1]
    steps = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
    back = lengths[None] - 1 - steps
    rows = jnp.where(back >= 0, back, steps)
    return jnp.take_along_axis(x, rows.reshape(rows.shape + (1,) * (x.ndim - 2)), 0)


def last_states(first: Array, states: Array, lengths: Array | None) -> Array:
    """The state of each sequence after its last step, [batch, ...]; the initial one of an empty
    sequence.

    Args:
        first: [batch, ...], the initial states.
        states: [time, batch, ...].
        lengths: [batch] int32, or None if all have the full length.
    """
    if lengths is None:
        return states[-1]
    per_sequence = lengths.reshape(lengths.shape + (1,) * (first.ndim - 1))
    rows = jnp.maximum(per_sequence - 1, 0)[None]
    last = jnp.take_along_axis(states, rows, 0)[0]
    return jnp.where(per_sequence > 0, last, first)


def compact(x: Array, mask: Array) -> Array:
    """The steps that a mask counts, moved to the front of each sequence in their order, and the
    others after them.

    Args:
        x: [batch, time, ...].
        mask: [batch, time] bool.
    """
    order = jnp.argsort(~mask, axis=1, stable=True)
    return jnp.take_along_axis(x, _like(order, x), 1)


def spread(x: Array, mask: Array) -> Array:
    """The inverse of `compact`, with zeros for the steps that the mask leaves out.

    Args:
        x: [batch, time, ...].
        mask: [batch, time] bool.
    """
    position = jnp.cumsum(mask, 1, dtype=jnp.int32) - 1
    steps = jnp.take_along_axis(x, _like(jnp.maximum(position, 0), x), 1)
    return jnp.where(_like(mask, x), steps, jnp.zeros((), x.dtype))


def _like(mask: Array, x: Array) -> Array:
    """[batch, time], with an axis of size 1 for each further axis of x."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - 2))
