"""How a step becomes a program: operation by operation, one compiled step, or one compiled loop."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.compiling.target import single_platform
from jaxdl.core.tree import Shapes, frozen_shapes, thawed_shapes
from jaxdl.data.source import Source
from jaxdl.training.cursor import Cursor, EpochCarry, Permutations, permutations
from jaxdl.training.epoch_loop import (
    Dispatched,
    Epochs,
    bounds,
    compiled_observe,
    compiled_step,
    epoch_loop,
    one_step,
    options,
)
from jaxdl.training.outcome import Outcome, capacity, opened_outcome
from jaxdl.training.step import EvaluationStep, Step
from jaxdl.training.step_form import Numbers, StepForm
from jaxdl.training.sums import HostVectors, Layout, in_float64, scalar

Execution = Literal["eager", "step", "epoch"]
"""How a step is run: operation by operation, by one compiled step, or by one compiled loop."""


SUMMED_BYTES = 2**24
"""How much memory the rows of sums in one run may take, where those of two epochs have not more."""


DRAWN_AHEAD = 2**13
"""For how many places permutations are drawn at once, where one run needs fewer: each draw takes
half a millisecond by itself.
"""


class EpochMetrics(NamedTuple):
    """What one run of a program measured of one epoch.

    Args:
        steps: how many of the epoch's steps it ran.
        sums: of the epoch so far, runs before this one included; NumPy, in float64.
        gathered: rows of these steps; NumPy.
        observed: scalars after the last of these steps.
    """

    steps: int
    sums: dict[str, Any]
    gathered: dict[str, Any]
    observed: dict[str, Any]


class ChunkResult(NamedTuple):
    """What one run of a program returns.

    Args:
        state: after it: the last finite one.
        carry: of the epoch at its end.
        epochs: what was measured of each epoch.
        steps: how many updates were made.
        finite: whether all that were asked for were made.
    """

    state: Any
    carry: EpochCarry
    epochs: list[EpochMetrics]
    steps: int
    finite: bool


class _Fixed(NamedTuple):
    """What is fixed for a program over data of some shapes.

    Args:
        form, numbers: the step's; numbers are on the device.
        shapes: of the data and the state.
        outcome: of one step.
        layout: of its sums.
        capacity: how many steps' gathered rows one run may hold.
        rows: how many epochs one run may touch: each has a row of sums.
        room: rows for the sums and for what is observed of each epoch, on the device.
        loop: the compiled loop.
    """

    form: StepForm
    numbers: Numbers
    shapes: Shapes
    outcome: Outcome
    layout: Layout
    capacity: int
    rows: int
    room: tuple[Any, Any]
    loop: Callable[..., Epochs]


class Program:
    """A step over data in one execution mode; what does not change from run to run is found once.

    All modes make the same steps: the same batches, keys and arithmetic, to rounding. The compiled
    ones donate the state. An update that is not finite is not applied, and ends the run.

    Args:
        execution: "eager" runs operation by operation, "step" dispatches one compiled step after
            another, "epoch" runs a compiled loop; its number of steps is an argument, so that one
            compiled program serves any.
        step: what is done with each batch. Programs are compiled for its form, and take its
            optimizers' hyperparameters as arguments.
        state: the step's first state, or what an evaluation is given; later ones have its shapes.
    """

    def __init__(self, execution: Execution, step: Step, state: PyTree) -> None:
        self.execution: Execution = execution
        self.step = step
        self._evaluates = isinstance(step, EvaluationStep)
        self._state = frozen_shapes(state)
        self._placed = _sharding(state)
        self._known: dict[Shapes, _Fixed] = {}
        self._last: tuple[Source, _Fixed] | None = None

    def run(
        self, source: Source, state: Any, carry: EpochCarry, cursor: Cursor, steps: int
    ) -> ChunkResult:
        """Runs `steps` steps from a place in the data, fewer where an update is not finite.

        Args:
            source: where batches come from.
            state: the step's, which the compiled modes donate; an evaluation's stays as it is.
            carry: of the epoch at the cursor; `init_carry` where it begins.
            cursor: where to begin.
            steps: at most `max_steps(source)`.
        """
        fixed = self._fixed(source)
        ahead = min(fixed.rows, source.ahead(DRAWN_AHEAD))
        drawn, first = permutations(source, carry, cursor, steps, ahead)
        if self.execution == "epoch":
            ran = self._compiled(fixed, source, state, carry, drawn, first, steps)
            return self._fetched(fixed, source, state, ran, drawn, first)
        return self._dispatched(fixed, source, state, carry, drawn, first, steps)

    def init_carry(self, source: Source) -> EpochCarry:
        """What an epoch carries before its first step."""
        return EpochCarry(self._fixed(source).layout.zeros())

    def max_steps(self, source: Source) -> int:
        """The most steps that one run may make, so that its buffers hold what it measures."""
        fixed = self._fixed(source)
        return min(fixed.capacity, (fixed.rows - 1) * source.steps)

    def identity(self, source: Source) -> tuple[Any, ...]:
        """What the compiled program is known by."""
        fixed = self._fixed(source)
        return self.execution, fixed.form, fixed.shapes

    def prefers_whole_epochs(self) -> bool:
        """Whether a loop of known length pays: a GPU asks the host before each iteration of a loop
        whose length it does not know; on a CPU one call an epoch doubles the cost of the smallest
        network.
        """
        return self.execution == "epoch" and single_platform() != "cpu"

    def _fixed(self, source: Source) -> _Fixed:
        """What is fixed for data of such shapes."""
        if self._last is None or self._last[0] is not source:
            shapes = frozen_shapes(source)
            if shapes not in self._known:
                self._known[shapes] = self._found(source)
            self._last = source, self._known[shapes]
        return self._last[1]

    def _found(self, source: Source) -> _Fixed:
        shapes = frozen_shapes((source, thawed_shapes(self._state)))
        form, numbers, found = opened_outcome(self.step, shapes)
        layout = Layout(found.measured.sums)
        zeros = layout.zeros()
        rows = _rows(source, zeros)
        sums = {dtype: np.zeros((rows, *each.shape), dtype) for dtype, each in zeros.items()}
        observed = {
            name: np.zeros((rows, *each.shape), each.dtype)
            for name, each in found.observed.items()
        }
        numbers, room = jax.device_put((numbers, (sums, observed)), self._placed)
        loop = epoch_loop.with_options(options(found.loops))
        room_of = capacity(source, found)
        return _Fixed(form, numbers, shapes, found, layout, room_of, rows, room, loop)

    def _compiled(
        self,
        fixed: _Fixed,
        source: Source,
        state: Any,
        carry: EpochCarry,
        drawn: Permutations,
        first: int,
        steps: int,
    ) -> Epochs:
        whole_epochs = steps > 0 and first % source.steps == 0 and steps % source.steps == 0
        return fixed.loop(
            fixed.form,
            fixed.capacity,
            whole_epochs and self.prefers_whole_epochs(),
            single_platform(),
            fixed.numbers,
            source,
            state if self._evaluates else None,
            () if self._evaluates else state,
            drawn.places,
            carry.sums,
            *fixed.room,
            bounds(source, first, steps),
        )

    def _fetched(
        self,
        fixed: _Fixed,
        source: Source,
        given: Any,
        ran: Epochs,
        drawn: Permutations,
        start: int,
    ) -> ChunkResult:
        """What a compiled loop measured, epoch by epoch, on the host; waits for the loop to end."""
        inner = ran.steps
        measured = (ran.sums, ran.observed, inner.sums, inner.gathered)
        (rows, observed, sums, gathered), place, finite = fetched(
            (measured, inner.place, inner.finite)
        )
        made = int(place) - start
        begins = start // source.steps
        ends = begins + -(-made // source.steps) + 1
        summed = in_float64({dtype: each[begins:ends] for dtype, each in rows.items()})
        epochs = []
        first = 0
        while first < made:
            epoch = (start + first) // source.steps
            end = min(made, (epoch + 1) * source.steps - start)
            taken = jax.tree.map(
                lambda rows, a=first, b=end: _concatenated(rows[a:b]), gathered
            )
            row = fixed.layout.tree(
                {dtype: each[epoch - begins] for dtype, each in summed.items()}
            )
            scalars = {name: scalar(values[epoch]) for name, values in observed.items()}
            epochs.append(EpochMetrics(end - first, row, taken, scalars))
            first = end
        state = given if self._evaluates else inner.state
        return ChunkResult(state, EpochCarry(sums, drawn), epochs, made, bool(finite))

    def _dispatched(
        self,
        fixed: _Fixed,
        source: Source,
        state: Any,
        carry: EpochCarry,
        drawn: Permutations,
        start: int,
        steps: int,
    ) -> ChunkResult:
        """The host makes the steps; it looks at what was measured at the end of each epoch's part.

        Where no steps are asked for, the program runs one that changes nothing.
        """
        epochs = []
        done = 0
        finite = True
        while finite and (done < steps or steps == 0):
            first = (start + done) % source.steps
            count = min(steps - done, source.steps - first)
            begins = np.int32(start + done - first)
            state, carry, made, rows = self._part(
                fixed, source, state, carry, drawn, begins, first, count
            )
            finite = made == count
            if made:
                observed = self._observed(fixed, state)
                summed = fixed.layout.totals(carry.sums)
                epochs.append(EpochMetrics(made, summed, _stacked(rows[:made]), observed))
            done += made
            if steps == 0:
                break
            if finite and done < steps:
                carry = EpochCarry(jax.tree.map(np.zeros_like, carry.sums), drawn)
        return ChunkResult(state, carry, epochs, done, finite)

    def _part(
        self,
        fixed: _Fixed,
        source: Source,
        state: Any,
        carry: EpochCarry,
        drawn: Permutations,
        begins: np.int32,
        first: int,
        count: int,
    ) -> tuple[Any, EpochCarry, int, list[dict[str, Any]]]:
        """The steps of a part of an epoch; of none, one that changes nothing."""
        given = state if self._evaluates else None
        carried = () if self._evaluates else state
        made = jnp.asarray(first if count else -1, jnp.int32)
        here = Dispatched(carried, jax.device_put(carry.sums), made)
        one = self._one(fixed)
        rows = []
        for index in range(first, first + max(count, 1)):
            here, row = one(source, given, here, drawn.places, begins, np.int32(index))
            rows.append(row)
        jax.block_until_ready(here)
        sums = fetched(here.sums)
        made_steps = int(here.made) - first if count else 0
        if not count and self._evaluates:
            sums = carry.sums
        after = state if self._evaluates else here.state
        return after, EpochCarry(sums, drawn), made_steps, rows

    def _one(self, fixed: _Fixed) -> Callable[..., tuple[Dispatched, dict[str, Any]]]:
        if self.execution == "step":
            return functools.partial(
                compiled_step, single_platform(), fixed.form, fixed.numbers
            )
        # With the same hyperparameters as arrays: 1 − b₂ of a Python float has other digits.
        return functools.partial(one_step, fixed.form.step(fixed.numbers))

    def _observed(self, fixed: _Fixed, state: Any) -> dict[str, Any]:
        if not fixed.outcome.observed:
            return {}
        observed = fetched(compiled_observe(fixed.form, fixed.numbers, state))
        return {name: scalar(value) for name, value in observed.items()}


def _sharding(state: PyTree) -> jax.sharding.Sharding | None:
    """Where what is beside a state lies: on its devices, where it is bound to them."""
    for leaf in jax.tree.leaves(state)[:1]:  # a model of nothing has none
        if isinstance(leaf, Array) and leaf.committed and leaf.sharding.is_fully_replicated:
            return leaf.sharding
    return None


def fetched(tree: PyTree) -> PyTree:
    """The arrays of a tree on the host.

    On a CPU they are there, and asking for a copy of each takes longer than reading it.
    """
    if single_platform() == "cpu":
        return jax.tree.map(np.asarray, tree)
    return jax.device_get(tree)


def _rows(source: Source, sums: HostVectors) -> int:
    """How many epochs one run may touch: each has a row of sums."""
    size = sum(math.prod(each.shape) * each.dtype.itemsize for each in sums.values())
    return max(2, min(source.epochs, SUMMED_BYTES // max(size, 1)))


def _stacked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {}
    return jax.tree.map(lambda *leaves: _concatenated(np.stack(leaves)), *rows)


def _concatenated(rows: np.ndarray) -> np.ndarray:
    """[steps, batch, ...] to [steps · batch, ...]."""
    return rows.reshape(-1, *rows.shape[2:])
