"""Pure training steps: `step(state, batch) -> (state, measured)`. What is trained, and how, differs
here and nowhere else.
"""

import abc
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxdl.checkpoint.describe import Description, describe
from jaxdl.core.layer import Params, State, fold_in_name
from jaxdl.data.source import Batch
from jaxdl.metrics.metric import Mean, Metric
from jaxdl.ops.batching import small_last
from jaxdl.ops.floating import widest
from jaxdl.optim.learning_rate import eval_params, learning_rate
from jaxdl.training.spread import added_up

PerExample = tuple[str, Callable[..., Any], Any, Any]
"""What a function is called, the function, and the shapes of the outputs and the targets that it is
given.
"""
Augment = Callable[[Array, Any, Any], tuple[Any, Any]]

SMALL = 2**12
"""Up to how many numbers of an array are looked at in one call of NumPy rather than in four."""


class Guard(NamedTuple):
    """What a step remembers that survives numbers which are not finite.

    Args:
        skipped: how many updates were not made, or taken back.
        in_a_row: how many of them just now, one after another.
        scale: what updates are multiplied by; None where they are left out.
        made: updates since the state was last kept.
        kept: two earlier states, the older first; None where nothing is gone back to.
        rates: the learning rates of the last update that stayed, by name; None where the
            optimizer's state tells them.
    """

    skipped: Array
    in_a_row: Array
    scale: Array | None = None
    made: Array | None = None
    kept: Any = None
    rates: Any = None


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
    optimizer_state: Any
    key: Array
    average: Params | None = None
    guard: Guard | None = None
    estimate: Any = None

    @property
    def trained(self) -> Params:
        """What training has found: `params`, or the average that a schedule-free optimizer keeps
        instead of a schedule.

        Such an optimizer takes its gradients at `params`, and means other parameters to be used
        (Defazio et al., 2024).
        """
        return eval_params(self.optimizer_state, self.params)

    @property
    def evaluated(self) -> Params:
        """The parameters to evaluate with: the moving average where there is one, else
        `trained`.
        """
        return self.trained if self.average is None else self.average


class Measured(NamedTuple):
    """What a step reports.

    Args:
        sums: a dict of trees of arrays, added up over the batches of an epoch; "loss" is (Σ w·loss,
            Σ w).
        gathered: a dict of trees of arrays [batch, ...], laid one after another over the batches of
            an epoch.
    """

    sums: dict[str, Any]
    gathered: dict[str, Any]


class Step(abc.ABC):
    """A pure function from a state and a batch to the next state and what was measured; a hashable
    value.
    """

    @abc.abstractmethod
    def __call__(self, state: Any, batch: Batch) -> tuple[Any, Measured]: ...

    def finite(self, measured: Measured) -> Array:
        """Whether the loop may go on after this step: a bool scalar; an evaluation always may."""
        del measured
        return jnp.asarray(True)

    def sound(self, state: Any) -> bool:
        """Whether the loop may go on from this state; looked at on the host, every now and then and
        at the end.
        """
        del state
        return True

    def observe(self, state: Any) -> dict[str, Array]:
        """Scalars to record at the end of an epoch; an evaluation has none."""
        del state
        return {}

    @abc.abstractmethod
    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        """The epoch's figures by name, on the host, from sums in float64 and gathered rows."""

    def report_members(
        self, sums: dict[str, Any], gathered: dict[str, Any], count: int
    ) -> dict[str, Any]:
        """The report of each of `count` members, stacked; sums are [members, ...], and gathered
        rows [rows, members, ...].
        """
        each = [
            self.report(
                jax.tree.map(lambda leaf, k=k: leaf[k], sums),
                jax.tree.map(lambda rows, k=k: rows[:, k], gathered),
            )
            for k in range(count)
        ]
        return {name: np.stack([np.asarray(figures[name]) for figures in each]) for name in each[0]}


