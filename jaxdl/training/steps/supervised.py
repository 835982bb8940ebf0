"""`Supervised`: the step by the gradient of a model's loss; what evaluates and predicts with it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh

from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.mode import Eval, Train
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.by_position import loss_sum, loss_weights
from jaxdl.metrics.metric import Metric
from jaxdl.optim.learning_rate import estimated
from jaxdl.training.class_weights import class_weights_of
from jaxdl.training.finite import apply_if, are_finite
from jaxdl.training.scaling import LossScaling
from jaxdl.training.spread import added_up, in_parts, own_draws
from jaxdl.training.state import EvalState, Measured, TrainState, step_key
from jaxdl.training.step import EvaluationStep, PerExample, TrainingStep
from jaxdl.training.steps.objective import added, as_of, batch_loss, blank, in_two_passes
from jaxdl.training.update import (
    Augment,
    current_rate,
    in_shares,
    measure,
    report,
    report_members,
    updated,
)


@dataclasses.dataclass(frozen=True)
class Evaluation(EvaluationStep):
    """Measures the loss and the metrics of a model in evaluation."""

    model: Layer
    loss: Callable[[Any, Any], Array] | None
    metrics: tuple[tuple[str, Metric], ...]
    mesh: Mesh | None = None

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        given = (state.params, state.state)
        return Measured(*in_parts(self.mesh, self._part, given, batch))

    def _part(
        self, given: tuple[Params, State], batch: Batch, across: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        outputs, _ = self.model.apply(*given, batch.inputs, Eval())
        weights = batch.example_weights()
        sums: dict[str, Any] = {}
        if self.loss is not None:
            counted = loss_weights(self.loss, lambda: outputs, batch.targets, weights)
            sums["loss"] = (self._loss(outputs, batch, counted, across), counted.sum())
        measured = measure(self.metrics, outputs, batch.targets, weights)
        return added_up(sums | measured.sums, across), measured.gathered

    def _loss(self, outputs: Any, batch: Batch, weights: Array, across: str | None) -> Array:
        """Σ w·loss over the part's rows."""
        assert self.loss is not None
        if not is_batchwise(self.loss):
            return loss_sum(self.loss, outputs, batch.targets, weights)
        share = batch_loss(
            self.loss, outputs, batch, weights, batch.weights is not None, across
        )
        return share * added_up(weights.sum(), across).astype(share.dtype)

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return report(self.metrics, sums, gathered)

    def report_members(
        self, sums: dict[str, Any], gathered: dict[str, Any], count: int
    ) -> dict[str, Any]:
        return report_members(self.metrics, sums, gathered, count)


