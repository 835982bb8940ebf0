"""`Minimize`: the step by the gradient of an `Objective`, and its evaluation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl.core.error import describe
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Params, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.values import Value
from jaxdl.data.source import Batch
from jaxdl.losses.per_example import format_shapes
from jaxdl.losses.weighted import weighted_sum
from jaxdl.training.arguments import check_figures
from jaxdl.training.objective import Objective
from jaxdl.training.scaling import LossScaling
from jaxdl.training.spread import AXIS, added_up, own_draws
from jaxdl.training.state import EvalState, Measured, TrainState
from jaxdl.training.step import EvaluationStep, PerExample
from jaxdl.training.steps.gradient import Found, GradientStep, Objected
from jaxdl.training.steps.supervised import EvaluationInParts
from jaxdl.training.update import in_shares, loss_means, means


@dataclasses.dataclass(frozen=True)
class Minimize(GradientStep):
    """One update by the gradient of an objective, L = Σᵢ wᵢ lᵢ / Σᵢ wᵢ.

    Args:
        of: the objective.
        optimizer: of optax.
        accumulate, average, loss_scaling, mesh: as in `Supervised`.
    """

    of: Objective
    optimizer: optax.GradientTransformation
    accumulate: int = 1
    average: float | None = None
    loss_scaling: LossScaling | None = None
    mesh: Mesh | None = None

    @property
    def model(self) -> Any:
        """What is trained: the objective's model, where all parameters and state are its own."""
        own = type(self.of).init is Objective.init
        return getattr(self.of, "model", self.of) if own else self.of

    def init(self, key: Array, batch: Batch) -> TrainState:
        return self.start(key, *self.of.init(fold_in_name(key, "init"), batch))

    def evaluation(self) -> EvaluationStep:
        return ObjectiveEvaluation(self.of, self.mesh)

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        if self.of.mixes or batch.weights is not None:
            return ()
        given = (state.params, state.state)
        return (("loss", _LossOf(self.of), batch.inputs, batch.targets, *given),)

    def objective(
        self, params: Params, state: State, batch: Batch, shares: Array, mode: Train
    ) -> Objected:
        """The objective's losses, and its metrics."""
        losses, new, metrics = _called(self.of, params, state, batch, mode)
        weights = batch.example_weights()
        return Objected(
            _added(self.of, losses, shares), (), _summed(self.of, metrics, weights), new
        )

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del gathered
        return _report(sums)

    def _in_parts(self, state: TrainState, batch: Batch) -> tuple[Found, dict[str, Any]]:
        if self.mesh is None or not self.of.mixes:
            return super()._in_parts(state, batch)
        return self._part(state, _laid_out(self.mesh, batch), None)


@dataclasses.dataclass(frozen=True)
class ObjectiveEvaluation(EvaluationInParts):
    """Measures an objective in `Eval()`."""

    of: Objective
    mesh: Mesh | None = None

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        if self.mesh is not None and self.of.mixes:
            return Measured(*self.part(state, _laid_out(self.mesh, batch), None))
        return super().__call__(state, batch)

    def part(
        self, state: EvalState, batch: Batch, across: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        mode = own_draws(Eval(key=state.batch_key()), across)
        losses, _, metrics = _called(self.of, state.params, state.state, batch, mode)
        weights = batch.example_weights()
        shares, total = in_shares(weights, across)
        loss = _added(self.of, losses, shares) * total
        sums = {"loss": (loss, weights.sum()), **_summed(self.of, metrics, weights)}
        return added_up(sums, across), {}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del gathered
        return _report(sums)


@dataclasses.dataclass(frozen=True)
class _LossOf(Value):
    """The losses of an objective in evaluation, as a function of what a batch has."""

    of: Objective

    @property
    def __wrapped__(self) -> Any:
        """The objective's own function, which says where it is defined."""
        return type(self.of).loss

    def __call__(self, inputs: Any, targets: Any, params: Params, state: State) -> Array:
        batch = Batch(inputs, targets)
        return _called(self.of, params, state, batch, Eval(key=jax.random.key(1)))[0]


def _called(
    of: Objective, params: Params, state: State, batch: Batch, mode: Mode
) -> tuple[Any, Any, Any]:
    """The losses, the next state and the metrics.

    Raises:
        TypeError: the objective returns something else.
    """
    returned: Any = of.loss(params, state, batch, mode)
    if isinstance(returned, tuple) and len(returned) == 3:
        return returned
    raise TypeError(
        f"{type(of).__name__}.loss returned {describe(returned)}; expected (losses, state, "
        f"metrics) — return losses, state, {{}} where nothing else is shown."
    )


def _report(sums: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: pair for name, pair in sums.items() if name not in ("loss", "losses")}
    return loss_means(sums) | means(metrics)


def _laid_out(mesh: Mesh, batch: Batch) -> Batch:
    """The batch with its rows spread over the devices, and no part seen by itself."""
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, rows), batch)


def _added(of: Objective, losses: Any, shares: Array) -> Array:
    """What losses add to L.

    Raises:
        ValueError: they are not [batch], and no number of a loss that mixes examples either.
    """
    if isinstance(losses, Array):
        if losses.shape == shares.shape:
            return weighted_sum(losses, shares)
        if of.mixes and losses.shape == ():
            return losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
    kind = type(of).__name__
    declared = (
        " — where the examples of a batch meet in one number, declare it by the class attribute "
        "mixes = True"
    )
    raise ValueError(
        f"{kind}.loss returned {format_shapes(losses)} for a batch of {len(shares)}; expected one "
        f"loss for each example, [batch]{'' if of.mixes else declared}."
    )


def _summed(of: Objective, metrics: Any, weights: Array) -> dict[str, tuple[Array, Array]]:
    """Σ w·x and Σ w of each metric."""
    if not isinstance(metrics, dict):
        raise TypeError(
            f"{type(of).__name__}.loss returned {type(metrics).__name__} as its metrics; expected "
            f"a dict by name, {{}} where there are none."
        )
    check_figures(f"{type(of).__name__}.loss: metrics", metrics)
    total = weights.sum()
    sums = {}
    for name, values in lax.stop_gradient(metrics).items():
        values = jnp.asarray(values)
        if values.shape == weights.shape:
            sums[name] = (weighted_sum(values, weights), total)
        elif values.shape == ():
            sums[name] = (values.astype(jnp.float32) * total, total)
        else:
            raise ValueError(
                f"{type(of).__name__}.loss returned the metric {name!r} of shape {values.shape} "
                f"for a batch of {len(weights)}; expected [batch], or one number."
            )
    return sums