class Updating(Step):
    """A step that the loop runs over epochs, and evaluates between them."""

    @abc.abstractmethod
    def finite(self, measured: Measured) -> Array:
        """Whether the loop may go on after this step: a bool scalar."""

    @abc.abstractmethod
    def observe(self, state: Any) -> dict[str, Array]:
        """Scalars to record at the end of an epoch."""

    @abc.abstractmethod
    def evaluation(self) -> Step:
        """The step that measures the same figures without training; it begins each pass with
        `evaluated_from` the state.
        """

    def evaluated_from(self, state: Any) -> Any:
        """What an evaluation begins with: the trained state, its `step` set to 0, so that each pass
        draws the same.
        """
        return state._replace(step=zeros_like(state.step))

    def described(self) -> dict[str, Description]:
        """What the step is, part by part, so that a run which saves itself is not taken up by
        another.

        Of a frozen dataclass that is its fields, of anything else what `describe` tells.
        """
        whole = describe(self)
        if isinstance(whole, str):
            return {"step": whole}
        return {"step": whole["is"], **whole["parts"]}

    def alone(self) -> "Updating":
        """The same step on the default device, where it is one over several."""
        return self

    def result(self, state: Any) -> tuple[Any, Any]:
        """What an epoch that is the best is kept as: the parameters to evaluate with, and the
        model's state.
        """
        return state.evaluated, state.state


class TrainingStep(Updating):
    """A step that `train` can start and evaluate.

    It is a hashable value, such as a frozen dataclass: equal steps share a compiled program. Its
    evaluation begins each pass with the trained state, its `step` set to 0; one that draws random
    numbers counts it up.
    """

    @abc.abstractmethod
    def init(self, key: Array, batch: Batch) -> TrainState:
        """The first state, from a batch of shapes."""

    def sound(self, state: TrainState) -> bool:
        """Whether parameters and state are finite, so that a gradient which is not shows before the
        next loss.
        """
        return is_finite((state.params, state.state))

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        """Its functions that give each example a number of its own; `train` refuses those that mix
        examples.

        Args:
            state: the first state.
            batch: the shapes of a batch.
        """
        del state, batch
        return ()

    def check(self, name: str, batch: Batch) -> None:
        """Refuses data that the step cannot mean, in a sentence; a step that takes any data leaves
        this as it is.

        Args:
            name: what the data are called.
            batch: all of the data, or each batch of a stream as it comes: NumPy arrays.
        """


def step_key(key: Array) -> Array:
    """The key that the steps of a run draw from."""
    return fold_in_name(key, "step")


def all_finite(tree: Any) -> Array:
    """Whether every floating-point number in a tree is finite: a bool scalar."""
    leaves = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.stack(leaves).all() if leaves else jnp.asarray(True)