@dataclasses.dataclass(frozen=True)
class Prediction(EvaluationStep):
    """Gathers the outputs of a model in evaluation."""

    model: Layer
    mesh: Mesh | None = None

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        given = (state.params, state.state)
        return Measured(*in_parts(self.mesh, self._part, given, batch))

    def _part(
        self, given: tuple[Params, State], batch: Batch, across: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        del across
        outputs, _ = self.model.apply(*given, batch.inputs, Eval())
        return {}, {"outputs": outputs}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del sums
        return gathered


class _Found(NamedTuple):
    """What the gradient of a batch comes with: the loss, the model's next state, and sums."""

    loss: Array
    gradients: Params
    state: State
    sums: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Supervised(TrainingStep):
    """One update by the gradient of the weighted mean loss, L = Σᵢ wᵢ loss(f(xᵢ), tᵢ) / Σᵢ wᵢ.

    wᵢ is the example's weight times its class's, zero where it only fills up the batch. A batchwise
    loss that returns one number is L itself.

    Args:
        model: f.
        loss: `loss(outputs, targets) -> [batch]`, or a `losses.batchwise` one.
        optimizer: of optax.
        metrics: by name, measured on the training pass's own outputs.
        accumulate: the batch is computed in so many equal parts, one after another, and their
            gradients summed in at least float32: the same update in less memory, for models whose
                examples do not meet. Moments of BatchNorm are those of
            each part, and its running ones move once a part. Each part draws by a key of its own.
            For a batchwise loss all outputs are computed first, and each part's once more with its
            gradient.
        average: the decay of an exponential moving average of the parameters, a ← decay · a + (1 −
            decay) · params.
        augment: `augment(key, inputs, targets) -> (inputs, targets)`, inside the step.
        class_weights: one for each class, for targets that are class numbers, or one-hot or soft
            labels y, whose weight is Σ y w; they weigh the loss and not the metrics.
        loss_scaling: how the loss is scaled, for a model that computes in float16.
        mesh: the devices, in a row, that a batch is split over: each computes its part's share of L
            and of the gradient, which are then added up, and all make the same update. None is the
            default one. What a part draws is from a key of its own; moments of batch normalisation
            are of all parts, and so are the outputs that a batchwise loss is given.
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
    mesh: Mesh | None = None
    keeps_last_finite: ClassVar[bool] = True

    def init(self, key: Array, batch: Batch) -> TrainState:
        params, state = self.model.init(fold_in_name(key, "init"), batch.inputs)
        return self.start(key, params, state)

    def start(self, key: Array, params: Params, state: State) -> TrainState:
        """The first state for parameters that are given."""
        average = None if self.average is None else params
        step = jnp.zeros((), jnp.int32)
        optimizer_state = self.optimizer.init(params)
        if self.loss_scaling is not None:
            optimizer_state = self.loss_scaling.init(optimizer_state)
        return TrainState(
            step,
            params,
            state,
            optimizer_state,
            step_key(key),
            average,
            estimate=estimated(optimizer_state),
        )

    def evaluation(self) -> EvaluationStep:
        return Evaluation(self.model, self.loss, self.metrics, self.mesh)

    def on_one_device(self) -> "Supervised":
        return dataclasses.replace(self, mesh=None)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        (loss, gradients, new, sums), gathered = in_parts(self.mesh, self._part, state, batch)
        # A scaled loss lets gradients overflow now and then, and leaves such updates out by itself.
        finite = are_finite(loss, gradients if self.loss_scaling is None else ())

        def update() -> TrainState:
            loss_of = self._loss_of(state, batch)
            params, optimizer_state = self._updated(state, gradients, loss, loss_of)
            average = self._averaged(state.average, params)
            estimate = estimated(state.optimizer_state)
            step = state.step + 1
            return TrainState(
                step, params, new, optimizer_state, state.key, average, estimate=estimate
            )

        return apply_if(finite, update, state), Measured(sums, gathered, finite)

    def _part(
        self, state: TrainState, batch: Batch, across: str | None
    ) -> tuple[_Found, dict[str, Any]]:
        """What a part of the batch adds to the update, added up over all, and the rows that metrics
        gather of it.
        """
        mode = own_draws(Train(state.key, batch.mask, across).fold_in(state.step), across)
        if self.augment is not None:
            inputs, targets = self.augment(
                mode.for_part("augment").key, batch.inputs, batch.targets
            )
            batch = batch._replace(inputs=inputs, targets=targets)
        weights = batch.example_weights()
        counted = loss_weights(
            self.loss,
            lambda: self.model.apply(state.params, state.state, batch.inputs, mode)[0],
            batch.targets,
            weights,
        )
        shares, total = in_shares(self._with_class_weights(counted, batch.targets), across)
        loss, outputs, new, gradients = self._gradients(state, batch, shares, mode)
        measured = measure(self.metrics, outputs, batch.targets, weights)
        loss, gradients, sums = added_up((loss, gradients, measured.sums), across)
        return _Found(
            loss, gradients, new, {"loss": (loss * total, total), **sums}
        ), measured.gathered

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        outputs, _ = jax.eval_shape(self.model.apply, state.params, state.state, batch.inputs)
        return (("loss", self.loss, outputs, batch.targets),) if self.augment is None else ()

    def finite(self, measured: Measured) -> Array:
        assert measured.finite is not None
        return measured.finite

    def observe(self, state: TrainState) -> dict[str, Array]:
        if self.loss_scaling is None:
            return {
                "learning_rate": current_rate(
                    self.optimizer, state.optimizer_state, state.estimate
                )
            }
        inner, scale, _, skipped = state.optimizer_state
        rate = current_rate(self.optimizer, inner, state.estimate)
        return {"learning_rate": rate, "loss_scale": scale, "skipped_steps": skipped}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return report(self.metrics, sums, gathered)

    def _updated(
        self,
        state: TrainState,
        gradients: Params,
        loss: Array,
        loss_of: Callable[[Params], Array],
    ) -> tuple[Params, Any]:
        """The parameters and the optimizer's state one update on."""
        if self.loss_scaling is None:
            return updated(
                self.optimizer, gradients, state.optimizer_state, state.params, loss, loss_of
            )

        def update(gradients: Params, optimizer_state: Any) -> tuple[Params, Any]:
            return updated(
                self.optimizer, gradients, optimizer_state, state.params, loss, loss_of
            )

        return self.loss_scaling.updated(update, gradients, state.optimizer_state, state.params)

    def _loss_of(self, state: TrainState, batch: Batch) -> Callable[[Params], Array]:
        """L of other parameters, with the draws of this step; its derivative is the gradient that
        the step takes.
        """

        def found(params: Params) -> tuple[Array, Params]:
            (loss, gradients, *_), _ = in_parts(
                self.mesh, self._part, state._replace(params=params), batch
            )
            if self.loss_scaling is None:
                return loss, gradients
            return loss, jax.tree.map(
                lambda g: g / state.optimizer_state.scale.astype(g.dtype), gradients
            )

        loss_of = jax.custom_vjp(lambda params: found(params)[0])
        loss_of.defvjp(
            found,
            lambda gradients, slope: (
                jax.tree.map(lambda g: g * jnp.asarray(slope, g.dtype), gradients),
            ),
        )
        return loss_of

    def report_members(
        self, sums: dict[str, Any], gathered: dict[str, Any], count: int
    ) -> dict[str, Any]:
        return report_members(self.metrics, sums, gathered, count)

    def _with_class_weights(self, weights: Array, targets: Any) -> Array:
        if self.class_weights is None:
            return weights
        return weights * class_weights_of(self.class_weights, targets)

    def _averaged(self, average: Params | None, params: Params) -> Params | None:
        if self.average is None or average is None:
            return None
        moved: Any = optax.incremental_update(params, average, 1 - self.average)
        return moved

    def _gradients(
        self, state: TrainState, batch: Batch, shares: Array, mode: Train
    ) -> tuple[Array, Any, State, Params]:
        """The loss, the outputs, the model's next state, and dL/dparams, times the scale of the
        loss where it is scaled.
        """

        def objective(
            params: Params, model_state: State, batch: Batch, shares: Array, mode: Train
        ) -> Any:
            outputs, new = self.model.apply(params, model_state, batch.inputs, mode)
            loss = self._loss(outputs, batch, shares, mode.across)
            return self._scaled(loss, state), (loss, outputs, new)

        gradient = jax.value_and_grad(objective, has_aux=True)
        if self.accumulate == 1:
            (_, (loss, outputs, new)), gradients = gradient(
                state.params, state.state, batch, shares, mode
            )
            return loss, outputs, new, gradients

        if is_batchwise(self.loss):
            return self._in_two_passes(state, batch, shares, mode)

        def part(carry: Any, xs: Any) -> Any:
            model_state, gradients = carry
            index, batch, shares = xs
            own = mode.fold_in(index).with_mask(batch.mask)
            (_, (loss, outputs, new)), more = gradient(
                state.params, model_state, batch, shares, own
            )
            return (new, added(gradients, more)), (loss, outputs)

        split = jax.tree.map(
            lambda leaf: leaf.reshape(self.accumulate, -1, *leaf.shape[1:]), (batch, shares)
        )
        first = (state.state, blank(state.params))
        indices = jnp.arange(self.accumulate, dtype=jnp.int32)
        (new, gradients), (losses, outputs) = lax.scan(part, first, (indices, *split))
        outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
        return losses.sum(), outputs, new, as_of(state.params, gradients)

    def _in_two_passes(
        self, state: TrainState, batch: Batch, shares: Array, mode: Train
    ) -> tuple[Array, Any, State, Params]:
        def objective(outputs: Any) -> tuple[Array, Array]:
            loss = self._loss(outputs, batch, shares, mode.across)
            return self._scaled(loss, state), loss

        return in_two_passes(
            self.model.apply, objective, state.params, state.state, batch, mode, self.accumulate
        )

    def _loss(self, outputs: Any, batch: Batch, shares: Array, across: str | None) -> Array:
        """What the part's rows add to L."""
        with jax.named_scope("loss"):
            if not is_batchwise(self.loss):
                return loss_sum(self.loss, outputs, batch.targets, shares)
            weights = self._with_class_weights(batch.example_weights(), batch.targets)
            weighted = batch.weights is not None or self.class_weights is not None
            return batch_loss(self.loss, outputs, batch, weights, weighted, across)

    def _scaled(self, loss: Array, state: TrainState) -> Array:
        return (
            loss
            if self.loss_scaling is None
            else loss * state.optimizer_state.scale.astype(loss.dtype)
        )
