"""What an optimizer and its state say: the learning rate taken, and the parameters to evaluate."""

import functools
import types
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

AnyArray = Array | np.ndarray

STEP_SIZES = frozenset(
    {
        ("scale", "step_size"),
        ("scale_by_schedule", "step_size_fn"),
        ("prodigy", "learning_rate"),
        ("dadapt_adamw", "learning_rate"),
        ("partition", "transforms"),
    }
)
"""Functions of optax, and the names in their closures of a step size, of a schedule, and of
optimizers with step sizes of their own.
"""


def learning_rate(
    optimizer: optax.GradientTransformation,
    optimizer_state: Any,
    estimate: Array | None = None,
) -> Array:
    """The learning rate of the update that led to an optimizer's state; NaN where none is found.

    Before the first update it is that of the first. optax keeps a constant in the closure of
    `optax.scale`, a schedule in that of `optax.scale_by_schedule`, and injected hyperparameters in
    the state; Prodigy and D-adaptation estimate a factor of their own. Factors of a chain multiply;
    of the optimizers of `optax.partition`, each with its own part of the parameters, it is the
    largest, and one that freezes its part has none.

    Args:
        optimizer: of optax.
        optimizer_state: after the update.
        estimate: what `estimated` returned for the state before it, which is the estimate that the
            update used.

    Returns:
        A float32 scalar.

    >>> schedule = optax.linear_schedule(1.0, 0.0, 10)
    >>> optimizer = optax.adam(schedule)
    >>> state = optimizer.init({"w": jnp.ones(2)})
    >>> state = optax.tree.set(state, count=jnp.int32(3))  # after three updates
    >>> round(float(learning_rate(optimizer, state)), 6)
    0.8
    """
    rate = _rate(optimizer.update, optimizer_state, estimate)
    if rate is None:
        return jnp.asarray(jnp.nan, jnp.float32)
    return rate


def estimated(optimizer_state: Any) -> Array | None:
    """The step size that Prodigy or D-adaptation uses in the next update.

    It is None for an optimizer that estimates none.
    """
    found = [
        jnp.asarray(state.estim_lr, jnp.float32)
        for state in _states(optimizer_state, own=True)
        if hasattr(state, "estim_lr")
    ]
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    return jnp.prod(jnp.stack(found))


def with_learning_rate(optimizer_state: Any, rate: float) -> tuple[Any, bool]:
    """An optimizer's state with that number in the place of each injected learning rate.

    Args:
        optimizer_state: of one optimizer or of several. A learning rate that follows a schedule
            stays, since the next update computes it anew.
        rate: the learning rate; it takes the dtype and the place of the first one before.

    Returns:
        The state, and whether it holds such a learning rate.

    >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    >>> state, found = with_learning_rate(optimizer.init({"w": jnp.ones(2)}), 0.5)
    >>> float(state.hyperparams["learning_rate"]), found
    (0.5, True)
    """
    found = optax.tree.get_all_with_path(optimizer_state, "learning_rate")
    scheduled = {path[:-2] for path, _ in found if _field(path) == "hyperparams_states"}
    injected = {
        path: leaf
        for path, leaf in found
        if _field(path) == "hyperparams" and path[:-2] not in scheduled
    }
    if not injected:
        return optimizer_state, False
    before = next(iter(injected.values()))
    place = before.sharding if before.committed else None
    after = jax.device_put(np.asarray(rate, before.dtype), place)
    changed = optax.tree.set(
        optimizer_state, lambda path, _: path in injected, learning_rate=after
    )
    return changed, True


def _field(path: tuple[Any, ...]) -> str:
    """The name of the field of an optimizer's state that holds what a path leads to."""
    return getattr(path[-2], "name", "") if len(path) > 1 else ""


def _rate(
    update: object,
    optimizer_state: Any,
    estimate: Array | None = None,
) -> Array | None:
    """The learning rate of an update, None where none is found."""
    states = list(_states(optimizer_state, own=True))
    injected = [state.hyperparams for state in states if hasattr(state, "hyperparams")]
    if injected and "learning_rate" in injected[0]:
        return jnp.asarray(injected[0]["learning_rate"], jnp.float32)
    counts = iter([state.count for state in states if _counts(state)])
    partition = optax.transforms.PartitionState
    inner = iter([state.inner_states for state in states if isinstance(state, partition)])
    found = [_factor(name, value, counts, inner) for name, value in _scales(update, set())]
    factors = [factor for factor in found if factor is not None]
    if estimate is None:
        estimate = estimated(optimizer_state)
    if estimate is not None:
        factors.append(estimate)
    if not factors:
        return None
    for state in states:
        if type(state).__name__ == "ReduceLROnPlateauState":
            factors.append(jnp.asarray(state.scale, jnp.float32))
    return jnp.abs(jnp.prod(jnp.stack(factors)))


