"""Members of a population that are trained together."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxdl.population.members import FOREVER, MembersLoop, MembersState
from jaxdl.training.history import Best, History
from jaxdl.training.loop import Loop


class Member(NamedTuple):
    """Who a member of a population is.

    Args:
        number: its place among all.
        seed: of its weights, orders and all else that is drawn.
        hyperparameters: by name.
    """

    number: int
    seed: int
    hyperparameters: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Members that are trained together, and how far they are.

    Args:
        members: who.
        state: theirs; None before the first step.
        axis: where arrays have them.
        history: a dict of lists, an entry [members, ...] each epoch.
        best: of each, [members], or None.
        stopped: why each ended, "" while it goes on.
        epochs: how many each has completed.
        epoch: the next.
        compile_seconds: of the program.
        interrupted: whether Ctrl-C ended it.
        made: how many steps were made of what no checkpoint held.
    """

    members: tuple[Member, ...]
    state: MembersState | None
    axis: int
    history: History
    best: Best | None
    stopped: tuple[str, ...]
    epochs: Int[np.ndarray, " members"]
    epoch: int = 0
    compile_seconds: float = 0.0
    interrupted: bool = False
    made: int = 0

    @staticmethod
    def unborn(members: tuple[Member, ...]) -> "Cohort":
        """Before the first step."""
        return Cohort(
            members, None, 0, {}, None, ("",) * len(members), np.zeros(len(members), np.int32)
        )

    @staticmethod
    def of_one(member: Member, loop: Loop, why: str, made: int) -> "Cohort":
        """A member that was trained as an ordinary run."""
        here = loop.here
        state, best = _as_one((here.state, here.best and (here.best.params, here.best.state)))
        figures: Any = here.best and (np.array([here.best.epoch]), np.array([here.best.value]))
        return Cohort(
            members=(member,),
            state=MembersState(state, {}, jnp.full(1, FOREVER)),
            axis=0,
            history={
                name: [np.asarray(value)[None] for value in values]
                for name, values in here.history.items()
            },
            best=Best(*figures, *best) if best else None,
            stopped=("" if why == "finished" else why,),
            epochs=np.array([len(here.history.get("seconds", ()))], np.int32),
            compile_seconds=loop.compile_seconds,
            interrupted=why == "interrupted",
            made=made,
        )

    @staticmethod
    def joined(cohorts: Sequence["Cohort"]) -> "Cohort":
        """Several as one."""
        first = cohorts[0]
        if len(cohorts) == 1:
            return first
        device = jax.local_devices()[0]
        states = [jax.device_put(cohort.state, device) for cohort in cohorts]
        return dataclasses.replace(
            first,
            members=tuple(member for cohort in cohorts for member in cohort.members),
            state=_concatenated(first.axis, states),
            best=_best_of(
                first.axis, [jax.device_put(cohort.best, device) for cohort in cohorts]
            ),
            history=beside(
                [cohort.history for cohort in cohorts], [len(cohort) for cohort in cohorts]
            ),
            stopped=tuple(why for cohort in cohorts for why in cohort.stopped),
            epochs=np.concatenate([cohort.epochs for cohort in cohorts]),
            compile_seconds=sum(cohort.compile_seconds for cohort in cohorts),
            interrupted=any(cohort.interrupted for cohort in cohorts),
            made=sum(cohort.made for cohort in cohorts),
        )

    def __len__(self) -> int:
        return len(self.members)

    def hyperparameters(self) -> dict[str, jax.Array]:
        """By name, [members]."""
        names = self.members[0].hyperparameters
        return {
            name: jnp.asarray([m.hyperparameters[name] for m in self.members], jnp.float32)
            for name in names
        }

    def of(self, rows: Int[np.ndarray, " rows"]) -> "Cohort":
        """Some of the members."""
        best = self.best
        if best is not None:
            figures: Any = (np.asarray(best.epoch)[rows], np.asarray(best.value)[rows])
            best = Best(*figures, *taken(self.axis, (best.params, best.state), rows))
        return dataclasses.replace(
            self,
            members=tuple(self.members[k] for k in rows),
            state=taken(self.axis, self.state, rows),
            best=best,
            history={
                name: [entry[rows] for entry in entries]
                for name, entries in self.history.items()
            },
            stopped=tuple(self.stopped[k] for k in rows),
            epochs=self.epochs[rows],
        )

    def after(self, loop: MembersLoop, until: int, why: str, made: int = 0) -> "Cohort":
        """What a loop has made of them."""
        here = loop.here
        return dataclasses.replace(
            self,
            state=here.state,
            axis=loop.over.axis,
            history=here.history,
            best=here.best,
            stopped=tuple(
                reason or ("interrupted" if why == "interrupted" else "")
                for reason in loop.ends.stopped
            ),
            epochs=loop.ends.epochs,
            epoch=until,
            compile_seconds=self.compile_seconds + loop.compile_seconds,
            interrupted=why == "interrupted",
            made=self.made + made,
        )

    def ended(self, reason: str) -> "Cohort":
        """The same, ended for that reason where they had not ended before."""
        return dataclasses.replace(self, stopped=tuple(why or reason for why in self.stopped))

    def last(self, name: str) -> np.ndarray:
        """Each member's figure of the last epoch it completed; NaN where it has none."""
        entries = self.history.get(name, [])
        return np.array(
            [
                entries[n - 1][k] if 0 < n <= len(entries) else np.nan
                for k, n in enumerate(self.epochs)
            ]
        )


_as_one = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf[None], tree))


def _taken_body(axis: int, tree: Any, rows: Any) -> Any:
    def take(leaf: Any) -> Any:
        if leaf.ndim == 1:
            return leaf[rows]
        return jnp.take(leaf, rows, axis=axis)

    return jax.tree.map(take, tree)


taken = jax.jit(_taken_body, static_argnums=0)


def _best_of(axis: int, parts: Sequence[Best | None]) -> Best | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    figures: Any = [np.concatenate([np.asarray(part[i]) for part in found]) for i in (0, 1)]
    return Best(*figures, *_concatenated(axis, [(part.params, part.state) for part in found]))


def _concatenated(axis: int, parts: Sequence[Any]) -> Any:
    return jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves, 0 if leaves[0].ndim == 1 else axis), *parts
    )


def beside(histories: Sequence[History], counts: Sequence[int]) -> History:
    """Histories of several cohorts as one: entries side by side, NaN where one of them has
    ended.
    """
    names = {name: None for history in histories for name in history}
    longest = max(
        (len(entries) for history in histories for entries in history.values()), default=0
    )

    def entry(
        history: History,
        count: int,
        name: str,
        epoch: int,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        entries = history.get(name, [])
        return (
            np.asarray(entries[epoch])
            if epoch < len(entries)
            else np.full((count, *shape), np.nan)
        )

    whole: History = {}
    for name in names:
        shape = next(
            np.shape(history[name][0])[1:] for history in histories if history.get(name)
        )
        whole[name] = [
            np.concatenate(
                [
                    entry(h, count, name, epoch, shape)
                    for h, count in zip(histories, counts, strict=True)
                ]
            )
            for epoch in range(longest)
        ]
    return whole
