"""Pure training steps: `step(state, batch) -> (state, measured)`. What is trained, and how, differs here and nowhere else."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxdl.data.source import Batch
from jaxdl.layer import Eval, Layer, Params, State, Train, fold_in_name
from jaxdl.metrics import Mean, Metric
from jaxdl.ops.batching import small_last
from jaxdl.ops.floating import widest
from jaxdl.train.scaling import LossScaling
from jaxdl.train.schedule import learning_rate, settled

Augment = Callable[[Array, Any, Any], tuple[Any, Any]]


class Guard(NamedTuple):
    """What a step remembers that survives numbers which are not finite.

    Args:
        skipped: how many updates were not made, or taken back.
        in_a_row: how many of them just now, one after another.
        scale: what updates are multiplied by; None where they are left out.
        made: updates since the state was last kept.
        kept: two earlier states, the older first; None where nothing is gone back to.
    """

    skipped: Array
    in_a_row: Array
    scale: Array | None = None
    made: Array | None = None
    kept: Any = None


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
    """

    step: Array
    params: Params
    state: State
    optimizer_state: Any
    key: Array
    average: Params | None = None
    guard: Guard | None = None

    @property
    def trained(self) -> Params:
        """What training has found: `params`, or the average that a schedule-free optimizer keeps instead of a schedule.

        Such an optimizer takes its gradients at `params`, and means other parameters to be used (Defazio et al., 2024).
        """
        return settled(self.optimizer_state, self.params)

    @property
    def evaluated(self) -> Params:
        """The parameters to evaluate with: the moving average where there is one, else `trained`."""
        return self.trained if self.average is None else self.average


class Measured(NamedTuple):
    """What a step reports.

    Args:
        sums: a dict of trees of arrays, added up over the batches of an epoch; "loss" is (Σ w·loss, Σ w).
        gathered: a dict of trees of arrays [batch, ...], laid one after another over the batches of an epoch.
    """

    sums: dict[str, Any]
    gathered: dict[str, Any]


class Step(abc.ABC):
    """A pure function from a state and a batch to the next state and what was measured; a hashable value."""

    @abc.abstractmethod
    def __call__(self, state: Any, batch: Batch) -> tuple[Any, Measured]: ...

    @abc.abstractmethod
    def finite(self, measured: Measured) -> Array:
        """Whether the loop may go on after this step: a bool scalar."""

    def sound(self, state: Any) -> bool:
        """Whether the loop may go on from this state; looked at on the host, every now and then and at the end."""
        del state
        return True

    @abc.abstractmethod
    def observe(self, state: Any) -> dict[str, Array]:
        """Scalars to record at the end of an epoch."""

    @abc.abstractmethod
    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        """The epoch's figures by name, on the host, from sums in float64 and gathered rows."""

    def report_members(self, sums: dict[str, Any], gathered: dict[str, Any], count: int) -> dict[str, Any]:
        """The report of each of `count` members, stacked; sums are [members, ...], and gathered rows [rows, members, ...]."""
        each = [
            self.report(jax.tree.map(lambda leaf, k=k: leaf[k], sums), jax.tree.map(lambda rows, k=k: rows[:, k], gathered))
            for k in range(count)
        ]
        return {name: np.stack([np.asarray(figures[name]) for figures in each]) for name in each[0]}


class Updating(Step):
    """A step that the loop runs over epochs, and evaluates between them."""

    @abc.abstractmethod
    def evaluation(self) -> Step:
        """The step that measures the same figures without training; it begins each pass with `evaluated_from` the state."""

    def evaluated_from(self, state: Any) -> Any:
        """What an evaluation begins with: the trained state, its `step` set to 0, so that each pass draws the same."""
        return state._replace(step=jnp.zeros_like(state.step))

    def result(self, state: Any) -> tuple[Any, Any]:
        """What an epoch that is the best is kept as: the parameters to evaluate with, and the model's state."""
        return state.evaluated, state.state


