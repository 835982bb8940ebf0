"""Dynamic scaling of the loss, for gradients in float16."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxdl.core.layer import Params


class ScaledState(NamedTuple):
    """An optimizer's state, and the scale of the loss.

    Args:
        optimizer_state: of the optimizer.
        scale: what the loss is multiplied by.
        good: how many updates were made since the scale was last changed.
        skipped: how many were not made, in all.
    """

    optimizer_state: Any
    scale: Float[Array, ""]
    good: Int[Array, ""]
    skipped: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class LossScaling:
    """The gradient is that of scale · L, and is divided by the scale in float32.

    Where a number of it is not finite, the update is skipped and the scale halved; after `patience`
    good updates it doubles.

    Source: Micikevicius et al., *Mixed precision training* (2018), section 3.2; NVIDIA's rule for
    the scale.

    Args:
        first: the first scale.
        patience: how many good updates before it doubles.
    """

    first: float = 2.0**15
    patience: int = 2000

    def init(self, optimizer_state: Any) -> ScaledState:
        zero = jnp.zeros((), jnp.int32)
        return ScaledState(optimizer_state, jnp.asarray(self.first, jnp.float32), zero, zero)

    def updated(
        self,
        update: Callable[[Params, Any], tuple[Params, Any]],
        scaled_gradients: Params,
        state: ScaledState,
        params: Params,
    ) -> tuple[Params, ScaledState]:
        """The parameters and the state one update on, or as they were.

        Args:
            update: from gradients and the optimizer's state to the next parameters and state.
            scaled_gradients: of scale · L.
            state: with the scale they were taken at.
            params: before the update.
        """
        gradients = jax.tree.map(lambda g: g / state.scale.astype(g.dtype), scaled_gradients)
        finite = jnp.stack(
            [jnp.isfinite(g).all() for g in jax.tree.leaves(gradients)] or [jnp.asarray(True)]
        ).all()
        new = update(
            jax.tree.map(lambda g: jnp.where(finite, g, 0), gradients), state.optimizer_state
        )
        kept, optimizer_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), new, (params, state.optimizer_state)
        )
        grown = state.good + 1 >= self.patience
        doubled = jnp.minimum(state.scale * 2, 2.0**24)
        scale = jnp.where(finite, jnp.where(grown, doubled, state.scale), state.scale / 2)
        good = jnp.where(finite & ~grown, state.good + 1, 0)
        return kept, ScaledState(
            optimizer_state, scale, good, state.skipped + jnp.where(finite, 0, 1)
        )
