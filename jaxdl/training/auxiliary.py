"""Losses that layers add to the objective.

A layer returns them in its state under "losses", by name: a scalar, or one number for each example.
They are taken out before the next step, so that they are no state.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.layer import LOSSES, State
from jaxdl.losses.weighted import weighted_sum

Losses = dict[str, Array]
"""By name; what several layers call alike is added up."""


def taken_out(new: State, old: State) -> tuple[State, dict[str, list[Array]]]:
    """The state after a step without the losses that layers returned in it, and these by name.

    Args:
        new: as the model returned it.
        old: as it was given: what it does not have and the new one has under "losses" are losses.

    Raises:
        TypeError: what stands there is no dict of arrays by name.
    """
    found: dict[str, list[Array]] = {}
    return _without(new, old, found), found


def added_losses(found: dict[str, list[Array]], shares: Array) -> Losses:
    """What the rows of a part add to each loss.

    Args:
        found: by name, scalars or [batch].
        shares: [batch], of the part in the whole batch; or [batch, time], of its positions.

    Raises:
        ValueError: one is neither a scalar nor one number for each example.
    """
    shares = shares.reshape(len(shares), -1).sum(1)
    return {
        name: sum((_weighted(name, value, shares) for value in values), start=_ZERO)
        for name, values in found.items()
    }


_ZERO: Any = 0.0


def _weighted(name: str, value: Array, shares: Array) -> Array:
    if value.shape == ():
        return value.astype(jnp.float32) * shares.sum()
    if value.shape == shares.shape:
        return weighted_sum(value, shares).astype(jnp.float32)
    raise ValueError(
        f"losses: a layer returned {name!r} of shape {value.shape} for a batch of {len(shares)} — "
        f"return one number, or one for each example."
    )


def _without(new: Any, old: Any, found: dict[str, list[Array]]) -> Any:
    if not isinstance(new, dict):
        return new
    given = old if isinstance(old, dict) else {}
    kept = {}
    for name, value in new.items():
        if name == LOSSES and name not in given:
            _take(value, found)
            continue
        rest = _without(value, given.get(name), found)
        if name in given or rest != {}:
            kept[name] = rest
    return kept


def _take(losses: Any, found: dict[str, list[Array]]) -> None:
    if not isinstance(losses, dict) or not all(
        isinstance(value, jax.Array) for value in losses.values()
    ):
        raise TypeError(
            f"losses: a layer returns a dict of arrays by name in its state under {LOSSES!r}, got "
            f"{losses!r}."
        )
    for name, value in losses.items():
        found.setdefault(name, []).append(value)