class TrainingStep(Updating):
    """A step that `train` can start and evaluate.

    It is a hashable value, such as a frozen dataclass: equal steps share a compiled program. Its evaluation begins each pass
    with the trained state, its `step` set to 0; one that draws random numbers counts it up.
    """

    @abc.abstractmethod
    def init(self, key: Array, batch: Batch) -> TrainState:
        """The first state, from a batch of shapes."""

    def sound(self, state: TrainState) -> bool:
        """Whether parameters and state are finite, so that a gradient which is not shows before the next loss."""
        return is_finite((state.params, state.state))

    def check(self, name: str, batch: Batch) -> None:
        """Refuses data that the step cannot mean, in a sentence; a step that takes any data leaves this as it is.

        Args:
            name: what the data are called.
            batch: all of the data, or each batch of a stream as it comes: NumPy arrays.
        """


@dataclasses.dataclass(frozen=True)
class Evaluation(Step):
    """Measures the loss and the metrics of a model in evaluation; leaves the state as it is."""

    model: Layer
    loss: Callable[[Any, Any], Array] | None
    metrics: tuple[tuple[str, Metric], ...]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        outputs, _ = self.model.apply(state.evaluated, state.state, batch.inputs, Eval())
        weights = batch.example_weights()
        sums: dict[str, Any] = {}
        if self.loss is not None:
            losses = self.loss(outputs, batch.targets)
            sums["loss"] = (weighted_sum(weights, losses), weights.sum())
        measured = measure(self.metrics, outputs, batch.targets, weights)
        return state, Measured(sums | measured.sums, measured.gathered)

    def finite(self, measured: Measured) -> Array:
        del measured
        return jnp.asarray(True)

    def observe(self, state: TrainState) -> dict[str, Array]:
        del state
        return {}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return report(self.metrics, sums, gathered)

    def report_members(self, sums: dict[str, Any], gathered: dict[str, Any], count: int) -> dict[str, Any]:
        return report_members(self.metrics, sums, gathered, count)


@dataclasses.dataclass(frozen=True)
class Prediction(Step):
    """Gathers the outputs of a model in evaluation."""

    model: Layer

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        outputs, _ = self.model.apply(state.evaluated, state.state, batch.inputs, Eval())
        return state, Measured({}, {"outputs": outputs})

    def finite(self, measured: Measured) -> Array:
        del measured
        return jnp.asarray(True)

    def observe(self, state: TrainState) -> dict[str, Array]:
        del state
        return {}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del sums
        return gathered


