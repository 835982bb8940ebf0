"""Many models in one step: each with its own weights, batches, hyperparameters and end."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from jaxdl.checkpoint.describe import Description
from jaxdl.compiling.target import tracing_population
from jaxdl.core.layer import Params, State
from jaxdl.core.tree import strongly_typed
from jaxdl.data.source import Batch
from jaxdl.training.callbacks import copied
from jaxdl.training.cursor import EpochCarry
from jaxdl.training.feed import Chunk
from jaxdl.training.finite import is_finite, select
from jaxdl.training.history import Best
from jaxdl.training.iteration import Advance
from jaxdl.training.loop import Loop
from jaxdl.training.loop_state import Ends
from jaxdl.training.state import EvalState, Measured, TrainState
from jaxdl.training.step import EvaluationStep, Recipe, Updating

Hyperparameters = dict[str, Array]
FOREVER = np.int32(2**31 - 1)


class MembersState(NamedTuple):
    """The states of all members.

    Args:
        members: the step's state, each array with the members along one axis.
        hyperparameters: by name, [members].
        limit: [members], how many updates each may make; one that ended has made them.
    """

    members: TrainState
    hyperparameters: Hyperparameters
    limit: Int[Array, " members"]

    @property
    def ended(self) -> Array:
        """[members] bool."""
        return self.members.step >= self.limit


class MembersEvalState(NamedTuple):
    """What an evaluation of all members reads.

    Args:
        members: of all members, each array with them along one axis.
        hyperparameters: by name, [members].
        step: int32 scalar, the number of the batch in the pass, once there is a batch.
    """

    members: EvalState
    hyperparameters: Hyperparameters
    step: Array | None = None


@dataclasses.dataclass(frozen=True)
class OverMembers:
    """How members lie beside one another.

    Args:
        count: of the members.
        axis: where arrays have them: 0, or -1, where small arrays are better off: XLA computes
            along the last axis, many numbers at a time, and ten members of ten weights each are
            then a hundred numbers.
    """

    count: int
    axis: int

    def batch_axes(self, shared: bool) -> Any:
        """Where a batch has its members: nowhere, where all share it."""
        return None if shared else Batch(self.axis, self.axis, self.axis, None)


@dataclasses.dataclass(frozen=True)
class Members(Updating):
    """One update of every member that has not ended, each by the single step with its own
    hyperparameters.

    A member whose figures are not finite ends before that update; the others go on.

    Args:
        recipe: the single step.
        over: the axis of the members.
        shared: whether all get the same batches.
        shared_validation: whether all are evaluated on the same examples.
    """

    recipe: Recipe
    over: OverMembers
    shared: bool
    shared_validation: bool = True
    keeps_last_finite: ClassVar[bool] = True

    @property
    def model(self) -> Any:
        """What is trained."""
        return getattr(self.recipe, "model", self.recipe)

    def described(self) -> dict[str, Description]:
        return self.recipe.described()

    def start(
        self,
        keys: Key[Array, " members"],
        hyperparameters: Hyperparameters,
        batch: Batch,
    ) -> MembersState:
        """The first states: each member's is the single step's for its key."""

        def one(key: Array, values: Hyperparameters) -> TrainState:
            return strongly_typed(self.recipe(values).init(key, batch))

        members = jax.vmap(one, (0, 0), self.over.axis)(keys, hyperparameters)
        return MembersState(members, hyperparameters, jnp.full(self.over.count, FOREVER))

    def __call__(self, state: MembersState, batch: Batch) -> tuple[MembersState, Measured]:
        def one(member: TrainState, values: Hyperparameters, limit: Array, batch: Batch) -> Any:
            step = self.recipe(values)
            after, measured = step(member, batch)
            finite = step.finite(measured)
            going = member.step < limit
            kept = select(going & finite, after, member)
            limit = jnp.where(finite, limit, jnp.minimum(limit, member.step))
            sums = {"each": measured.sums, "made": (going & finite).astype(jnp.float32)}
            return kept, limit, (sums, measured.gathered)

        axis = self.over.axis
        batches = self.over.batch_axes(self.shared)
        mapped = jax.vmap(one, (axis, 0, 0, batches), (axis, 0, (0, 1)))
        with tracing_population():
            members, limit, (sums, gathered) = mapped(
                state.members, state.hyperparameters, state.limit, batch
            )
        return state._replace(members=members, limit=limit), Measured(sums, gathered)

    def finite(self, measured: Measured) -> Array:
        """Whether any member has made the step."""
        return jnp.any(measured.sums["made"] > 0)

    def observe(self, state: MembersState) -> dict[str, Array]:
        def one(member: TrainState, values: Hyperparameters) -> dict[str, Array]:
            return self.recipe(values).observe(member)

        return jax.vmap(one, (self.over.axis, 0), 0)(state.members, state.hyperparameters)

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        """Each figure of every member, [members, ...]."""
        return self.recipe.single.report_members(sums["each"], gathered, self.over.count)

    def evaluation(self) -> EvaluationStep:
        return MembersEvaluation(self.recipe, self.over, self.shared_validation)

    def result(self, state: MembersState) -> tuple[Params, State]:
        return eval_params(self.over, state.members), state.members.state

    def evaluation_state(self, state: MembersState) -> "MembersEvalState":
        members = EvalState(*self.result(state), state.members.key)
        return MembersEvalState(members, state.hyperparameters)


@dataclasses.dataclass(frozen=True)
class MembersEvaluation(EvaluationStep):
    """Measures every member by the single step's evaluation."""

    recipe: Recipe
    over: OverMembers
    shared: bool

    def __call__(self, state: Any, batch: Batch) -> Measured:
        """Measures one batch.

        Args:
            state: a `MembersEvalState`.
            batch: of each member, or shared by all.
        """

        def one(member: EvalState, values: Hyperparameters, batch: Batch) -> Any:
            measured = self.recipe(values).evaluation()(member._replace(step=state.step), batch)
            return measured.sums, measured.gathered

        batches = self.over.batch_axes(self.shared)
        mapped = jax.vmap(one, (self.over.axis, 0, batches), (0, 1))
        with tracing_population():
            sums, gathered = mapped(state.members, state.hyperparameters, batch)
        return Measured({"each": sums}, gathered)

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self.recipe.single.evaluation().report_members(
            sums["each"], gathered, self.over.count
        )


