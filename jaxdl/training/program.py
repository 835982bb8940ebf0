"""How a step becomes a program: op by op, one compiled step, or one compiled loop over steps and
epochs.
"""

import functools
import math
import os
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdl.compiling.jitted import Jitted, only_platform, tracing_program
from jaxdl.compiling.loops import outermost_loops
from jaxdl.core.tree import Shapes, frozen_shapes, thawed_shapes
from jaxdl.data.source import Batch, Source
from jaxdl.ops.conv_algorithm import CPU_OPTIONS
from jaxdl.training.step import Measured, Step
from jaxdl.training.step_form import Numbers, StepForm, closed_step, open_step

Way = Literal["eager", "step", "epoch"]

SUMMED_BYTES = 2**24
"""How much memory the rows of sums in one run of a program may take, where those of two epochs have
not more.
"""
GATHERED_BYTES = 2**27
"""How much memory the rows gathered in one run of a program may take."""
DRAWN_AHEAD = 2**13
"""For how many places orders are drawn at once, where one run needs fewer: each draw takes half a
millisecond by itself.
"""

FEW = 8
"""Up to how many sums of a dtype are laid side by side by choices."""

_PASSES = "xla_disable_hlo_passes"
_OF_LOOPS = "simplify-while-loops,while-loop-invariant-code-motion,while-loop-constant-sinking"
PLAIN_STEP_OPTIONS = (
    CPU_OPTIONS
    if _PASSES in os.environ.get("XLA_FLAGS", "")
    else {**CPU_OPTIONS, _PASSES: _OF_LOOPS}
)
"""For a loop over steps that have no loop of their own: there XLA's passes for loops take a tenth
of the time to compile, and have nothing to move in front of it, since a step is made of what
differs from one to the next."""


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


class Orders(NamedTuple):
    """The orders of so many epochs from a first, drawn before the run that needs them."""

    places: Any
    first: int
    epochs: int


class Begun(NamedTuple):
    """What an epoch that has begun hands from one run of a program to the next.

    Sums are carried on, and not added up run by run: so they do not depend on where the clock cut
    an epoch into runs.

    Args:
        sums: for each dtype [2, numbers], the sums so far and what rounding has lost of them;
            NumPy.
        orders: that were drawn already; None where they have to be drawn anew.
    """

    sums: Any
    orders: Orders | None = None


class Ran(NamedTuple):
    """What one run of a program gives back."""

    state: Any
    begun: Begun
    parts: list[Part]
    steps: int
    finite: bool


class _Inner(NamedTuple):
    """Within an epoch: `place` counts steps from the first of the orders."""

    state: Any
    sums: Any
    gathered: dict[str, Any]
    place: Array
    finite: Array


class _Outer(NamedTuple):
    """Over epochs, of which the next begins at `start`; what was measured of each has a row, the
    next one is `row`.
    """

    inner: _Inner
    sums: Any
    observed: dict[str, Any]
    start: Array
    row: Array


class _Bounds(NamedTuple):
    """Where a run of a loop begins and ends, in steps from the first of the orders, and its first
    epoch's beginning and row.
    """

    first: Any
    end: Any
    start: Any
    row: Any