@dataclasses.dataclass(frozen=True)
class Supervised(TrainingStep):
    """One update by the gradient of the weighted mean loss, L = Σᵢ wᵢ loss(f(xᵢ), tᵢ) / Σᵢ wᵢ.

    wᵢ is the example's weight times its class's, zero where it only fills up the batch.

    Args:
        model: f.
        loss: `loss(outputs, targets) -> [batch]`.
        optimizer: of optax.
        metrics: by name, measured on the training pass's own outputs.
        accumulate: the batch is computed in so many equal parts, one after another, and their gradients summed: the same
            update in less memory.
        average: the decay of an exponential moving average of the parameters, a ← decay · a + (1 − decay) · params.
        augment: `augment(key, inputs, targets) -> (inputs, targets)`, inside the step.
        class_weights: one for each class, for integer targets; they weigh the loss and not the metrics.
        loss_scaling: how the loss is scaled, for a model that computes in float16.
    """

    model: Layer
    loss: Callable[[Any, Any], Array]
    optimizer: optax.GradientTransformation
    metrics: tuple[tuple[str, Metric], ...] = ()
    accumulate: int = 1
    average: float | None = None
    augment: Augment | None = None
    class_weights: tuple[float, ...] | None = None
    loss_scaling: LossScaling | None = None

    def init(self, key: Array, batch: Batch) -> TrainState:
        params, state = self.model.init(fold_in_name(key, "init"), batch.inputs)
        return self.start(key, params, state)

    def start(self, key: Array, params: Params, state: State) -> TrainState:
        """The first state for parameters that are given."""
        average = None if self.average is None else params
        step, optimizer_state = jnp.zeros((), jnp.int32), self.optimizer.init(params)
        if self.loss_scaling is not None:
            optimizer_state = self.loss_scaling.init(optimizer_state)
        return TrainState(step, params, state, optimizer_state, step_key(key), average)

    def evaluation(self) -> Step:
        return Evaluation(self.model, self.loss, self.metrics)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        key = jax.random.fold_in(state.key, state.step)
        if self.augment is not None:
            inputs, targets = self.augment(fold_in_name(key, "augment"), batch.inputs, batch.targets)
            batch = batch._replace(inputs=inputs, targets=targets)
        weights = batch.example_weights()
        shares, total = in_shares(self._with_class_weights(weights, batch.targets))
        loss, outputs, new, gradients = self._gradients(state, batch, shares, key)
        params, optimizer_state = self._updated(state, gradients, loss)
        measured = measure(self.metrics, outputs, batch.targets, weights)
        sums = {"loss": (loss * total, total), **measured.sums}
        average = self._averaged(state.average, params)
        state = TrainState(state.step + 1, params, new, optimizer_state, state.key, average)
        return state, Measured(sums, measured.gathered)

    def finite(self, measured: Measured) -> Array:
        return jnp.isfinite(measured.sums["loss"][0])

    def observe(self, state: TrainState) -> dict[str, Array]:
        if self.loss_scaling is None:
            return {"learning_rate": current_rate(self.optimizer, state.optimizer_state)}
        inner, scale, _, skipped = state.optimizer_state
        return {"learning_rate": current_rate(self.optimizer, inner), "loss_scale": scale, "skipped_steps": skipped}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return report(self.metrics, sums, gathered)

    def _updated(self, state: TrainState, gradients: Params, loss: Array) -> tuple[Params, Any]:
        """The parameters and the optimizer's state one update on."""
        if self.loss_scaling is None:
            return updated(self.optimizer, gradients, state.optimizer_state, state.params, loss)

        def update(gradients: Params, optimizer_state: Any) -> tuple[Params, Any]:
            return updated(self.optimizer, gradients, optimizer_state, state.params, loss)

        return self.loss_scaling.updated(update, gradients, state.optimizer_state, state.params)

    def report_members(self, sums: dict[str, Any], gathered: dict[str, Any], count: int) -> dict[str, Any]:
        return report_members(self.metrics, sums, gathered, count)

    def _with_class_weights(self, weights: Array, targets: Any) -> Array:
        if self.class_weights is None:
            return weights
        return weights * jnp.asarray(self.class_weights, jnp.float32)[targets.reshape(weights.shape)]

    def _averaged(self, average: Params | None, params: Params) -> Params | None:
        if self.average is None or average is None:
            return None
        moved: Any = optax.incremental_update(params, average, 1 - self.average)
        return moved

    def _gradients(self, state: TrainState, batch: Batch, shares: Array, key: Array) -> tuple[Array, Any, State, Params]:
        """The loss, the outputs, the model's next state, and dL/dparams, times the scale of the loss where it is scaled."""

        def objective(params: Params, model_state: State, batch: Batch, shares: Array, key: Array) -> Any:
            outputs, new = self.model.apply(params, model_state, batch.inputs, Train(key, batch.mask))
            with jax.named_scope("loss"):
                loss = weighted_sum(shares, self.loss(outputs, batch.targets))
            scaled = loss if self.loss_scaling is None else loss * state.optimizer_state.scale.astype(loss.dtype)
            return scaled, (loss, outputs, new)

        gradient = jax.value_and_grad(objective, has_aux=True)
        if self.accumulate == 1:
            (_, (loss, outputs, new)), gradients = gradient(state.params, state.state, batch, shares, key)
            return loss, outputs, new, gradients

        def part(carry: Any, xs: Any) -> Any:
            model_state, gradients, loss = carry
            index, batch, shares = xs
            part_key = jax.random.fold_in(key, index)
            (_, (more, outputs, new)), g = gradient(state.params, model_state, batch, shares, part_key)
            return (new, jax.tree.map(jnp.add, gradients, g), loss + more), outputs

        split = jax.tree.map(lambda leaf: leaf.reshape(self.accumulate, -1, *leaf.shape[1:]), (batch, shares))
        first = (state.state, jax.tree.map(jnp.zeros_like, state.params), jnp.zeros((), shares.dtype))
        indices = jnp.arange(self.accumulate, dtype=jnp.int32)
        (new, gradients, loss), outputs = lax.scan(part, first, (indices, *split))
        return loss, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs), new, gradients