def _counts(state: object) -> bool:
    """Whether a state counts the steps of a schedule."""
    scheduled = isinstance(state, optax.ScaleByScheduleState)
    return scheduled or hasattr(state, "estim_lr")


def eval_params(optimizer_state: Any, params: Any) -> Any:
    """The parameters to evaluate: the average of a schedule-free optimizer, else the trained ones.

    With y the trained parameters and z those of the optimizer inside, x = (y − (1 − β) z) / β.

    Args:
        optimizer_state: of one optimizer; or a dict with the keys of `params`, of several, each
            with its own part.
        params: y, the trained parameters.

    Returns:
        x, of the same structure and dtypes.

    Source: Defazio et al., *The road less scheduled* (2024), section 2.
    """
    if isinstance(optimizer_state, dict) and optimizer_state.keys() == params.keys():
        return {name: eval_params(optimizer_state[name], params[name]) for name in params}
    for state in schedule_free(optimizer_state):
        average = functools.partial(_average, state.b1)
        params = jax.tree.map(average, state.z, params, is_leaf=_is_masked)
    return params


def _average(
    beta: ArrayLike,
    z: AnyArray | optax.MaskedNode,
    y: AnyArray,
) -> AnyArray:
    # Parameters of another optimizer.
    if isinstance(z, optax.MaskedNode):
        return y
    x = (y - (1 - beta) * z.astype(y.dtype)) / beta
    return x.astype(y.dtype)


def _is_masked(node: object) -> bool:
    return isinstance(node, optax.MaskedNode)


def schedule_free(optimizer_state: Any) -> list[Any]:
    """The states of schedule-free optimizers in an optimizer's state.

    They are recognised by name, so that `optax.contrib` need not be imported.
    """
    if not _has_schedule_free(jax.tree.structure(optimizer_state)):
        return []
    return [
        state
        for state in _states(optimizer_state)
        if type(state).__name__ == "ScheduleFreeState"
    ]


@functools.lru_cache(maxsize=256)
def _has_schedule_free(structure: Hashable) -> bool:
    return "ScheduleFreeState" in str(structure)


def _factor(
    name: str,
    value: Any,
    counts: Iterator[Array],
    inner: Iterator[Mapping[Any, Any]],
) -> Array | None:
    """The factor of one step size that `_scales` found.

    Args:
        name: of the closure's variable.
        value: of the variable.
        counts: of the schedules that follow, in their order.
        inner: states by label of the partitions that follow, in their order.
    """
    if name == "transforms":
        return _largest(value, next(inner, {}))
    if name == "step_size":
        return jnp.asarray(value, jnp.float32)
    count = next(counts, None)
    if callable(value):
        if count is None:
            return jnp.asarray(jnp.nan, jnp.float32)
        value = value(jnp.maximum(count - 1, 0))
    return jnp.asarray(value, jnp.float32)


def _largest(
    optimizers: Mapping[str, optax.GradientTransformation],
    states: Mapping[Any, Any],
) -> Array | None:
    """The largest learning rate of the optimizers of a partition; None where none has one."""
    rates = [
        _rate(optimizer.update, states[label])
        for label, optimizer in optimizers.items()
        if label in states
    ]
    known = [rate for rate in rates if rate is not None]
    if not known:
        return None
    return jnp.max(jnp.stack(known))


def _states(tree: Any, own: bool = False) -> Iterator[Any]:
    """Every named tuple in an optimizer's state, in its order.

    With `own`, without those of the optimizers of a partition.
    """
    parts: Iterable[Any] = ()
    if isinstance(tree, dict):
        parts = tree.values()
    elif isinstance(tree, tuple):
        if hasattr(tree, "_fields"):
            yield tree
        if own and isinstance(tree, optax.transforms.PartitionState):
            return
        parts = tree
    for part in parts:
        yield from _states(part, own)


def _scales(function: object, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Names and values of the step sizes in the closures of an optimizer's update, in order."""
    if isinstance(function, (tuple, list)):
        for part in function:
            yield from _scales(part, seen)
    # Of an object such as optax.MultiSteps.
    if isinstance(function, types.MethodType):
        attributes = vars(function.__self__)
        yield from _scales(tuple(attributes.values()), seen)
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    kind = function.__qualname__.split(".")[0]
    for name, value in _closure(function):
        if (kind, name) in STEP_SIZES:
            if isinstance(value, (int, float, jax.Array, dict)) or callable(value):
                yield name, value
        elif function.__module__.startswith("optax"):
            yield from _scales(value, seen)


def _closure(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """Names and values of what a function closed over, where they are bound."""
    names = function.__code__.co_freevars
    cells = function.__closure__ or ()
    for name, cell in zip(names, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        yield name, value
