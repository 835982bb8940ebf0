"""`GradientStep`: an update by the gradient of what a batch costs, whatever that is."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh

from jaxdl.core.layer import Params, State
from jaxdl.core.mode import Train
from jaxdl.data.source import Batch
from jaxdl.optim.learning_rate import estimated
from jaxdl.training.arguments import check_figures
from jaxdl.training.auxiliary import Losses, added_losses, taken_out
from jaxdl.training.finite import apply_if, are_finite
from jaxdl.training.scaling import LossScaling
from jaxdl.training.spread import added_up, in_parts, own_draws
from jaxdl.training.state import Measured, TrainState, distinct_arrays, step_key
from jaxdl.training.step import TrainingStep
from jaxdl.training.steps.batchwise import added, as_of, blank
from jaxdl.training.update import current_rate, in_shares, updated


class Objected(NamedTuple):
    """What a part of a batch adds to the objective.

    Args:
        loss: its share of L; the shares of all parts add up to L.
        rows: trees of arrays [batch, ...], for what is measured of the whole batch.
        sums: trees of arrays, added up over the parts.
        state: the model's next.
    """

    loss: Array
    rows: Any
    sums: dict[str, Any]
    state: State


class Found(NamedTuple):
    """What the gradient of a batch comes with.

    Args:
        loss: L, with the auxiliary losses.
        gradients: dL/dparams.
        state: the model's next.
        sums: of the batch.
    """

    loss: Array
    gradients: Params
    state: State
    sums: dict[str, Any]


class GradientStep(TrainingStep):
    """One update by the gradient of L = Σᵢ wᵢ lᵢ / Σᵢ wᵢ, and of what layers add to it.

    A subclass is a frozen dataclass with the fields below, and says what a part of a batch costs.

    Args:
        optimizer: of optax.
        accumulate: the number of equal parts that a batch is computed in, one after another.
        average: the decay of an exponential moving average of the parameters, or None.
        loss_scaling: how the loss is scaled, for a model that computes in float16, or None.
        mesh: the devices, in a row, that a batch is split over, or None.
    """

    optimizer: optax.GradientTransformation
    accumulate: int
    average: float | None
    loss_scaling: LossScaling | None
    mesh: Mesh | None
    keeps_last_finite: ClassVar[bool] = True

    @abc.abstractmethod
    def objective(
        self, params: Params, state: State, batch: Batch, shares: Array, mode: Train
    ) -> Objected:
        """What a part of a batch adds to L.

        Args:
            params, state: the model's.
            batch: the part.
            shares: [batch], wᵢ / Σⱼ wⱼ over the whole batch.
            mode: with the part's mask and key.
        """

    def prepared(self, batch: Batch, mode: Train) -> Batch:
        """The batch as the objective is given it."""
        del mode
        return batch

    def loss_weights(self, state: TrainState, batch: Batch, mode: Train) -> Array:
        """wᵢ: [batch], or [batch, time] where positions weigh."""
        del state, mode
        return batch.example_weights()

    def measured(self, rows: Any, batch: Batch) -> Measured:
        """What is measured of the rows of a batch."""
        del rows, batch
        return Measured({}, {})

    def start(self, key: Array, params: Params, state: State) -> TrainState:
        """The first state for parameters that are given."""
        average = None if self.average is None else params
        step = jnp.zeros((), jnp.int32)
        optimizer_state = self.optimizer.init(params)
        if self.loss_scaling is not None:
            optimizer_state = self.loss_scaling.init(optimizer_state)
        first = TrainState(
            step,
            params,
            state,
            optimizer_state,
            step_key(key),
            average,
            estimate=estimated(optimizer_state),
        )
        return distinct_arrays(first)

    def on_one_device(self) -> "GradientStep":
        return dataclasses.replace(self, mesh=None)  # pyright: ignore[reportArgumentType]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        (loss, gradients, new, sums), gathered = self._in_parts(state, batch)
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

    def _in_parts(self, state: TrainState, batch: Batch) -> tuple[Found, dict[str, Any]]:
        found: Any = in_parts(self.mesh, self._part, state, batch)
        return found

    def _part(
        self, state: TrainState, batch: Batch, across: str | None
    ) -> tuple[Found, dict[str, Any]]:
        """What a part of the batch adds to the update, added up over all, and the rows that metrics
        gather of it.
        """
        mode = own_draws(Train(state.key, batch.mask, across).fold_in(state.step), across)
        batch = self.prepared(batch, mode)
        shares, total = in_shares(self.loss_weights(state, batch, mode), across)
        objected, losses, gradients = self.gradients(state, batch, shares, mode)
        measured = self.measured(objected.rows, batch)
        sums = objected.sums | measured.sums
        loss, gradients, sums, losses = added_up(
            (objected.loss, gradients, sums, losses), across
        )
        figures = {"loss": (loss * total, total), **sums}
        if losses:
            check_figures("losses of layers", losses, figures)
            figures["losses"] = {name: (value * total, total) for name, value in losses.items()}
        return Found(loss, gradients, objected.state, figures), measured.gathered

    def gradients(
        self, state: TrainState, batch: Batch, shares: Array, mode: Train
    ) -> tuple[Objected, Losses, Params]:
        """What the batch adds to L, the auxiliary losses in it by name, and dL/dparams, times the
        scale of the loss where it is scaled.
        """

        def objective(
            params: Params, model_state: State, batch: Batch, shares: Array, mode: Train
        ) -> tuple[Array, tuple[Objected, Losses]]:
            objected = self.objective(params, model_state, batch, shares, mode)
            new, each = taken_out(objected.state, model_state)
            losses = added_losses(each, shares)
            loss = sum(losses.values(), start=objected.loss)
            return self.scaled(loss, state), (objected._replace(loss=loss, state=new), losses)

        gradient = jax.value_and_grad(objective, has_aux=True)
        if self.accumulate == 1:
            (_, (objected, losses)), gradients = gradient(
                state.params, state.state, batch, shares, mode
            )
            return objected, losses, gradients

        def part(carry: Any, xs: Any) -> Any:
            model_state, gradients = carry
            index, batch, shares = xs
            own = mode.fold_in(index).with_mask(batch.mask)
            (_, (objected, losses)), more = gradient(
                state.params, model_state, batch, shares, own
            )
            each = (objected.loss, objected.rows, objected.sums, losses)
            return (objected.state, added(gradients, more)), each

        split = jax.tree.map(
            lambda leaf: leaf.reshape(self.accumulate, -1, *leaf.shape[1:]), (batch, shares)
        )
        first = (state.state, blank(state.params))
        indices = jnp.arange(self.accumulate, dtype=jnp.int32)
        (new, gradients), (loss, rows, sums, losses) = lax.scan(part, first, (indices, *split))
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
        loss, sums, losses = jax.tree.map(lambda leaf: leaf.sum(0), (loss, sums, losses))
        return Objected(loss, rows, sums, new), losses, as_of(state.params, gradients)

    def scaled(self, loss: Array, state: TrainState) -> Array:
        """The loss as it is differentiated."""
        if self.loss_scaling is None:
            return loss
        return loss * state.optimizer_state.scale.astype(loss.dtype)

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
            (loss, gradients, *_), _ = self._in_parts(state._replace(params=params), batch)
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

    def _averaged(self, average: Params | None, params: Params) -> Params | None:
        if self.average is None or average is None:
            return None
        moved: Any = optax.incremental_update(params, average, 1 - self.average)
        return moved