class MembersLoop(Loop):
    """The loop for a population: each member has its own best epoch, its own patience, and its own
    end.

    `position.best` holds [members] epochs and values, and parameters with the members along their
    axis.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.here.ends is None:
            self.here.ends = Ends.none(self.over.count)
            if self.saver is not None:
                self.stable = self.here.copy()

    def advanced(self, advance: Advance) -> None:
        """Notes which members have ended."""
        del advance
        state: MembersState = self.here.state
        made = np.asarray(jax.device_get(state.members.step))
        for k in np.flatnonzero(np.asarray(jax.device_get(state.ended))):
            if not self.ends.stopped[k]:
                self.ends.stopped[k] = self._why_ended(int(k), int(made[k]))

    def _why_ended(self, member: int, made: int) -> str:
        state: MembersState = self.here.state
        why = f"the loss or a gradient was not finite at step {made + 1}; "
        axis = self.over.axis
        own = jax.tree.map(
            lambda leaf: np.take(np.asarray(leaf), member, axis),
            (state.members.params, state.members.state),
        )
        if is_finite(own):
            return (
                why + f"params and state are those after step {made}, the last that are finite"
            )
        return why + f"the update of step {made} had overflowed inside the optimizer"

    def watch(self, row: int, metrics: dict[str, Any]) -> str | None:
        here = self.here
        rule = self.monitored
        whole = np.asarray(here.metrics.sums["made"]) == here.metrics.steps
        self.ends.epochs[whole] = row + 1
        for name, value in metrics.items():
            here.history[name][-1] = self._of(whole, name, value)
        if rule is not None and (
            self.options.early_stopping is not None or rule.monitor in metrics
        ):
            self._keep_best(row, np.asarray(metrics[rule.monitor], np.float64), whole)
            if self.options.early_stopping is not None:
                self._end_patience(row, whole)
        return None if not np.asarray(here.state.ended).all() else "every member has ended"

    def headline(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The median over the members."""
        shown = {name: value for name, value in metrics.items() if np.ndim(value) <= 1}
        return {
            name: float(np.nanmedian(value))
            for name, value in shown.items()
            if not np.all(np.isnan(value))
        }

    def not_finite(self, chunk: Chunk, carry: EpochCarry) -> str:
        del chunk, carry
        return "every member has ended"

    def _checked(self, stopped: str) -> str:
        """Members whose last update overflowed say so by themselves."""
        return stopped

    @property
    def over(self) -> OverMembers:
        step: Any = self.step
        return step.over

    @property
    def ends(self) -> Ends:
        """How far each member is."""
        assert self.here.ends is not None
        return self.here.ends

    def _of(self, whole: Bool[np.ndarray, " members"], name: str, value: Any) -> np.ndarray:
        """A figure of an epoch, NaN for members that had ended; of the seconds, each member has its
        share.
        """
        if name == "seconds":
            value = np.full(self.over.count, value / self.over.count)
        value = np.asarray(value, np.float64) if np.ndim(value) == 1 else np.asarray(value)
        if not np.issubdtype(value.dtype, np.floating):
            value = value.astype(np.float64)
        return np.where(whole.reshape(-1, *[1] * (value.ndim - 1)), value, np.nan)

    def _keep_best(
        self,
        epoch: int,
        values: Float[np.ndarray, " members"],
        whole: Bool[np.ndarray, " members"],
    ) -> None:
        here = self.here
        rule = self.monitored
        assert rule is not None
        if here.best is None:
            epochs = np.full(self.over.count, -1)
            nothing = np.full(self.over.count, np.nan)
            here.best = _best(epochs, nothing, *copied(self.step.result(here.state)))
        old: Any = here.best
        pairs = zip(values.tolist(), np.asarray(old.value).tolist(), strict=True)
        better = whole & np.array(
            [rule.better(value, None if np.isnan(best) else best) for value, best in pairs]
        )
        if better.any():
            chosen = jnp.asarray(better)
            new = self.step.result(here.state)
            params, model_state = _chosen(self.over.axis, chosen, new, (old.params, old.state))
            epochs = np.where(better, epoch, old.epoch)
            best = np.where(better, values, old.value)
            here.best = _best(epochs, best, params, model_state)

    def _end_patience(self, epoch: int, whole: Bool[np.ndarray, " members"]) -> None:
        here = self.here
        rule = self.options.early_stopping
        assert rule is not None
        assert here.best is not None
        since = epoch - np.asarray(here.best.epoch)
        ending = whole & (since >= rule.epochs)
        for k in np.flatnonzero(ending):
            self.ends.stopped[k] = (
                f"early stopping: {rule.monitor} has not become better for {since[k]} epochs"
            )
        made = np.asarray(here.state.members.step)
        limit = np.where(ending, made, np.asarray(here.state.limit))
        here.state = here.state._replace(limit=jnp.asarray(limit, jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def eval_params(over: OverMembers, members: TrainState) -> Any:
    """The parameters to evaluate each member with."""
    return jax.vmap(lambda member: member.eval_params, over.axis, over.axis)(members)


def _best(epochs: Any, values: Any, params: Any, state: Any) -> Best:
    """The best of each member: arrays where a single run has numbers."""
    return Best(epochs, values, params, state)


@functools.partial(jax.jit, static_argnums=0)
def _chosen(axis: int, chosen: Array, new: Any, old: Any) -> Any:
    def one(taken: Array, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, old)

    return jax.vmap(one, (0, axis, axis), axis)(chosen, new, old)