def step_key(key: Array) -> Array:
    """The key that the steps of a run draw from."""
    return fold_in_name(key, "step")


def all_finite(tree: Any) -> Array:
    """Whether every floating-point number in a tree is finite: a bool scalar."""
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack(leaves).all() if leaves else jnp.asarray(True)


def is_finite(tree: Any) -> bool:
    """Whether every floating-point number in a tree of arrays is finite, told on the host.

    What lies in a CPU's memory is looked at there: a program would have three kernels for each leaf, which take longer to
    compile than a training step.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating)]
    if all(_in_cpu_memory(leaf) for leaf in leaves):
        with np.errstate(all="ignore"):
            return all(bool(np.isfinite(leaf.min()) and np.isfinite(leaf.max())) for leaf in map(np.asarray, leaves))
    return bool(_all_finite(leaves))


_all_finite = jax.jit(all_finite)


def _in_cpu_memory(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return True
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())


def in_shares(weights: Array) -> tuple[Array, Array]:
    """Weights divided by their sum, and the sum."""
    total = weights.sum()
    return weights / jnp.where(total > 0, total, 1), total


def updated(
    optimizer: optax.GradientTransformation, gradients: Params, optimizer_state: Any, params: Params, loss: Array
) -> tuple[Params, Any]:
    """The parameters and the optimizer's state one update on."""
    extended = optax.with_extra_args_support(optimizer)
    gradients = jax.tree.map(small_last, gradients)
    with jax.named_scope("optimizer"), jax.numpy_dtype_promotion("standard"):  # optax mixes floats and integer counts
        updates, optimizer_state = extended.update(gradients, optimizer_state, params, value=loss)
    moved: Any = optax.apply_updates(params, updates)
    return moved, optimizer_state


def current_rate(optimizer: optax.GradientTransformation, optimizer_state: Any) -> Array:
    """The step size that an optimizer takes next; NaN where it cannot be read."""
    with jax.numpy_dtype_promotion("standard"):
        return learning_rate(optimizer, optimizer_state)


def weighted_sum(weights: Array, losses: Array) -> Array:
    """Σ w·loss; a loss that is not finite does not count where its weight is zero."""
    losses = losses.astype(widest(losses.dtype))
    return jnp.sum(weights.astype(losses.dtype) * jnp.where(weights != 0, losses, 0))


def measure(metrics: tuple[tuple[str, Metric], ...], outputs: Any, targets: Any, weights: Array) -> Measured:
    """All metrics of one batch."""
    outputs = lax.stop_gradient(outputs)
    pairs = {name: metric.measure(outputs, targets, weights) for name, metric in metrics}
    return Measured({name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()})


def report(
    metrics: tuple[tuple[str, Metric], ...], sums: dict[str, Any], gathered: dict[str, Any]
) -> dict[str, float | np.ndarray]:
    """The mean loss and each metric of an epoch."""
    figures: dict[str, float | np.ndarray] = means({"loss": sums["loss"]}) if "loss" in sums else {}
    return figures | {name: metric.result(sums[name], gathered[name]) for name, metric in metrics}


def report_members(
    metrics: tuple[tuple[str, Metric], ...], sums: dict[str, Any], gathered: dict[str, Any], count: int
) -> dict[str, np.ndarray]:
    """`report` for every member of a population, [members, ...]: means at once, and other metrics one by one."""
    figures = {"loss": _ratios(*sums["loss"])} if "loss" in sums else {}
    for name, metric in metrics:
        if isinstance(metric, Mean):
            figures[name] = _ratios(sums[name]["total"], sums[name]["weight"])
            continue
        each = [
            metric.result(
                jax.tree.map(lambda leaf, k=k: leaf[k], sums[name]), jax.tree.map(lambda rows, k=k: rows[:, k], gathered[name])
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
    return {name: float(total / weight) if weight else float("nan") for name, (total, weight) in sums.items()}
