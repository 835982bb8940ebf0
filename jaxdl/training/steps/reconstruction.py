"""Autoencoders: a model learns to give back its input, whole or corrupted."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Layer
from jaxdl.data.source import Batch
from jaxdl.losses.per_example import format_shapes
from jaxdl.ops.floating import as_floating
from jaxdl.training.arguments import check_function
from jaxdl.training.checks import check_optimizer
from jaxdl.training.data_checks import check_as_targets, check_intensities
from jaxdl.training.state import EvalState, Measured, TrainState
from jaxdl.training.step import EvaluationStep, PerExample, TrainingStep
from jaxdl.training.steps.supervised import Evaluation, Supervised

Corrupt = Callable[[Array, Any], Any]


@dataclasses.dataclass(frozen=True)
class Reconstruction(TrainingStep):
    """One update by the gradient of L = Σᵢ wᵢ loss(f(corrupt(xᵢ)), xᵢ) / Σᵢ wᵢ: training whose
    targets are the inputs.

    Images in uint8 are read as x / 255 before they are corrupted and compared. Evaluation measures
    the same loss: without dropout, but with the corruption, drawn from the run's key alike after
    each epoch. Targets that the data have are not read.

    Source: Vincent et al., *Extracting and composing robust features with denoising autoencoders*
    (2008).

    Args:
        model: f, whose outputs have the shape of its inputs.
        loss: `loss(outputs, inputs) -> [batch]`, or a `losses.batchwise` one; with
            `losses.binary_cross_entropy` outputs are logits.
        optimizer: of optax.
        corrupt: `corrupt(key, x) -> x`, of a whole batch, such as added noise; None leaves inputs
            as they are.
    """

    model: Layer
    loss: Callable[[Any, Any], Array]
    optimizer: optax.GradientTransformation
    corrupt: Corrupt | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_layer(self.model))
        check_optimizer(self.optimizer)
        check_function("Reconstruction: loss", self.loss, "loss(outputs, inputs) -> [batch]")
        if self.corrupt is not None:
            check_function("Reconstruction: corrupt", self.corrupt, "corrupt(key, x) -> x")

    @property
    def _supervised(self) -> Supervised:
        return Supervised(self.model, self.loss, self.optimizer)

    def check(self, name: str, batch: Batch) -> None:
        check_intensities(name, batch.inputs)
        for leaf in jax.tree.leaves(batch.inputs):
            if leaf.dtype != np.uint8:
                check_as_targets(name, self.loss, leaf)

    def init(self, key: Array, batch: Batch) -> TrainState:
        inputs = jax.eval_shape(lambda x: jax.tree.map(as_floating, x), batch.inputs)
        return self._supervised.init(key, batch._replace(inputs=inputs))

    def evaluation(self) -> EvaluationStep:
        return ReconstructionEvaluation(self)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        key = fold_in_name(state.key, "corrupt")
        return self._supervised(state, self.pairs(jax.random.fold_in(key, state.step), batch))

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        x = jax.eval_shape(lambda x: jax.tree.map(as_floating, x), batch.inputs)
        outputs, _ = jax.eval_shape(self.model.apply, state.params, state.state, x)
        return (("loss", self.loss, outputs, x),)

    def finite(self, measured: Measured) -> Array:
        return self._supervised.finite(measured)

    def observe(self, state: TrainState) -> dict[str, Array]:
        return self._supervised.observe(state)

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self._supervised.report(sums, gathered)

    def pairs(self, key: Array, batch: Batch) -> Batch:
        """The batch with corrupted inputs, and the inputs themselves as targets."""
        x = jax.tree.map(as_floating, batch.inputs)
        if self.corrupt is None:
            return batch._replace(inputs=x, targets=x)
        corrupted = self.corrupt(key, x)
        if not jax.tree.leaves(corrupted) or any(
            jnp.shape(leaf)[:1] != (batch.size,) for leaf in jax.tree.leaves(corrupted)
        ):
            raise ValueError(
                f"corrupt returned {format_shapes(corrupted)} for {format_shapes(x)}: return as "
                "many examples as it is given."
            )
        return batch._replace(inputs=corrupted, targets=x)


@dataclasses.dataclass(frozen=True)
class ReconstructionEvaluation(EvaluationStep):
    """Measures the loss of a `Reconstruction` in evaluation."""

    of: Reconstruction

    @property
    def _evaluation(self) -> Evaluation:
        return Evaluation(self.of.model, self.of.loss, ())

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        return self._evaluation(state, self.of.pairs(state.batch_key(), batch))

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self._evaluation.report(sums, gathered)
