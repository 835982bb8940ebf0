"""How a step becomes a program: op by op, one compiled step, or one compiled loop over steps and epochs."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdl.data.source import Batch, Source
from jaxdl.train.step import Measured, Step
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
        sums: of the epoch so far, runs before this one included; NumPy, in float64.
        gathered: of these steps; NumPy.
        observed: scalars after the last of these steps.
    """

    steps: int
    sums: dict[str, Any]
    gathered: dict[str, Any]
    observed: dict[str, Any]


class Begun(NamedTuple):
    """What an epoch that has begun hands from one run of a program to the next.

    Sums are carried on, and not added up run by run: so they do not depend on where the clock cut an epoch into runs.

    Args:
        order: of the epoch's examples.
        sums: for each dtype [2, numbers], the sums so far and what rounding has lost of them.
    """

    order: Any
    sums: Any


class Ran(NamedTuple):
    """What one run of a program gives back."""

    state: Any
    begun: Begun
    parts: list[Part]
    steps: int
    finite: bool


class _Inner(NamedTuple):
    """Within an epoch: `done` counts the steps of the run."""

    state: Any
    sums: Any
    gathered: dict[str, Any]
    done: Array
    finite: Array


class _Outer(NamedTuple):
    """Over epochs; what was measured of each has a row."""

    inner: _Inner
    order: Array
    sums: Any
    observed: dict[str, Any]


def run(way: Way, step: Step, source: Source, state: Any, begun: Begun, place: Place, steps: int) -> Ran:
    """Runs `steps` steps from a place in the data; fewer where one is not finite, which is then the last.

    Where the state that they end with is not sound, they are not finite either, and which of them was not is not told.

    All ways make the same steps: the same batches, keys and arithmetic, to rounding.

    Args:
        way: "eager" runs operation by operation, "step" dispatches one compiled step after another, "epoch" runs a compiled
            loop that draws the order of each epoch it begins; its number of steps is an argument, so that one compiled
            program serves any.
        step: what is done with each batch.
        source: where batches come from.
        state: the step's first state; it is not given away.
        begun: what the epoch at `place` carries; from `beginning` where it begins, and its order is then drawn.
        place: where to begin.
        steps: at most `longest(...)`.
    """
    if way == "epoch":
        capacity = _capacity(step, source, state)
        draws, epoch = _draws(source, place.epoch)
        ran = _loop(step, capacity, source, state, begun, draws, (np.int32(epoch), np.int32(place.step)), np.int32(steps))
        return _fetched(ran, step, source, place)
    return _dispatched(_once if way == "step" else _one, step, source, state, begun, place, steps)


def beginning(step: Step, source: Source, state: Any) -> Begun:
    """What an epoch carries before its first step."""
    sums = _vectors(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), _measured(step, source, state).sums), np)
    sums = {dtype: np.stack([vector, vector]) for dtype, vector in sums.items()}
    return jax.device_put(Begun(np.zeros(source.order_shape, np.int32), sums))


def batch_at(source: Source, begun: Begun, place: Place, steps: int) -> Batch:
    """The batch that a run from a place in the data gives to its step of that number, from 0."""
    ended, index = divmod(place.step + steps, source.steps)
    order = begun.order if ended == 0 and place.step > 0 else source.order(_draw(source, place.epoch + ended))
    return source.batch(order, jnp.asarray(index, jnp.int32))


def longest(step: Step, source: Source, state: Any) -> int:
    """The most steps that one run may make, so that its buffers hold what it measures."""
    return min(_capacity(step, source, state), (MOST_EPOCHS - 1) * source.steps)


@functools.partial(jax.jit, static_argnums=0)
def _stepped(step: Step, state: Any, batch: Batch) -> tuple[Any, Measured]:
    """The step, traced once: for the shapes of what it measures, and for the loop."""
    return step(state, batch)


def _draws(source: Source, epoch: int) -> tuple[Any, int]:
    """What the orders of an epoch and of at least `MOST_EPOCHS` behind it are made of, and where that epoch is among them."""
    block, within = divmod(epoch, MOST_EPOCHS)
    return source.draws(block * MOST_EPOCHS, 2 * MOST_EPOCHS), within


