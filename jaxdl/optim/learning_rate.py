"""What an optimizer tells of itself: the step size it takes, and the parameters it means to be
used.
"""

import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

STEP_SIZES = frozenset(
    {
        ("scale", "step_size"),
        ("scale_by_schedule", "step_size_fn"),
        ("prodigy", "learning_rate"),
        ("dadapt_adamw", "learning_rate"),
        ("partition", "transforms"),
    }
)
"""In which functions of optax a step size, a schedule, or optimizers with their own, lie, and under
which name.
"""


def learning_rate(
    optimizer: optax.GradientTransformation, optimizer_state: Any, estimate: Any = None
) -> Array:
    """The factor that the optimizer multiplied its direction by in the update that led to this
    state; NaN where none is found.

    Before the first update it is that of the first. optax keeps a constant in the closure of
    `optax.scale`, a schedule in that of `optax.scale_by_schedule`, and injected hyperparameters in
    the state; Prodigy and D-adaptation estimate a factor of their own. Factors of a chain multiply;
    of the optimizers of `optax.partition`, each with its own part of the parameters, it is the
    largest, and one that freezes its part has none.

    Args:
        optimizer: of optax.
        optimizer_state: after the update.
        estimate: what `estimated` told of the state before it, which holds the estimate that the
            update took.

    >>> schedule = optax.linear_schedule(1.0, 0.0, 10)
    >>> optimizer = optax.adam(schedule)
    >>> state = optimizer.init({"w": jnp.ones(2)})
    >>> state = optax.tree.set(state, count=jnp.int32(3))  # after three updates
    >>> round(float(learning_rate(optimizer, state)), 6)
    0.8
    """
    rate = _rate(optimizer.update, optimizer_state, estimate)
    return jnp.asarray(jnp.nan, jnp.float32) if rate is None else rate


def estimated(optimizer_state: Any) -> Array | None:
    """The factor that Prodigy or D-adaptation takes in its next update; None of an optimizer that
    estimates none.
    """
    found = [
        jnp.asarray(state.estim_lr, jnp.float32)
        for state in _states(optimizer_state, own=True)
        if hasattr(state, "estim_lr")
    ]
    return jnp.prod(jnp.stack(found)) if len(found) > 1 else next(iter(found), None)


def _rate(update: Any, optimizer_state: Any, estimate: Any = None) -> Array | None:
    states = list(_states(optimizer_state, own=True))
    injected = [state.hyperparams for state in states if hasattr(state, "hyperparams")]
    if injected and "learning_rate" in injected[0]:
        return jnp.asarray(injected[0]["learning_rate"], jnp.float32)
    counting = [
        state
        for state in states
        if isinstance(state, optax.ScaleByScheduleState) or hasattr(state, "estim_lr")
    ]
    counts = iter([state.count for state in counting])
    parted = iter(
        [
            state.inner_states
            for state in states
            if isinstance(state, optax.transforms.PartitionState)
        ]
    )
    found = [_factor(kind, value, counts, parted) for kind, value in _scales(update, set())]
    factors = [factor for factor in found if factor is not None]
    estimate = estimated(optimizer_state) if estimate is None else estimate
    if estimate is not None:
        factors.append(estimate)
    if not factors:
        return None
    factors += [
        jnp.asarray(state.scale, jnp.float32)
        for state in states
        if type(state).__name__ == "ReduceLROnPlateauState"
    ]
    return jnp.abs(jnp.prod(jnp.stack(factors)))


def settled(optimizer_state: Any, params: Any) -> Any:
    """The parameters that an optimizer means to be used: the average of a schedule-free one, else
    those it trains.

    With y the trained parameters and z those of the optimizer inside, x = (y − (1 − β) z) / β. A
    dict of optimizers' states with the keys of `params` is that of several, each with its own part.

    Source: Defazio et al., *The road less scheduled* (2024), section 2.
    """
    if isinstance(optimizer_state, dict) and optimizer_state.keys() == params.keys():
        return {name: settled(optimizer_state[name], params[name]) for name in params}
    for state in schedule_free(optimizer_state):

        def average(z: Any, y: Any, beta: Any = state.b1) -> Any:
            if isinstance(z, optax.MaskedNode):  # another optimizer's part
                return y
            return ((y - (1 - beta) * z.astype(y.dtype)) / beta).astype(y.dtype)

        params = jax.tree.map(
            average, state.z, params, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode)
        )
    return params


def schedule_free(optimizer_state: Any) -> list[Any]:
    """The states of schedule-free optimizers in an optimizer's state; told by name, so that
    `optax.contrib` may stay away.
    """
    return [
        state for state in _states(optimizer_state) if type(state).__name__ == "ScheduleFreeState"
    ]


def _factor(kind: str, value: Any, counts: Iterator[Any], parted: Iterator[Any]) -> Array | None:
    if kind == "transforms":
        states = next(parted, {})
        rates = [
            _rate(one.update, states[label]) for label, one in value.items() if label in states
        ]
        known = [rate for rate in rates if rate is not None]
        return jnp.max(jnp.stack(known)) if known else None
    if kind != "step_size":
        count = next(counts, None)
        if callable(value):
            value = jnp.nan if count is None else value(jnp.maximum(count - 1, 0))
    return jnp.asarray(value, jnp.float32)


def _states(tree: Any, own: bool = False) -> Iterator[Any]:
    """Every named tuple in an optimizer's state, in its order; its own are not those of the
    optimizers of a partition.
    """
    if isinstance(tree, tuple):
        if hasattr(tree, "_fields"):
            yield tree
        if own and isinstance(tree, optax.transforms.PartitionState):
            return
        for part in tree:
            yield from _states(part, own)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _states(part, own)


def _scales(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The step sizes in the closures of an optimizer's update, in their order."""
    if isinstance(function, (tuple, list)):
        for part in function:
            yield from _scales(part, seen)
    if isinstance(function, types.MethodType):  # of an object such as optax.MultiSteps
        yield from _scales(tuple(vars(function.__self__).values()), seen)
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    kind = function.__qualname__.split(".")[0]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            value = cell.cell_contents
        except ValueError:  # a cell that is not yet filled
            continue
        if (kind, name) in STEP_SIZES:
            if isinstance(value, (int, float, jax.Array, dict)) or callable(value):
                yield name, value
        elif function.__module__.startswith("optax"):
            yield from _scales(value, seen)
