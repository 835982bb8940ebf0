"""Training that goes on where numbers are not finite."""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.checkpoint.describe import Description
from jaxdl.data.source import Batch
from jaxdl.training.finite import select
from jaxdl.training.state import EvalState, Guard, Measured, TrainState
from jaxdl.training.step import EvaluationStep, TrainingStep

IfNotFinite = Literal["stop", "skip", "rollback"]
MOST_IN_A_ROW = 100
"""After how many steps, one after another, of which none was finite a run ends all the same."""


@dataclasses.dataclass(frozen=True)
class Guarded(TrainingStep):
    """A training step that leaves out what is not finite: the loss, the parameters after an update,
    or the optimizer's state.

    With "skip" such an update is not made; its batch does not count in the epoch's figures, and the
    history has the `skipped_steps` so far. With "rollback" the state of at least `every` updates
    ago comes back, and updates from there on are
    half as long: params ← params + s Δ, s ← s / 2; the history has the `rollbacks` so far, and its
    `learning_rate` is s times the optimizer's, of the last update that was finite. Both go on with
    the next batch and the next key. After 100 such steps in a row the run ends.

    Args:
        step: what is done with each batch.
        rule: "skip" or "rollback".
        every: after how many updates the state is kept, for "rollback"; the last two such states
            are in memory.
    """

    step: TrainingStep
    rule: IfNotFinite
    every: int = 100
    keeps_last_finite: ClassVar[bool] = True

    @property
    def model(self) -> Any:
        """What is trained."""
        return getattr(self.step, "model", self.step)

    def described(self) -> dict[str, Description]:
        return self.step.described() | {"if_not_finite": self.rule}

    def init(self, key: Array, batch: Batch) -> TrainState:
        return self.begin(self.step.init(key, batch))

    def begin(self, state: TrainState) -> TrainState:
        """The first state, from the step's own."""
        zero = jnp.zeros((), jnp.int32)
        if self.rule == "skip":
            return state._replace(guard=Guard(zero, zero))
        kept = _of(state)
        rates = {
            name: jnp.zeros((), jnp.float32)
            for name in _rates(jax.eval_shape(self.step.observe, state))
        }
        return state._replace(
            guard=Guard(zero, zero, jnp.ones((), jnp.float32), zero, (kept, kept), rates)
        )

    def check(self, name: str, batch: Batch) -> None:
        self.step.check(name, batch)

    def evaluation(self) -> EvaluationStep:
        return self.step.evaluation()

    def evaluation_state(self, state: TrainState) -> EvalState:
        return self.step.evaluation_state(state._replace(guard=None))

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        guard = state.guard
        before = state._replace(guard=None)
        assert guard is not None
        after, measured = self.step(before, batch)
        after = after._replace(
            step=before.step + 1
        )  # the next key, also behind a skipped update
        if guard.scale is not None:
            after = after._replace(params=_shortened(guard.scale, before.params, after.params))
        good = self.step.finite(measured) & _still_finite(_of(before), _of(after))
        if guard.scale is not None:
            used = {
                name: rate * guard.scale
                for name, rate in _rates(self.step.observe(after)).items()
            }
            guard = guard._replace(
                rates=jax.tree.map(
                    lambda new, old: jnp.where(good, new, old), used, guard.rates
                )
            )
        guard = self._counted(guard, good)
        if guard.kept is None:
            kept = jax.tree.map(
                lambda new, old: jnp.where(good, new, old), _of(after), _of(before)
            )
        else:
            kept = jax.tree.map(
                lambda new, old: jnp.where(good, new, old), _of(after), guard.kept[0]
            )
            guard = self._kept(guard, kept)
        measured = select(good, measured, jax.tree.map(jnp.zeros_like, measured))
        sums = {"step": measured.sums, "in_a_row": guard.in_a_row.astype(jnp.float32)}
        after = _with(after, kept)._replace(guard=guard)
        return after, Measured(sums, measured.gathered)

    def finite(self, measured: Measured) -> Array:
        return measured.sums["in_a_row"] < MOST_IN_A_ROW

    def observe(self, state: TrainState) -> dict[str, Array]:
        guard = state.guard
        observed = self.step.observe(state._replace(guard=None))
        assert guard is not None
        if guard.scale is None:
            return observed | {
                "skipped_steps": guard.skipped
                + observed.get("skipped_steps", jnp.zeros((), jnp.int32))
            }
        return observed | (guard.rates or {}) | {"rollbacks": guard.skipped}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self.step.report(sums["step"], gathered)

    def _counted(self, guard: Guard, good: Array) -> Guard:
        counted = guard._replace(
            skipped=guard.skipped + (~good).astype(jnp.int32),
            in_a_row=jnp.where(good, 0, guard.in_a_row + 1),
        )
        if guard.scale is None or guard.made is None:
            return counted
        return counted._replace(
            scale=jnp.where(good, guard.scale, guard.scale / 2),
            made=jnp.where(good, guard.made + 1, 0),
        )

    def _kept(self, guard: Guard, state: Any) -> Guard:
        """Keeps the state where it is time: what was the newer one is then the older."""
        assert guard.made is not None
        older, newer = guard.kept
        due = guard.made == self.every
        back = guard.in_a_row > 0
        kept = lax.cond(
            due,
            lambda: (newer, state),
            lambda: (older, jax.tree.map(lambda o, n: jnp.where(back, o, n), older, newer)),
        )
        return guard._replace(kept=kept, made=jnp.where(due, 0, guard.made))


def _rates(observed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in observed.items() if name.endswith("learning_rate")}


def _of(state: TrainState) -> Any:
    return state.params, state.state, state.optimizer_state, state.average, state.estimate


def _with(state: TrainState, parts: Any) -> TrainState:
    names = ("params", "state", "optimizer_state", "average", "estimate")
    return state._replace(**dict(zip(names, parts, strict=True)))


def _shortened(scale: Array, before: Any, after: Any) -> Any:
    """before + scale · (after − before); after itself, to the bit, where the scale is 1."""
    return jax.tree.map(
        lambda old, new: jnp.where(
            scale == 1, new, old + scale.astype(old.dtype) * (new - old)
        ),
        before,
        after,
    )


def _still_finite(before: Any, after: Any) -> Array:
    """Whether every number that was finite is so still; some optimizers begin with an infinity."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    whole = [
        (jnp.isfinite(new) | ~jnp.isfinite(old)).all()
        for old, new in pairs
        if jnp.issubdtype(new.dtype, jnp.floating)
    ]
    return jnp.stack(whole).all() if whole else jnp.asarray(True)