class Program:
    """A step over data in one way to run; what does not change from one run to the next is found
    once, at the first.

    All ways make the same steps: the same batches, keys and arithmetic, to rounding.

    Args:
        way: "eager" runs operation by operation, "step" dispatches one compiled step after another,
            "epoch" runs a compiled loop; its number of steps is an argument, so that one compiled
            program serves any.
        step: what is done with each batch. Programs are compiled for its form, and take its
            optimizers' numbers as arguments.
        state: the step's first state; those that come later have its shapes.
    """

    def __init__(self, way: Way, step: Step, state: Any) -> None:
        self.way: Way = way
        self.step = step
        self._state = frozen_shapes(state)
        self._placed = _sharding(state)
        self._known: dict[Shapes, _Fixed] = {}
        self._last: tuple[Source, _Fixed] | None = None

    def run(self, source: Source, state: Any, begun: Begun, place: Place, steps: int) -> Ran:
        """Runs `steps` steps from a place in the data; fewer where one is not finite, which is then
        the last.

        Where the state that they end with is not sound, they are not finite either, and which of
        them was not is not told.

        Args:
            source: where batches come from.
            state: the step's; it is not given away.
            begun: what the epoch at `place` carries; from `beginning` where it begins.
            place: where to begin.
            steps: at most `longest(source)`.
        """
        fixed = self._fixed(source)
        orders, first = _ordered(
            source, begun, place, steps, min(fixed.rows, source.ahead(DRAWN_AHEAD))
        )
        if self.way == "epoch":
            bounds = _bounds(source, first, steps)
            arguments = (
                fixed.form,
                fixed.capacity,
                only_platform(),
                fixed.numbers,
                source,
                state,
                orders.places,
                begun.sums,
            )
            return _fetched(
                fixed.loop(*arguments, *fixed.blank, bounds),
                self.step,
                source,
                fixed.outcome,
                orders,
                first,
            )
        return self._dispatched(fixed, source, state, begun, orders, first, steps)

    def beginning(self, source: Source) -> Begun:
        """What an epoch carries before its first step."""
        return Begun(
            {dtype: np.zeros((2, size), dtype) for dtype, size in self._fixed(source).sizes.items()}
        )

    def longest(self, source: Source) -> int:
        """The most steps that one run may make, so that its buffers hold what it measures."""
        fixed = self._fixed(source)
        return min(fixed.capacity, (fixed.rows - 1) * source.steps)

    def identity(self, source: Source) -> tuple[Any, ...]:
        """What the compiled program is known by."""
        fixed = self._fixed(source)
        return self.way, fixed.form, fixed.shapes

    def _fixed(self, source: Source) -> "_Fixed":
        """What is fixed for data of such shapes."""
        if self._last is None or self._last[0] is not source:
            shapes = frozen_shapes(source)
            if shapes not in self._known:
                self._known[shapes] = self._found(source)
            self._last = source, self._known[shapes]
        return self._last[1]

    def _found(self, source: Source) -> "_Fixed":
        shapes = frozen_shapes((source, thawed_shapes(self._state)))
        form, numbers, found = _opened(self.step, shapes)
        sizes, rows = _sizes(found.measured.sums), _rows(source, found)
        sums = {dtype: np.zeros((rows, 2, size), dtype) for dtype, size in sizes.items()}
        observed = jax.tree.map(
            lambda s: np.zeros((rows, *s.shape), s.dtype), _observed(form, self._state)
        )
        numbers, blank = jax.device_put((numbers, (sums, observed)), self._placed)
        loop = _loop.chosen(_options(found))
        return _Fixed(
            form, numbers, shapes, found, sizes, _capacity(source, found), rows, blank, loop
        )

    def _dispatched(
        self,
        fixed: "_Fixed",
        source: Source,
        state: Any,
        begun: Begun,
        orders: Orders,
        start: int,
        steps: int,
    ) -> Ran:
        """The host makes the steps; it looks at what was measured only at the end of each epoch's
        part.
        """
        compiled = functools.partial(_once, only_platform(), fixed.form, fixed.numbers)
        one = compiled if self.way == "step" else functools.partial(_one, self.step)
        parts, done, finite = [], 0, True
        while done < steps and finite:
            first = (start + done) % source.steps
            count = min(steps - done, source.steps - first)
            begins = np.int32(start + done - first)
            sums, good, rows = jax.device_put(begun.sums), jnp.asarray(first, jnp.int32), []
            for index in range(first, first + count):
                state, sums, good, row = one(
                    source, state, sums, good, orders.places, begins, np.int32(index)
                )
                rows.append(row)
            jax.block_until_ready(state)
            made = int(good) - first
            gathered = (
                jax.tree.map(lambda *leaves: _joined(np.stack(leaves)), *rows) if rows else {}
            )
            observed = jax.device_get(_observe(fixed.form, fixed.numbers, state))
            finite = made == count and self.step.sound(state)
            sums = jax.device_get(sums)
            totals = _total(sums, fixed.outcome.measured.sums)
            parts.append(Part(count, totals, gathered, jax.tree.map(_figure, observed)))
            begun = Begun(
                jax.tree.map(np.zeros_like, sums) if done + count < steps else sums, orders
            )
            done += min(made + 1, count)
        return Ran(state, begun, parts, done, finite)


class _Fixed(NamedTuple):
    """What is fixed for a program over data of some shapes.

    Args:
        form, numbers: the step's; numbers are on the device.
        shapes: of the data and the state.
        outcome: of one step.
        sizes: how many sums of each dtype there are.
        capacity: how many steps' gathered rows one run may hold.
        rows: how many epochs one run may touch: each has a row of sums.
        blank: rows for the sums and for what is observed of each epoch, on the device.
        loop: the compiled loop.
    """

    form: StepForm
    numbers: Any
    shapes: Shapes
    outcome: "Outcome"
    sizes: dict[str, int]
    capacity: int
    rows: int
    blank: tuple[Any, Any]
    loop: Any


