"""The compiled loop over steps and epochs, and the compiled step: what a program does on the
device.

An update whose loss or gradients are not finite is left out here: the state that comes back is the
last finite one, and the loop ends there.
"""

import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdl.compiling.jitted import Jitted
from jaxdl.compiling.pytree import PyTree
from jaxdl.compiling.target import compiling_for, target
from jaxdl.core.tree import frozen_shapes
from jaxdl.data.source import Source
from jaxdl.ops.conv_algorithm import CPU_OPTIONS
from jaxdl.training.finite import run_if, select
from jaxdl.training.outcome import Index, applied, form_outcome, observe, stepped
from jaxdl.training.state import Measured
from jaxdl.training.step import Step, UpdateStep
from jaxdl.training.step_form import StepForm
from jaxdl.training.sums import Vectors, plus

_PASSES = "xla_disable_hlo_passes"
_OF_LOOPS = "simplify-while-loops,while-loop-invariant-code-motion,while-loop-constant-sinking"
PLAIN_STEP_OPTIONS = (
    CPU_OPTIONS
    if _PASSES in os.environ.get("XLA_FLAGS", "")
    else {**CPU_OPTIONS, _PASSES: _OF_LOOPS}
)
"""For a loop over steps that have no loop of their own: there XLA's passes for loops take a tenth
of the time to compile, and have nothing to move in front of it, since a step is made of what
differs from one to the next.
"""


class Steps(NamedTuple):
    """The loop over the steps of an epoch.

    Args:
        state: of an update step; () of an evaluation.
        sums: of the epoch so far.
        gathered: rows of each step of this run.
        place: the next step, counted from the first of the permutations.
        finite: whether every update so far was.
    """

    state: PyTree
    sums: Vectors
    gathered: dict[str, PyTree]
    place: Array
    finite: Array


class Epochs(NamedTuple):
    """The loop over epochs.

    Args:
        steps: of the epoch at hand.
        sums: of each epoch, a row each.
        observed: scalars after each epoch, a row each.
        start: where the next epoch begins, in steps from the first of the permutations.
        row: the next row.
    """

    steps: Steps
    sums: Vectors
    observed: dict[str, Array]
    start: Array
    row: Array


class Bounds(NamedTuple):
    """Where a run begins and ends, in steps from the first of the permutations, and its first
    epoch's beginning and row.
    """

    first: Any
    end: Any
    start: Any
    row: Any


def bounds(source: Source, first: int, steps: int) -> Bounds:
    """Of so many steps from that one; computed on the host, where a program would need kernels."""
    row = first // source.steps
    return Bounds(*map(np.int32, (first, first + steps, row * source.steps, row)))


def _loop_options(
    step: StepForm,
    capacity: int,
    whole: bool,
    platform: str | None,
    numbers: PyTree,
    source: Source,
    given: PyTree,
    state: PyTree,
    *_: Any,
) -> dict[str, str]:
    del capacity, whole, platform, numbers
    return options(
        form_outcome(step, frozen_shapes((source, state if given is None else given))).loops
    )


def options(loops: bool) -> dict[str, str]:
    """The compiler's options on a CPU for a step that has loops of its own, or none."""
    return CPU_OPTIONS if loops else PLAIN_STEP_OPTIONS


@functools.partial(
    Jitted, cpu_options=_loop_options, static_argnums=(0, 1, 2, 3), donate_argnums=(7,)
)
def epoch_loop(
    step: StepForm,
    capacity: int,
    whole: bool,
    platform: str | None,
    numbers: PyTree,
    source: Source,
    given: PyTree,
    state: PyTree,
    orders: Array,
    sums: Vectors,
    rows: Vectors,
    observed: dict[str, Array],
    limits: Bounds,
) -> Epochs:
    """Runs steps, epoch by epoch, until the end or an update that is not finite.

    Each operation on a scalar here is a kernel that takes milliseconds to compile, so there are
    few of them.

    Args:
        step: what is done with each batch.
        capacity: how many steps' gathered rows there is room for.
        whole: whether the run is of whole epochs, each a loop of a known length.
        platform: what alone the program is lowered for, or None.
        numbers: of the step's optimizers.
        source: where batches come from.
        given: what an evaluation is given; None of an update step.
        state: of an update step, which is donated; () of an evaluation.
        orders: the permutations.
        sums: of the epoch at hand.
        rows, observed: room for what is measured of each epoch.
        limits: where the run begins and ends.
    """
    kernel = _Kernel(step, whole, platform, numbers, source, given, orders, limits)
    before = state if given is None else given
    shapes = form_outcome(step, frozen_shapes((source, before)))
    gathered = jax.tree.map(
        lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes.measured.gathered
    )
    steps = Steps(state, sums, gathered, limits.first, jnp.asarray(True))
    epochs = Epochs(steps, rows, observed, limits.start, limits.row)
    return lax.while_loop(
        lambda e: (e.steps.place < limits.end) & e.steps.finite, kernel.epoch, epochs
    )


