"""How a step becomes a program: op by op, one compiled step, or one compiled loop over steps and epochs."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdl.data.source import Source
from jaxdl.train.step import Step
from jaxdl.tree import Shapes, frozen_shapes, thawed_shapes

Way = Literal["eager", "step", "epoch"]

MOST_EPOCHS = 64
"""How many epochs one run of a compiled loop may touch: the length of its buffers of sums."""
GATHERED_BYTES = 2**27
"""How much memory the rows gathered in one run of a program may take."""


class Place(NamedTuple):
    """Where in the data a run of a program begins: an epoch, and a step within it."""

    epoch: int
    step: int


class Part(NamedTuple):
    """What one run of a program measured of one epoch.

    Args:
        steps: how many of the epoch's steps it ran.
        sums, gathered: NumPy trees; sums in float64.
        observed: scalars after the last of these steps.
    """

    steps: int
    sums: dict[str, Any]
    gathered: dict[str, Any]
    observed: dict[str, Any]


class Ran(NamedTuple):
    """What one run of a program gives back."""

    state: Any
    order: Array
    parts: list[Part]
    steps: int
    finite: bool


class _Inner(NamedTuple):
    state: Any
    sums: dict[str, Any]
    gathered: dict[str, Any]
    at: Array
    done: Array
    finite: Array


class _Outer(NamedTuple):
    inner: _Inner
    order: Array
    epoch: Array
    row: Array
    steps: Array
    sums: dict[str, Any]
    observed: dict[str, Any]


def run(way: Way, step: Step, source: Source, state: Any, order: Array, place: Place, steps: int) -> Ran:
    """Runs `steps` steps from a place in the data; fewer where one is not finite, which is then the last.

    All ways make the same steps: the same batches, keys and arithmetic, to rounding.

    Args:
        way: "eager" runs operation by operation, "step" dispatches one compiled step after another, "epoch" runs a compiled
            loop that draws the order of each epoch it begins; its number of steps is an argument, so that one compiled
            program serves any.
        step: what is done with each batch.
        source: where batches come from.
        state: the step's first state; it is not given away.
        order: the order of the epoch at `place`; it is drawn anew where `place` begins an epoch.
        place: where to begin.
        steps: at most `longest(...)`.
    """
    if way == "epoch":
        capacity = _capacity(step, source, state)
        place_now = tuple(np.int32(n) for n in place)
        ran = _loop(step, capacity, source, state, order, place_now, np.int32(steps))
        return _fetched(ran, source, place)
    return _dispatched(_once if way == "step" else _one, step, source, state, order, place, steps)


def longest(step: Step, source: Source, state: Any) -> int:
    """The most steps that one run may make, so that its buffers hold what it measures."""
    return min(_capacity(step, source, state), (MOST_EPOCHS - 1) * source.steps)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loop(step: Step, capacity: int, source: Source, state: Any, order: Array, place: tuple[Any, Any], steps: Any) -> _Outer:
    shapes = _measured(step, source, state)
    zero = jnp.zeros((), jnp.int32)
    sums = _zeros(shapes.sums)

    def one(inner: _Inner, order: Array) -> _Inner:
        state, measured = step(inner.state, source.batch(order, inner.at))
        gathered = jax.tree.map(
            lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, inner.done, 0), inner.gathered, measured.gathered
        )
        finite = step.finite(measured)
        added = jax.tree.map(jnp.add, inner.sums, measured.sums)
        return _Inner(state, added, gathered, inner.at + 1, inner.done + 1, finite)

    def epoch(outer: _Outer) -> _Outer:
        inner = outer.inner
        order = lax.cond(inner.at == 0, lambda: source.order(outer.epoch), lambda: outer.order)
        stop = jnp.minimum(source.steps, inner.at + steps - inner.done)
        before = inner.done
        inner = lax.while_loop(lambda i: (i.at < stop) & i.finite, lambda i: one(i, order), inner._replace(sums=sums))
        put = functools.partial(jax.tree.map, lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, outer.row, 0))
        ended = (inner.at == source.steps).astype(jnp.int32)
        return _Outer(
            inner._replace(at=inner.at * (1 - ended)),
            order,
            outer.epoch + ended,
            outer.row + 1,
            outer.steps.at[outer.row].set(inner.done - before),
            put(outer.sums, inner.sums),
            put(outer.observed, step.observe(inner.state)),
        )

    rows = functools.partial(jax.tree.map, lambda s: jnp.zeros((MOST_EPOCHS, *s.shape), s.dtype))
    gathered = jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes.gathered)
    inner = _Inner(state, sums, gathered, jnp.asarray(place[1]), zero, jnp.asarray(True))
    observed = rows(jax.eval_shape(step.observe, state))
    first = _Outer(inner, order, jnp.asarray(place[0]), zero, jnp.zeros(MOST_EPOCHS, jnp.int32), rows(shapes.sums), observed)
    return lax.while_loop(lambda o: (o.inner.done < steps) & o.inner.finite, epoch, first)


def _fetched(ran: _Outer, source: Source, place: Place) -> Ran:
    """What a compiled loop measured, as parts on the host; waits for the loop to end."""
    small = (ran.steps, ran.sums, ran.observed, ran.row, ran.inner.done, ran.inner.finite)
    steps, sums, observed, count, done, finite = jax.device_get(small)
    gathered = jax.tree.map(np.asarray, ran.inner.gathered)
    parts, first = [], 0
    for row in range(int(count)):
        last = first + int(steps[row])
        parts.append(
            Part(
                last - first,
                jax.tree.map(lambda rows, row=row: np.float64(rows[row]), sums),
                jax.tree.map(lambda rows, first=first, last=last: _joined(rows[first:last]), gathered),
                jax.tree.map(lambda rows, row=row: float(rows[row]), observed),
            )
        )
        first = last
    return Ran(ran.inner.state, ran.order, parts, int(done), bool(finite))


def _one(
    step: Step, source: Source, state: Any, sums: dict[str, Any], good: Array, order: Array, index: Any
) -> tuple[Any, dict[str, Any], Array, dict[str, Any]]:
    state, measured = step(state, source.batch(order, index))
    good = good + jnp.where(step.finite(measured) & (good == index), 1, 0).astype(jnp.int32)
    return state, jax.tree.map(jnp.add, sums, measured.sums), good, measured.gathered


_once = jax.jit(_one, static_argnums=0)
_draw_order = jax.jit(lambda source, epoch: source.order(epoch))
_observe = jax.jit(lambda step, state: step.observe(state), static_argnums=0)


def _dispatched(one: Any, step: Step, source: Source, state: Any, order: Array, place: Place, steps: int) -> Ran:
    """The host makes the steps; it looks at what was measured only at the end of each epoch's part."""
    epoch, index = place
    shapes = _measured(step, source, state)
    parts, done, finite = [], 0, True
    while done < steps and finite:
        order = _draw_order(source, np.int32(epoch)) if index == 0 else order
        count = min(steps - done, source.steps - index)
        sums, good, rows = _zeros(shapes.sums), jnp.asarray(index, jnp.int32), []
        for place_index in range(index, index + count):
            state, sums, good, row = one(step, source, state, sums, good, order, np.int32(place_index))
            rows.append(row)
        jax.block_until_ready(state)
        made = int(good) - index
        finite = made == count
        gathered = jax.tree.map(lambda *leaves: _joined(np.stack(leaves)), *rows) if rows else {}
        observed = jax.tree.map(float, jax.device_get(_observe(step, state)))
        parts.append(Part(count, jax.tree.map(np.float64, jax.device_get(sums)), gathered, observed))
        done += made if finite else made + 1
        epoch, index = (epoch + 1, 0) if index + count == source.steps else (epoch, index + count)
    return Ran(state, order, parts, done, finite)


def _measured(step: Step, source: Source, state: Any) -> Any:
    """The shapes of what one step measures."""
    return _measured_shapes(step, frozen_shapes((source, state)))


@functools.lru_cache(maxsize=64)
def _measured_shapes(step: Step, shapes: Shapes) -> Any:
    source, state = thawed_shapes(shapes)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    _, measured = jax.eval_shape(lambda s, d, i: step(s, d.batch(d.order(i), i)), state, source, index)
    return measured


def _capacity(step: Step, source: Source, state: Any) -> int:
    """How many steps' gathered rows one run may hold; every step of an epoch where nothing, or little, is gathered."""
    rows = jax.tree.leaves(_measured(step, source, state).gathered)
    size = sum(math.prod(row.shape) * row.dtype.itemsize for row in rows)
    if not size:
        return 2**30
    return max(1, min(source.steps, GATHERED_BYTES // size))


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _joined(rows: np.ndarray) -> np.ndarray:
    """[steps, batch, ...] to [steps · batch, ...]."""
    return rows.reshape(-1, *rows.shape[2:])