def _draw(source: Source, epoch: int) -> Any:
    """What the order of an epoch is made of."""
    draws, within = _draws(source, epoch)
    return draws[within]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loop(
    step: Step, capacity: int, source: Source, state: Any, begun: Begun, draws: Any, place: tuple[Any, Any], steps: Any
) -> _Outer:
    """Each operation on a scalar here is a kernel that takes milliseconds to compile, so there are few of them."""
    shapes = _measured(step, source, state)
    zero = jnp.zeros((), jnp.int32)
    epoch, before = (jnp.asarray(number) for number in place)

    def one(inner: _Inner, order: Array, start: Array) -> _Inner:
        state, measured = _stepped(step, inner.state, source.batch(order, inner.done - start))
        gathered = jax.tree.map(
            lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, inner.done, 0), inner.gathered, measured.gathered
        )
        return _Inner(state, _added(inner.sums, _vectors(measured.sums)), gathered, inner.done + 1, step.finite(measured))

    def turn(outer: _Outer) -> _Outer:
        inner = outer.inner
        row = lax.div(before + inner.done, source.steps)  # whole epochs since the place
        start = row * source.steps - before  # at which step of the run this epoch begins
        stop = jnp.minimum(steps, start + source.steps)

        def draw() -> Array:
            return source.order(lax.dynamic_index_in_dim(jnp.asarray(draws), epoch + row, 0, keepdims=False))

        order = lax.cond(inner.done == start, draw, lambda: outer.order)
        inner = lax.while_loop(lambda i: (i.done < stop) & i.finite, lambda i: one(i, order, start), inner)
        put = functools.partial(jax.tree.map, lambda rows, each: lax.dynamic_update_index_in_dim(rows, each, row, 0))
        sums, observed = put(outer.sums, inner.sums), put(outer.observed, step.observe(inner.state))
        ended = inner.done == start + source.steps
        kept = jax.tree.map(lambda s: jnp.where(ended, 0, s), inner.sums)
        return _Outer(inner._replace(sums=kept), order, sums, observed)

    rows = functools.partial(jax.tree.map, lambda s: jnp.zeros((MOST_EPOCHS, *s.shape), s.dtype))
    gathered = jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes.gathered)
    inner = _Inner(state, begun.sums, gathered, zero, jnp.asarray(True))
    first = _Outer(inner, begun.order, rows(begun.sums), rows(jax.eval_shape(step.observe, state)))
    return lax.while_loop(lambda o: (o.inner.done < steps) & o.inner.finite, turn, first)


def _fetched(ran: _Outer, step: Step, source: Source, place: Place) -> Ran:
    """What a compiled loop measured, as parts on the host; waits for the loop to end."""
    sums, observed, count, finite = jax.device_get((ran.sums, ran.observed, ran.inner.done, ran.inner.finite))
    gathered = jax.tree.map(np.asarray, ran.inner.gathered)
    totals, structure = jax.tree.flatten(_total(sums, _measured(step, source, ran.inner.state).sums))
    parts, done, first = [], int(count), 0
    while first < done:
        row = (place.step + first) // source.steps
        last = min(done, (row + 1) * source.steps - place.step)
        rows = jax.tree.map(lambda rows, first=first, last=last: _joined(rows[first:last]), gathered) if gathered else {}
        now = {name: _figure(values[row]) for name, values in observed.items()}
        parts.append(Part(last - first, structure.unflatten([total[row] for total in totals]), rows, now))
        first = last
    return Ran(ran.inner.state, Begun(ran.order, ran.inner.sums), parts, done, bool(finite) and step.sound(ran.inner.state))


def _one(
    step: Step, source: Source, state: Any, sums: Any, good: Array, order: Array, index: Any
) -> tuple[Any, Any, Array, dict[str, Any]]:
    state, measured = step(state, source.batch(order, index))
    good = good + jnp.where(step.finite(measured) & (good == index), 1, 0).astype(jnp.int32)
    return state, _added(sums, _vectors(measured.sums)), good, measured.gathered


_once = jax.jit(_one, static_argnums=0)
_draw_order = jax.jit(lambda source, draw: source.order(draw))
_observe = jax.jit(lambda step, state: step.observe(state), static_argnums=0)