def _sharding(state: Any) -> Any:
    """Where what is beside a state lies: on its devices, where it is bound to them."""
    leaf = jax.tree.leaves(state)[0]
    return (
        leaf.sharding
        if isinstance(leaf, Array) and leaf.committed and leaf.sharding.is_fully_replicated
        else None
    )


def batch_at(source: Source, begun: Begun, place: Place, steps: int) -> Batch:
    """The batch that a run from a place in the data gives to its step of that number, from 0."""
    orders, first = _ordered(source, begun, place, steps + 1)
    index = (first + steps) % source.steps
    return source.batch(orders.places, np.int32(first + steps - index), np.int32(index))


def _ordered(
    source: Source, begun: Begun, place: Place, steps: int, ahead: int = 1
) -> tuple[Orders, int]:
    """The orders for so many steps from a place, and how many steps after their beginning that is.

    Where they have to be drawn, they are of `ahead` epochs at least.
    """
    last, orders = place.epoch + max(place.step + steps - 1, 0) // source.steps, begun.orders
    if orders is None or not orders.first <= place.epoch <= last < orders.first + orders.epochs:
        count = max(last - place.epoch + 1, ahead)
        orders = Orders(source.orders(place.epoch, count), place.epoch, count)
    return orders, (place.epoch - orders.first) * source.steps + place.step


def _rows(source: Source, found: "Outcome") -> int:
    """How many epochs one run may touch: each has a row of sums."""
    size = sum(
        2 * math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(found.measured.sums)
    )
    return max(2, min(source.epochs, SUMMED_BYTES // max(size, 1)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def stepped(
    step: StepForm, platform: str | None, numbers: Any, state: Any, batch: Batch
) -> tuple[Any, Measured]:
    """The step as programs take it, traced once: for the shapes of what it measures, for the loop,
    and to be counted.

    Args:
        step: what is done.
        platform: what alone it will be lowered for, or None.
        numbers: of the step's optimizers.
        state, batch: what the step is given.
    """
    with tracing_program(platform):
        return step.step(numbers)(state, batch)


def _loop_options(
    step: StepForm,
    capacity: int,
    platform: str | None,
    numbers: Any,
    source: Source,
    state: Any,
    *_: Any,
) -> dict[str, str]:
    del capacity, platform, numbers
    return _options(_outcome(step, frozen_shapes((source, state))))


def _options(found: "Outcome") -> dict[str, str]:
    return CPU_OPTIONS if found.loops else PLAIN_STEP_OPTIONS


@functools.partial(Jitted, cpu_options=_loop_options, static_argnums=(0, 1, 2))
def _loop(
    step: StepForm,
    capacity: int,
    platform: str | None,
    numbers: Any,
    source: Source,
    state: Any,
    orders: Any,
    sums: Any,
    rows: Any,
    observed: Any,
    bounds: _Bounds,
) -> _Outer:
    """Each operation on a scalar here is a kernel that takes milliseconds to compile, so there are
    few of them.
    """
    shapes, numbered = _outcome(step, frozen_shapes((source, state))).measured, step.step(numbers)
    put = functools.partial(lax.dynamic_update_index_in_dim, axis=0)
    first, end = bounds.first, bounds.end

    def one(inner: _Inner, start: Array) -> _Inner:
        state, measured = stepped(
            step, platform, numbers, inner.state, source.batch(orders, start, inner.place - start)
        )
        terms = _vectors(measured.sums)
        # The first epoch goes on with what it was given: it may have begun before, and a stack of a
        # stream is a part of one.
        fresh = (inner.place == start) & (start > first)
        so_far = {
            dtype: jnp.where(fresh, jnp.zeros_like(both), both)
            for dtype, both in inner.sums.items()
        }
        sums = {dtype: _both_added(both, terms[dtype]) for dtype, both in so_far.items()}
        gathered = jax.tree.map(
            lambda rows, row: put(rows, row, inner.place - first), inner.gathered, measured.gathered
        )
        return _Inner(state, sums, gathered, inner.place + 1, numbered.finite(measured))

    def turn(outer: _Outer) -> _Outer:
        start, row = outer.start, outer.row
        after = start + np.int32(source.steps)
        inner = lax.while_loop(
            lambda i: (i.place < end) & (i.place < after) & i.finite,
            lambda i: one(i, start),
            outer.inner,
        )
        rows = jax.tree.map(lambda rows, each: put(rows, each, row), outer.sums, inner.sums)
        observed = jax.tree.map(
            lambda rows, each: put(rows, each, row), outer.observed, numbered.observe(inner.state)
        )
        return _Outer(inner, rows, observed, after, row + 1)

    gathered = jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes.gathered)
    inner = _Inner(state, sums, gathered, first, jnp.asarray(True))
    outer = _Outer(inner, rows, observed, bounds.start, bounds.row)
    return lax.while_loop(lambda o: (o.inner.place < end) & o.inner.finite, turn, outer)


