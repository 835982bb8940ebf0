"""What one step of a state and a batch comes to, found without running it."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.compiling.loops import outermost_loops
from jaxdl.compiling.pytree import PyTree
from jaxdl.compiling.target import compiling_for, single_platform
from jaxdl.core.tree import Shapes, frozen_shapes, thawed_shapes
from jaxdl.data.source import Batch, Source
from jaxdl.training.state import Measured
from jaxdl.training.step import EvaluationStep, Step, UpdateStep
from jaxdl.training.step_form import Numbers, StepForm, closed_step, open_step

Index = Array | np.int32
GATHERED_BYTES = 2**27
"""How much memory the rows gathered in one run of a program may take."""


class Outcome(NamedTuple):
    """What a step comes to.

    Args:
        state: the shapes of the next state; of an evaluation, those it was given.
        measured: the shapes of what it measures.
        observed: the shapes of the scalars that are recorded of a state.
        loops: whether it has loops of its own.
    """

    state: PyTree
    measured: Measured
    observed: dict[str, jax.ShapeDtypeStruct]
    loops: bool


def outcome(step: Step, source: Source, state: PyTree) -> Outcome:
    """What one step of a state and a batch comes to."""
    return opened_outcome(step, frozen_shapes((source, state)))[2]


def opened_outcome(step: Step, shapes: Shapes) -> tuple[StepForm, Numbers, Outcome]:
    """The form of a step, the hyperparameters that its programs take as arguments, and its outcome.

    A step keeps the hyperparameters of its optimizers where it decides something by one of them,
    or returns a state of other dtypes.
    """
    form, numbers = open_step(step)
    if numbers:
        try:
            found = form_outcome(form, shapes)
        except Exception:  # the step as it was given says better what is wrong, if anything is
            found = None
        given = thawed_shapes(shapes)[1]
        if found is not None and frozen_shapes(found.state) == frozen_shapes(given):
            return form, numbers, found
    form = closed_step(step)
    return form, (), form_outcome(form, shapes)


@functools.lru_cache(maxsize=64)
def form_outcome(step: StepForm, shapes: Shapes) -> Outcome:
    """The outcome of a step's form, for the shapes of a source and a state."""
    source, state = thawed_shapes(shapes)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    orders = jax.ShapeDtypeStruct(source.orders_shape, jnp.int32)

    def once(
        numbers: PyTree, state: PyTree, source: Source, orders: Array, index: Array
    ) -> tuple[PyTree, Measured]:
        batch = source.batch(orders, index, index)
        return stepped(step, single_platform(), numbers, state, batch, index)

    traced = jax.make_jaxpr(once, return_shape=True)
    jaxpr, (after, measured) = traced(step.example, state, source, orders, index)
    observed = jax.eval_shape(functools.partial(observe, step), step.example, state)
    return Outcome(after, measured, observed, any(outermost_loops(jaxpr)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def stepped(
    step: StepForm,
    platform: str | None,
    numbers: PyTree,
    state: PyTree,
    batch: Batch,
    index: Array,
) -> tuple[PyTree, Measured]:
    """The step as programs take it, traced once: for its outcome, for the loop, and to be counted.

    Args:
        step: what is done.
        platform: what alone it will be lowered for, or None.
        numbers: of the step's optimizers.
        state, batch: what the step is given.
        index: the number of the batch in the epoch, for an evaluation.
    """
    with compiling_for(platform):
        return applied(step.step(numbers), state, batch, index)


def applied(step: Step, state: PyTree, batch: Batch, index: Index) -> tuple[PyTree, Measured]:
    """The next state and what was measured; an evaluation leaves the state as it is."""
    if isinstance(step, UpdateStep):
        return step(state, batch)
    assert isinstance(step, EvaluationStep)
    return state, step(state._replace(step=index), batch)


def observe(step: StepForm, numbers: PyTree, state: PyTree) -> dict[str, Array]:
    """The scalars that are recorded of a state; none of an evaluation."""
    numbered = step.step(numbers)
    return numbered.observe(state) if isinstance(numbered, UpdateStep) else {}


def capacity(source: Source, found: Outcome) -> int:
    """How many steps' gathered rows one run may hold: all where nothing, or little, is gathered."""
    rows = jax.tree.leaves(found.measured.gathered)
    size = sum(math.prod(row.shape) * row.dtype.itemsize for row in rows)
    if not size:
        return 2**30
    return max(1, min(source.steps, GATHERED_BYTES // size))