def _dispatched(one: Any, step: Step, source: Source, state: Any, begun: Begun, place: Place, steps: int) -> Ran:
    """The host makes the steps; it looks at what was measured only at the end of each epoch's part."""
    epoch, index = place
    parts, done, finite = [], 0, True
    while done < steps and finite:
        order = _draw_order(source, _draw(source, epoch)) if index == 0 else begun.order
        count = min(steps - done, source.steps - index)
        sums, good, rows = jax.device_put(begun.sums), jnp.asarray(index, jnp.int32), []
        for place_index in range(index, index + count):
            state, sums, good, row = one(step, source, state, sums, good, order, np.int32(place_index))
            rows.append(row)
        jax.block_until_ready(state)
        made = int(good) - index
        gathered = jax.tree.map(lambda *leaves: _joined(np.stack(leaves)), *rows) if rows else {}
        observed = jax.device_get(_observe(step, state))
        finite = made == count and step.sound(state)
        sums = jax.device_get(sums)
        totals = _total(sums, _measured(step, source, state).sums)
        parts.append(Part(count, totals, gathered, jax.tree.map(_figure, observed)))
        begun = Begun(order, jax.tree.map(np.zeros_like, sums) if done + count < steps else sums)
        done += min(made + 1, count)
        epoch, index = (epoch + 1, 0) if index + count == source.steps else (epoch, index + count)
    return Ran(state, begun, parts, done, finite)


def outcome(step: Step, source: Source, state: Any) -> tuple[Any, Measured]:
    """The shapes of the next state and of what one step measures."""
    return _outcome(step, frozen_shapes((source, state)))


def _measured(step: Step, source: Source, state: Any) -> Measured:
    return outcome(step, source, state)[1]


@functools.lru_cache(maxsize=64)
def _outcome(step: Step, shapes: Shapes) -> tuple[Any, Measured]:
    source, state = thawed_shapes(shapes)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    order = jax.ShapeDtypeStruct(source.order_shape, jnp.int32)
    return jax.eval_shape(lambda s, d, o, i: _stepped(step, s, d.batch(o, i)), state, source, order, index)


def _capacity(step: Step, source: Source, state: Any) -> int:
    """How many steps' gathered rows one run may hold; every step of an epoch where nothing, or little, is gathered."""
    rows = jax.tree.leaves(_measured(step, source, state).gathered)
    size = sum(math.prod(row.shape) * row.dtype.itemsize for row in rows)
    if not size:
        return 2**30
    return max(1, min(source.steps, GATHERED_BYTES // size))


def _vectors(tree: Any, library: Any = jnp) -> dict[str, Any]:
    """The numbers of a tree, one after another, as a vector for each dtype."""
    by_dtype: dict[str, list[Any]] = {}
    for leaf in jax.tree.leaves(tree):
        by_dtype.setdefault(str(leaf.dtype), []).append(leaf.reshape(-1))
    return {dtype: library.concatenate(leaves) for dtype, leaves in by_dtype.items()}


def _from_vectors(vectors: dict[str, Any], shapes: Any) -> Any:
    """The tree of such shapes whose numbers these are; of many trees where vectors have axes in front."""
    leaves, structure = jax.tree.flatten(shapes)
    place, found = dict.fromkeys(vectors, 0), []
    for leaf in leaves:
        name, count = str(leaf.dtype), math.prod(leaf.shape)
        part = vectors[name][..., place[name] : place[name] + count]
        found.append(part.reshape((*part.shape[:-1], *leaf.shape)))
        place[name] += count
    return structure.unflatten(found)


def _added(sums: Any, terms: Any) -> Any:
    """Sums with the terms added, and what rounding lost of each sum (Knuth, 1969, section 4.2.2, theorem B)."""
    return {dtype: _both_added(both, terms[dtype]) for dtype, both in sums.items()}


def _both_added(both: Array, term: Array) -> Array:
    """[2, numbers], by one choice in place of a concatenation: so they are one kernel, and not three."""
    old, lost = both
    added = old + term
    first = lax.broadcasted_iota(jnp.int32, both.shape, 0) == 0
    return jnp.where(first, added[None], (lost + _rounding(old, term, added))[None])


def _rounding(a: Any, b: Any, total: Any) -> Any:
    """a + b − total, exactly, for total = a + b as rounded."""
    part = total - a
    return (a - (total - part)) + (b - part)


def _total(sums: Any, shapes: Any) -> Any:
    """The sums [..., 2, numbers] in float64, with what rounding lost, as the tree of these shapes."""
    both = {dtype: np.asarray(each, np.float64) for dtype, each in sums.items()}
    totals = {dtype: np.where(np.isfinite(of[..., 0, :]), of.sum(-2), of[..., 0, :]) for dtype, of in both.items()}
    return _from_vectors(totals, shapes)


def _figure(value: Any) -> Any:
    """A float, or an array with one for each member."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _joined(rows: np.ndarray) -> np.ndarray:
    """[steps, batch, ...] to [steps · batch, ...]."""
    return rows.reshape(-1, *rows.shape[2:])