def _bounds(source: Source, first: int, steps: int) -> _Bounds:
    """Of so many steps from that one; computed on the host, where a program would need kernels."""
    row = first // source.steps
    return _Bounds(*map(np.int32, (first, first + steps, row * source.steps, row)))


def _fetched(
    ran: _Outer, step: Step, source: Source, found: "Outcome", orders: Orders, start: int
) -> Ran:
    """What a compiled loop measured, as parts on the host; waits for the loop to end."""
    inner = ran.inner
    rows, observed, sums, place, finite = jax.device_get(
        (ran.sums, ran.observed, inner.sums, inner.place, inner.finite)
    )
    gathered = jax.tree.map(np.asarray, inner.gathered)
    totals = _total(rows, found.measured.sums)
    parts, done, first = [], int(place) - start, 0
    while first < done:
        epoch = (start + first) // source.steps
        end = min(done, (epoch + 1) * source.steps - start)
        taken = (
            jax.tree.map(lambda rows, first=first, end=end: _joined(rows[first:end]), gathered)
            if gathered
            else {}
        )
        now = {name: _figure(values[epoch]) for name, values in observed.items()}
        parts.append(
            Part(
                end - first,
                jax.tree.map(lambda total, epoch=epoch: total[epoch], totals),
                taken,
                now,
            )
        )
        first = end
    return Ran(
        inner.state, Begun(sums, orders), parts, done, bool(finite) and step.sound(inner.state)
    )


def _one(
    step: Step,
    source: Source,
    state: Any,
    sums: Any,
    good: Array,
    orders: Any,
    start: Any,
    index: Any,
) -> tuple[Any, Any, Array, dict[str, Any]]:
    state, measured = step(state, source.batch(orders, start, index))
    good = good + jnp.where(step.finite(measured) & (good == index), 1, 0).astype(jnp.int32)
    terms = _vectors(measured.sums)
    return (
        state,
        {dtype: _both_added(both, terms[dtype]) for dtype, both in sums.items()},
        good,
        measured.gathered,
    )


@functools.partial(Jitted, cpu_options=CPU_OPTIONS, static_argnums=(0, 1))
def _once(
    platform: str | None, step: StepForm, numbers: Any, *arguments: Any
) -> tuple[Any, Any, Array, dict[str, Any]]:
    with tracing_program(platform):
        return _one(step.step(numbers), *arguments)


@functools.partial(jax.jit, static_argnums=0)
def _observe(step: StepForm, numbers: Any, state: Any) -> dict[str, Array]:
    numbered: Any = step.step(numbers)
    return numbered.observe(state)


class Outcome(NamedTuple):
    """What a step comes to, without running it.

    Args:
        state: the shapes of the next state.
        measured: the shapes of what it measures.
        loops: whether it has loops of its own.
    """

    state: Any
    measured: Measured
    loops: bool


def outcome(step: Step, source: Source, state: Any) -> Outcome:
    """What one step of a state and a batch comes to."""
    return _opened(step, frozen_shapes((source, state)))[2]


def _opened(step: Step, shapes: Shapes) -> tuple[StepForm, Numbers, Outcome]:
    """The form of a step, the numbers that its programs take as arguments, and what one step comes
    to.

    A step keeps the numbers of its optimizers where it decides something by one of them, or gives a
    state of other dtypes.
    """
    form, numbers = open_step(step)
    if numbers:
        try:
            found = _outcome(form, shapes)
        except Exception:  # the step as it was given tells better what is wrong, if anything is
            found = None
        if found is not None and frozen_shapes(found.state) == frozen_shapes(
            thawed_shapes(shapes)[1]
        ):
            return form, numbers, found
    form = closed_step(step)
    return form, (), _outcome(form, shapes)


