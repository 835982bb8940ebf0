"""The loss of a batch whose examples it mixes, over devices and over parts that are computed one
after another.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.core.layer import Params, State
from jaxdl.core.mode import Train
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import check_returned
from jaxdl.losses.weighted import weighted_sum
from jaxdl.ops.floating import widest
from jaxdl.training.spread import gathered

Apply = Callable[[Params, State, Any, Train], tuple[Any, State]]


def batch_loss(
    loss: Any, outputs: Any, batch: Batch, weights: Array, weighted: bool, across: str | None
) -> Array:
    """A part's share of a batchwise loss of the whole batch: what its own rows weigh of all; the
    shares add up to the loss.

    Args:
        loss: batchwise.
        outputs: of the part's rows.
        batch: the part's targets and mask.
        weights: [batch], of the part's rows, 0 where they only fill up the batch.
        weighted: whether they are other than the mask.
        across: the axis that the batch is split along, or None.
    """
    mask = jnp.ones(batch.size, jnp.bool_) if batch.mask is None else batch.mask
    outputs, targets, mask, of_all = gathered((outputs, batch.targets, mask, weights), across)
    some = of_all.sum() > 0
    mask = jnp.where(some, mask, True)
    of_all = jnp.where(some, of_all, 1)
    value = loss(outputs, targets, mask=mask, weights=of_all)
    check_returned(loss, value, len(mask), weighted)
    total = of_all.sum()
    mean = (
        weighted_sum(value, of_all / total)
        if value.shape
        else value.astype(widest(value.dtype))
    )
    return mean * (weights.sum() / total).astype(mean.dtype)


def in_two_passes(
    apply: Apply,
    objective: Callable[[Any], tuple[Array, Array]],
    params: Params,
    state: State,
    batch: Batch,
    mode: Train,
    count: int,
) -> tuple[Array, Any, State, Params]:
    """The gradient of a loss of all outputs at once, in the memory of a part: dL/dθ = Σₚ (∂yₚ/∂θ)ᵀ
    ∂L/∂yₚ.

    The outputs y of all parts are computed first, and ∂L/∂y of them; then each part's are computed
    again, with their gradient.
    Source: Gao et al., *Scaling deep contrastive learning batch size under memory limited setup*
    (2021).

    Args:
        apply: the model's.
        objective: from all outputs to what is differentiated, and the loss.
        params, state: the model's.
        batch: is cut into equal parts.
        mode: of the whole batch; parts draw by keys of their own.
        count: of the parts.

    Returns:
        The loss, the outputs, the model's next state and the gradient.
    """
    split = jax.tree.map(
        lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), (batch.inputs, batch.mask)
    )
    parts = (jnp.arange(count, dtype=jnp.int32), *split)

    def once(params: Params, state: State, part: Any) -> tuple[Any, State]:
        index, inputs, mask = part
        return apply(params, state, inputs, mode.fold_in(index).with_mask(mask))

    def forward(state: State, part: Any) -> tuple[State, Any]:
        outputs, state = once(params, state, part)
        return state, outputs

    new, outputs = lax.scan(forward, state, parts)
    outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
    (_, loss), slopes = jax.value_and_grad(
        lambda y: objective(_with(outputs, y)), has_aux=True
    )(_floating(outputs))
    slopes = [slope.reshape(count, -1, *slope.shape[1:]) for slope in slopes]

    def backward(carry: Any, xs: Any) -> tuple[Any, None]:
        state, gradients = carry
        part, slopes = xs

        def floating(params: Params) -> tuple[list[Array], State]:
            outputs, state_after = once(params, state, part)
            return _floating(outputs), state_after

        _, pullback, state = jax.vjp(floating, params, has_aux=True)
        return (state, added(gradients, pullback(slopes)[0])), None

    (_, gradients), _ = lax.scan(backward, (state, blank(params)), (parts, slopes))
    return loss, outputs, new, as_of(params, gradients)


def blank(params: Params) -> Params:
    """What gradients of several parts are added to: zeros, in at least float32."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, widest(leaf.dtype)), params)


def added(sums: Params, gradients: Params) -> Params:
    """Sums with the gradients of one more part added, in the dtypes of the sums."""
    return jax.tree.map(lambda total, leaf: total + leaf.astype(total.dtype), sums, gradients)


def as_of(params: Params, gradients: Params) -> Params:
    """Summed gradients in the dtypes of the parameters."""
    return jax.tree.map(lambda leaf, total: total.astype(leaf.dtype), params, gradients)


def _floating(outputs: Any) -> list[Array]:
    return [
        leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def _with(outputs: Any, floating: list[Array]) -> Any:
    """The outputs with other floating-point leaves."""
    leaves = iter(floating)
    return jax.tree.map(
        lambda leaf: next(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, outputs
    )