def is_finite(tree: Any) -> bool:
    """Whether every floating-point number in a tree of arrays is finite, told on the host.

    What lies in a CPU's memory is looked at there: a program would have three kernels for each
    leaf, which take longer to compile than a training step.
    """
    leaves = [
        leaf
        for leaf in jax.tree.leaves(tree)
        if leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    if all(isinstance(leaf, np.ndarray) or _in_cpu_memory(leaf.sharding) for leaf in leaves):
        with np.errstate(all="ignore"):
            return all(_whole(np.asarray(leaf)) for leaf in leaves)
    return bool(_all_finite(leaves))


_all_finite = jax.jit(all_finite)


def _whole(array: np.ndarray) -> bool:
    """Whether all is finite: of a large array without another of its size."""
    if array.size <= SMALL:
        return bool(np.isfinite(array).all())
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


@functools.lru_cache(maxsize=64)
def _in_cpu_memory(sharding: Any) -> bool:
    return sharding.is_fully_addressable and all(
        device.platform == "cpu" for device in sharding.device_set
    )


def zeros_like(array: Array) -> Array:
    """Zeros where an array lies, without a program: one takes a tenth of a millisecond, and this a
    tenth of that.
    """
    return jax.device_put(
        np.zeros(array.shape, array.dtype), array.sharding if array.committed else None
    )


def in_shares(weights: Array, across: str | None = None) -> tuple[Array, Array]:
    """Weights divided by their sum, that of all parts of the batch, and the sum."""
    total = added_up(weights.sum(), across)
    return weights / jnp.where(total > 0, total, 1), total


def updated(
    optimizer: optax.GradientTransformation,
    gradients: Params,
    optimizer_state: Any,
    params: Params,
    loss: Array,
    loss_of: Callable[[Params], Array] | None = None,
) -> tuple[Params, Any]:
    """The parameters and the optimizer's state one update on.

    Args:
        optimizer: of optax.
        gradients, optimizer_state, params, loss: of this step.
        loss_of: the loss of other parameters, for an optimizer that searches along a line, such as
            `optax.lbfgs`.

    Raises:
        TypeError: the optimizer asks for the loss of other parameters, and there is no `loss_of`.
    """
    extended = optax.with_extra_args_support(optimizer)
    gradients = jax.tree.map(small_last, gradients)
    more = {} if loss_of is None else {"grad": gradients, "value_fn": loss_of}
    with (
        jax.named_scope("optimizer"),
        jax.numpy_dtype_promotion("standard"),
    ):  # optax mixes floats and integer counts
        try:
            updates, optimizer_state = extended.update(
                gradients,
                optimizer_state,
                params,
                **_accepted(extended.update, {"value": loss, **more}),
            )
        except TypeError as error:
            if loss_of is not None or "value_fn" not in str(error):
                raise
            raise TypeError(
                "optimizer: it searches along a line, for which it needs the loss of other "
                "parameters (value_fn), and this "
                "step has none to give — train with `fit` or `Supervised`, or take an optimizer "
                "without a search, such as "
                "optax.adam(1e-3)."
            ) from error
    moved: Any = optax.apply_updates(params, updates)
    return moved, optimizer_state


def _accepted(update: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that an update takes; the loss, and all where it takes any."""
    parameters = inspect.signature(update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {
        name: value for name, value in arguments.items() if name in parameters or name == "value"
    }


def current_rate(
    optimizer: optax.GradientTransformation, optimizer_state: Any, estimate: Any = None
) -> Array:
    """The step size that an optimizer took last, or takes first; NaN where it cannot be read."""
    with jax.numpy_dtype_promotion("standard"):
        return learning_rate(optimizer, optimizer_state, estimate)


def weighted_sum(weights: Array, losses: Array) -> Array:
    """Σ w·loss; a loss that is not finite does not count where its weight is zero."""
    if losses.shape != weights.shape:
        raise ValueError(
            f"a loss of shape {losses.shape} came for {len(weights)} examples: return one number "
            f"for each, [batch]."
        )
    losses = losses.astype(widest(losses.dtype))
    return jnp.sum(weights.astype(losses.dtype) * jnp.where(weights != 0, losses, 0))


def measure(
    metrics: tuple[tuple[str, Metric], ...], outputs: Any, targets: Any, weights: Array
) -> Measured:
    """All metrics of one batch."""
    outputs = lax.stop_gradient(outputs)
    pairs = {name: metric.measure(outputs, targets, weights) for name, metric in metrics}
    return Measured(
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )


def report(
    metrics: tuple[tuple[str, Metric], ...], sums: dict[str, Any], gathered: dict[str, Any]
) -> dict[str, float | np.ndarray]:
    """The mean loss and each metric of an epoch."""
    figures: dict[str, float | np.ndarray] = means({"loss": sums["loss"]}) if "loss" in sums else {}
    return figures | {name: metric.result(sums[name], gathered[name]) for name, metric in metrics}


def report_members(
    metrics: tuple[tuple[str, Metric], ...],
    sums: dict[str, Any],
    gathered: dict[str, Any],
    count: int,
) -> dict[str, np.ndarray]:
    """`report` for every member of a population, [members, ...]: means at once, and other metrics
    one by one.
    """
    figures = {"loss": _ratios(*sums["loss"])} if "loss" in sums else {}
    for name, metric in metrics:
        if isinstance(metric, Mean):
            figures[name] = _ratios(sums[name]["total"], sums[name]["weight"])
            continue
        each = [
            metric.result(
                jax.tree.map(lambda leaf, k=k: leaf[k], sums[name]),
                jax.tree.map(lambda rows, k=k: rows[:, k], gathered[name]),
            )
            for k in range(count)
        ]
        figures[name] = np.stack([np.asarray(figure) for figure in each])
    return figures


def _ratios(totals: Any, weights: Any) -> np.ndarray:
    """total / weight, NaN where nothing has weight."""
    totals, weights = np.asarray(totals, np.float64), np.asarray(weights, np.float64)
    return np.divide(totals, weights, out=np.full(totals.shape, np.nan), where=weights != 0)


def means(sums: dict[str, Any]) -> dict[str, Any]:
    """Σ w·x / Σ w of each pair of sums; NaN where nothing has weight."""
    return {
        name: float(total / weight) if weight else float("nan")
        for name, (total, weight) in sums.items()
    }
