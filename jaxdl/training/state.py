"""The states of training and evaluation, and what a step measures."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Bool, Int, Key

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Params, State
from jaxdl.optim.learning_rate import eval_params


class Guard(NamedTuple):
    """What a `Guarded` step remembers about updates that were not finite.

    Args:
        skipped: int32 scalar, how many updates were left out, or rolled back.
        in_a_row: int32 scalar, how many of them one after another just now.
        scale: what updates are multiplied by; None where they are left out.
        made: updates since the state was last kept.
        kept: two earlier states, the older first; None without rollback.
        rates: the learning rates of the last update that stayed, by name; None where the
            optimizer's state holds them.
    """

    skipped: Array
    in_a_row: Array
    scale: Array | None = None
    made: Array | None = None
    kept: PyTree = None
    rates: dict[str, Array] | None = None


class TrainState(NamedTuple):
    """Everything that a step changes, and the key it draws from.

    Args:
        step: int32 scalar, how many updates were made.
        params: the model's parameters.
        state: the model's state, such as running statistics.
        optimizer_state: optax's.
        key: typed key; step i draws from `fold_in(key, i)`.
        average: the exponential moving average of the parameters, or None.
        guard: of a `Guarded` step, or None.
        estimate: the factor that the optimizer estimated for the last update, or None where it
            estimates none.
    """

    step: Array
    params: Params
    state: State
    optimizer_state: PyTree
    key: Array
    average: Params | None = None
    guard: Guard | None = None
    estimate: PyTree = None

    @property
    def trained(self) -> Params:
        """The parameters that training has found: `params`, or the average that a schedule-free
        optimizer keeps instead of a schedule.

        Such an optimizer takes its gradients at `params`, and means other parameters to be used
        (Defazio et al., 2024).
        """
        return eval_params(self.optimizer_state, self.params)

    @property
    def eval_params(self) -> Params:
        """The parameters to evaluate with: the moving average where there is one, else
        `trained`.
        """
        return self.trained if self.average is None else self.average


class EvalState(NamedTuple):
    """What an evaluation reads; it changes nothing of it.

    Args:
        params: the parameters to evaluate with.
        state: the model's state.
        key: typed key of what the evaluation draws, or None.
        step: int32 scalar, the number of the batch in the pass, once there is a batch.
    """

    params: Params
    state: State
    key: Key[Array, "..."] | None = None
    step: Int[Array, ""] | np.int32 | None = None

    def batch_key(self) -> Array:
        """The key of what an evaluation draws for this batch, the same in each pass."""
        assert self.key is not None
        assert self.step is not None
        return jax.random.fold_in(fold_in_name(self.key, "evaluation"), self.step)


class Measured(NamedTuple):
    """What a step reports.

    Args:
        sums: a dict of trees of arrays, added up over the batches of an epoch; "loss" is (Σ w·loss,
            Σ w).
        gathered: a dict of trees of arrays [batch, ...], concatenated over the batches of an epoch.
        finite: a bool scalar, whether the loss and the gradients were finite, where the step
            looked; None where its method `finite` finds it in the sums.
    """

    sums: dict[str, Any]
    gathered: dict[str, Any]
    finite: Bool[Array, "..."] | None = None


def step_key(key: Array) -> Array:
    """The key that the steps of a run draw from."""
    return fold_in_name(key, "step")


def distinct_arrays(tree: Any) -> Any:
    """The tree with a copy of each array that occurs twice, as one buffer is donated once; what is
    traced stays.
    """
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, Array) or isinstance(leaf, Tracer) or not leaf.size:
            return leaf
        buffer = _buffer(leaf)
        if buffer in seen:
            return jnp.copy(leaf)
        seen.add(buffer)
        return leaf

    return jax.tree.map(own, tree)


def _buffer(array: Array) -> int:
    """What tells the array's memory from others."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return id(array)
    return array.addressable_data(0).unsafe_buffer_pointer()