@functools.lru_cache(maxsize=64)
def _outcome(step: StepForm, shapes: Shapes) -> Outcome:
    source, state = thawed_shapes(shapes)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    orders = jax.ShapeDtypeStruct(source.orders_shape, jnp.int32)

    def once(
        numbers: Any, state: Any, source: Source, orders: Any, index: Any
    ) -> tuple[Any, Measured]:
        return stepped(step, only_platform(), numbers, state, source.batch(orders, index, index))

    traced = jax.make_jaxpr(once, return_shape=True)
    jaxpr, (after, measured) = traced(step.example, state, source, orders, index)
    return Outcome(after, measured, any(outermost_loops(jaxpr)))


@functools.lru_cache(maxsize=64)
def _observed(step: StepForm, state: Shapes) -> dict[str, Any]:
    """The shapes of what is observed of a state."""
    return jax.eval_shape(
        lambda numbers, state: step.step(numbers).observe(state), step.example, thawed_shapes(state)
    )


def _capacity(source: Source, found: Outcome) -> int:
    """How many steps' gathered rows one run may hold; every step of an epoch where nothing, or
    little, is gathered.
    """
    rows = jax.tree.leaves(found.measured.gathered)
    size = sum(math.prod(row.shape) * row.dtype.itemsize for row in rows)
    if not size:
        return 2**30
    return max(1, min(source.steps, GATHERED_BYTES // size))


def _vectors(tree: Any) -> dict[str, Array]:
    """The numbers of a tree, one after another, as a vector for each dtype."""
    by_dtype: dict[str, list[Any]] = {}
    for leaf in jax.tree.leaves(tree):
        by_dtype.setdefault(str(leaf.dtype), []).append(leaf.reshape(-1))
    return {dtype: _side_by_side(leaves) for dtype, leaves in by_dtype.items()}


def _side_by_side(vectors: list[Array]) -> Array:
    """One vector after another; few numbers by choices, which are a part of the kernel that takes
    them.
    """
    if len(vectors) > FEW or any(vector.size != 1 for vector in vectors):
        return jnp.concatenate(vectors)
    place, first, *others = lax.iota(jnp.int32, len(vectors)), *vectors
    laid = jnp.broadcast_to(first, place.shape)
    for number, vector in enumerate(others, 1):
        laid = jnp.where(place == number, vector, laid)
    return laid


def _sizes(shapes: Any) -> dict[str, int]:
    """How long those vectors are for a tree of such shapes."""
    sizes: dict[str, int] = {}
    for leaf in jax.tree.leaves(shapes):
        sizes[str(leaf.dtype)] = sizes.get(str(leaf.dtype), 0) + math.prod(leaf.shape)
    return sizes


def _from_vectors(vectors: dict[str, Any], shapes: Any) -> Any:
    """The tree of such shapes whose numbers these are; of many trees where vectors have axes in
    front.
    """
    leaves, structure = jax.tree.flatten(shapes)
    place, found = dict.fromkeys(vectors, 0), []
    for leaf in leaves:
        name, count = str(leaf.dtype), math.prod(leaf.shape)
        part = vectors[name][..., place[name] : place[name] + count]
        found.append(part.reshape((*part.shape[:-1], *leaf.shape)))
        place[name] += count
    return structure.unflatten(found)


def _both_added(both: Array, term: Array) -> Array:
    """A sum with a term added, and what rounding lost of it (Knuth, 1969, section 4.2.2, theorem
    B): [2, numbers].

    By a choice in place of a concatenation: so it is one kernel, and not three.
    """
    old, lost = both
    added = old + term
    first = lax.broadcasted_iota(jnp.int32, both.shape, 0) == 0
    return jnp.where(first, added[None], (lost + _rounding(old, term, added))[None])


def _rounding(a: Any, b: Any, total: Any) -> Any:
    """a + b − total, exactly, for total = a + b as rounded."""
    part = total - a
    return (a - (total - part)) + (b - part)


def _total(sums: Any, shapes: Any) -> Any:
    """The sums [..., 2, numbers] in float64, with what rounding lost, as the tree of these
    shapes.
    """
    both = {dtype: np.asarray(each, np.float64) for dtype, each in sums.items()}
    totals = {
        dtype: np.where(np.isfinite(of[..., 0, :]), of.sum(-2), of[..., 0, :])
        for dtype, of in both.items()
    }
    return _from_vectors(totals, shapes)


def _figure(value: Any) -> Any:
    """A float, or an array with one for each member."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _joined(rows: np.ndarray) -> np.ndarray:
    """[steps, batch, ...] to [steps · batch, ...]."""
    return rows.reshape(-1, *rows.shape[2:])