class _Kernel(NamedTuple):
    """What the loops of `epoch_loop` repeat; described there."""

    step: StepForm
    whole: bool
    platform: str | None
    numbers: PyTree
    source: Source
    given: PyTree
    orders: Array
    limits: Bounds

    def epoch(self, epochs: Epochs) -> Epochs:
        """One epoch, or the part of it that the run has."""
        start = epochs.start
        after = start + np.int32(self.source.steps)
        if self.whole:
            steps = lax.fori_loop(
                0, self.source.steps, lambda _, steps: self.one(steps, start), epochs.steps
            )
        else:
            steps = lax.while_loop(
                lambda s: (s.place < self.limits.end) & (s.place < after) & s.finite,
                lambda s: self.one(s, start),
                epochs.steps,
            )
        scalars = {}
        if self.given is None:
            scalars = observe(self.step, self.numbers, steps.state)
        rows = _placed(epochs.sums, steps.sums, epochs.row)
        observed = _placed(epochs.observed, scalars, epochs.row)
        return Epochs(steps, rows, observed, after, epochs.row + 1)

    def one(self, steps: Steps, start: Array) -> Steps:
        """One step of the epoch that begins at `start`."""
        after, measured = self._advance(steps.state, steps.place - start, start)
        # The first epoch goes on with the sums it was given: it may have begun before, and a stack
        # of a stream is a part of one.
        fresh = (steps.place == start) & (start > self.limits.first)
        before = {
            d: jnp.where(fresh, jnp.zeros_like(both), both) for d, both in steps.sums.items()
        }
        row = steps.place - self.limits.first
        gathered = _placed(steps.gathered, measured.gathered, row)
        added = plus(before, measured.sums)
        if self.given is not None:
            return Steps((), added, gathered, steps.place + 1, steps.finite)
        numbered = self.step.step(self.numbers)
        good = _finite(numbered, measured)
        if self.whole:  # such a loop goes on to its end
            good = good & steps.finite
        if self.whole or not _keeps_last_finite(numbered):
            after = select(good, after, steps.state)
        added = select(good, added, before)
        return Steps(after, added, gathered, steps.place + good.astype(jnp.int32), good)

    def _advance(self, state: PyTree, index: Array, start: Array) -> tuple[PyTree, Measured]:
        batch = self.source.batch(self.orders, start, index)
        before = state if self.given is None else self.given
        after, measured = stepped(self.step, self.platform, self.numbers, before, batch, index)
        return (after if self.given is None else ()), measured


def _placed(rows: PyTree, each: PyTree, row: Array) -> PyTree:
    """The rows with one of them written."""
    return jax.tree.map(
        lambda rows, each: lax.dynamic_update_index_in_dim(rows, each, row, axis=0), rows, each
    )


class Dispatched(NamedTuple):
    """What one step after another hands on where the host dispatches them.

    Args:
        state: of an update step; () of an evaluation.
        sums: of the epoch so far.
        made: int32 scalar, the number in the epoch of the next step, and less than the number of
            the step at hand once an update was not finite.
    """

    state: PyTree
    sums: Vectors
    made: Array


def one_step(
    step: Step,
    source: Source,
    given: PyTree,
    before: Dispatched,
    orders: Array,
    start: Index,
    index: Index,
) -> tuple[Dispatched, dict[str, PyTree]]:
    """One step; nothing changes behind an update that was not finite.

    Args:
        step: what is done.
        source: where batches come from.
        given: what an evaluation is given; None of an update step.
        before: what the step before handed on.
        orders: the permutations.
        start, index: where the epoch begins, and the number of the step in it.

    Returns:
        What is handed on, and the rows that were gathered.
    """
    batch = source.batch(orders, start, index)
    if given is not None:
        _, measured = applied(step, given, batch, index)
        return Dispatched(
            (), plus(before.sums, measured.sums), before.made + 1
        ), measured.gathered

    def made() -> tuple[Dispatched, dict[str, PyTree]]:
        after, measured = applied(step, before.state, batch, index)
        good = _finite(step, measured)
        if not (target().program and _keeps_last_finite(step)):
            after = select(good, after, before.state)
        sums = select(good, plus(before.sums, measured.sums), before.sums)
        return Dispatched(after, sums, before.made + good.astype(jnp.int32)), measured.gathered

    return run_if(before.made == index, made, before)


@functools.partial(Jitted, cpu_options=CPU_OPTIONS, static_argnums=(0, 1), donate_argnums=(5,))
def compiled_step(
    platform: str | None,
    step: StepForm,
    numbers: PyTree,
    source: Source,
    given: PyTree,
    before: Dispatched,
    orders: Array,
    start: Index,
    index: Index,
) -> tuple[Dispatched, dict[str, PyTree]]:
    """`one_step` as a program; `before` is donated."""
    with compiling_for(platform):
        return one_step(step.step(numbers), source, given, before, orders, start, index)


compiled_observe = functools.partial(jax.jit, static_argnums=0)(observe)


def _finite(step: Step, measured: Measured) -> Array:
    assert isinstance(step, UpdateStep)
    return step.finite(measured)


def _keeps_last_finite(step: Step) -> bool:
    """Whether the step itself leaves out updates that are not finite, in a program."""
    return isinstance(step, UpdateStep) and step.keeps_last_finite
