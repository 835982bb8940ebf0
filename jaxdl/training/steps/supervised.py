"""`Supervised`: the step by the gradient of a model's loss; what evaluates and predicts with it."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from jax import Array
from jax.sharding import Mesh

from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.mode import Eval, Train
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.by_position import loss_sum, loss_weights
from jaxdl.metrics.metric import Metric
from jaxdl.training.auxiliary import Losses, taken_out
from jaxdl.training.class_weights import class_weights_of
from jaxdl.training.scaling import LossScaling
from jaxdl.training.spread import added_up, in_parts
from jaxdl.training.state import EvalState, Measured, TrainState
from jaxdl.training.step import EvaluationStep, PerExample
from jaxdl.training.steps.batchwise import batch_loss, in_two_passes
from jaxdl.training.steps.gradient import GradientStep, Objected
from jaxdl.training.update import (
    Augment,
    measure,
    report,
    report_members,
)


class EvaluationInParts(EvaluationStep):
    """An evaluation whose batches are split over devices, where it has a mesh."""

    mesh: Mesh | None

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        return Measured(*in_parts(self.mesh, self.part, state, batch))

    @abc.abstractmethod
    def part(
        self, state: EvalState, batch: Batch, across: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The sums of a batch, of which `batch` is a part, and the rows gathered of the part."""


@dataclasses.dataclass(frozen=True)
class Evaluation(EvaluationInParts):
    """Measures the loss and the metrics of a model in evaluation."""

    model: Layer
    loss: Callable[[Any, Any], Array] | None
    metrics: tuple[tuple[str, Metric], ...]
    mesh: Mesh | None = None

    def part(
        self, state: EvalState, batch: Batch, across: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        outputs, _ = self.model.apply(state.params, state.state, batch.inputs, Eval())
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
class Prediction(EvaluationInParts):
    """Gathers the outputs of a model in evaluation."""

    model: Layer
    mesh: Mesh | None = None

    def part(
        self, state: EvalState, batch: Batch, across: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        del across
        outputs, _ = self.model.apply(state.params, state.state, batch.inputs, Eval())
        return {}, {"outputs": outputs}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del sums
        return gathered


@dataclasses.dataclass(frozen=True)
class Supervised(GradientStep):
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

    def init(self, key: Array, batch: Batch) -> TrainState:
        params, state = self.model.init(fold_in_name(key, "init"), batch.inputs)
        return self.start(key, params, state)

    def evaluation(self) -> EvaluationStep:
        return Evaluation(self.model, self.loss, self.metrics, self.mesh)

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        outputs, _ = jax.eval_shape(self.model.apply, state.params, state.state, batch.inputs)
        return (("loss", self.loss, outputs, batch.targets),) if self.augment is None else ()

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return report(self.metrics, sums, gathered)

    def report_members(
        self, sums: dict[str, Any], gathered: dict[str, Any], count: int
    ) -> dict[str, Any]:
        return report_members(self.metrics, sums, gathered, count)

    def prepared(self, batch: Batch, mode: Train) -> Batch:
        """The batch, augmented."""
        if self.augment is None:
            return batch
        key = mode.for_part("augment").key
        inputs, targets = self.augment(key, batch.inputs, batch.targets)
        return batch._replace(inputs=inputs, targets=targets)

    def loss_weights(self, state: TrainState, batch: Batch, mode: Train) -> Array:
        """[batch], the weights of the examples, or [batch, time], of positions, times those of
        their classes.
        """
        counted = loss_weights(
            self.loss,
            lambda: self.model.apply(state.params, state.state, batch.inputs, mode)[0],
            batch.targets,
            batch.example_weights(),
        )
        return self._with_class_weights(counted, batch.targets)

    def _with_class_weights(self, weights: Array, targets: Any) -> Array:
        if self.class_weights is None:
            return weights
        return weights * class_weights_of(self.class_weights, targets)

    def measured(self, rows: Any, batch: Batch) -> Measured:
        """The metrics of outputs."""
        return measure(self.metrics, rows, batch.targets, batch.example_weights())

    def objective(
        self, params: Params, state: State, batch: Batch, shares: Array, mode: Train
    ) -> Objected:
        """The loss of the model's outputs, which are its rows."""
        outputs, new = self.model.apply(params, state, batch.inputs, mode)
        return Objected(self._loss(outputs, batch, shares, mode.across), outputs, {}, new)

    def gradients(
        self, state: TrainState, batch: Batch, shares: Array, mode: Train
    ) -> tuple[Objected, Losses, Params]:
        """As of any objective; of a loss that mixes examples, in parts, by two passes."""
        if self.accumulate == 1 or not is_batchwise(self.loss):
            return super().gradients(state, batch, shares, mode)

        def objective(outputs: Any) -> tuple[Array, Array]:
            loss = self._loss(outputs, batch, shares, mode.across)
            return self.scaled(loss, state), loss

        loss, outputs, new, gradients = in_two_passes(
            self._without_losses,
            objective,
            state.params,
            state.state,
            batch,
            mode,
            self.accumulate,
        )
        return Objected(loss, outputs, {}, new), {}, gradients

    def _without_losses(
        self, params: Params, state: State, inputs: Any, mode: Train
    ) -> tuple[Any, State]:
        outputs, new = self.model.apply(params, state, inputs, mode)
        new, losses = taken_out(new, state)
        if losses:
            raise ValueError(
                f"accumulate: layers of the model add losses ({', '.join(losses)}), and a "
                f"batchwise loss in parts has no place for them — leave out accumulate."
            )
        return outputs, new

    def _loss(self, outputs: Any, batch: Batch, shares: Array, across: str | None) -> Array:
        """What the part's rows add to L."""
        with jax.named_scope("loss"):
            if not is_batchwise(self.loss):
                return loss_sum(self.loss, outputs, batch.targets, shares)
            weights = self._with_class_weights(batch.example_weights(), batch.targets)
            weighted = batch.weights is not None or self.class_weights is not None
            return batch_loss(self.loss, outputs, batch, weights, weighted, across)
