"""What training a population gives back."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint.describe import describe
from jaxdl.compiling import threefry
from jaxdl.core.arrays import host_arrays
from jaxdl.core.layer import Layer
from jaxdl.core.table import Table
from jaxdl.data.source import Batch
from jaxdl.population.cohort import Cohort, Member, beside, taken
from jaxdl.population.evaluations import _Evaluating, _Predicting
from jaxdl.population.members import (
    MembersEvalState,
    MembersEvaluation,
    OverMembers,
    eval_params,
)
from jaxdl.training import checks, data_checks, sources
from jaxdl.training.feed import ResidentFeed, lists_read
from jaxdl.training.history import Best, EarlyStopping
from jaxdl.training.iteration import measure
from jaxdl.training.loss_terms import as_loss, with_terms
from jaxdl.training.options import Loss
from jaxdl.training.run import Run, trained_by
from jaxdl.training.state import EvalState
from jaxdl.training.step import Recipe

MOST_SHOWN = 20
"""How many members a population prints."""


class Ensemble(NamedTuple):
    """What the members of a population predict together.

    Args:
        mean: [examples, ...], over the members.
        spread: [examples, ...], their standard deviation.
        each: [members, examples, ...].
    """

    mean: jax.Array
    spread: jax.Array
    each: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """The outcome of `fit_many` and `sweep`: a sequence of ordinary runs, and what they say
    together.

    Args:
        members: who they are, in the order of the runs.
        cohorts: their results.
        recipe: the training step as a function of hyperparameters.
        monitor: the figure that tells better from worse, and whether "min" or "max" of it is best.
        early_stopping: as it was asked for.
    """

    members: tuple[Member, ...]
    cohorts: tuple[Cohort, ...]
    recipe: Recipe
    monitor: tuple[str, str]
    early_stopping: EarlyStopping | None

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Run]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Run:
        """Member i as an ordinary run; its `seconds` are its share of the population's."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} runs, asked for number {i}.")
        cohort, k = self._place(i % len(self))
        assert cohort.state is not None
        state = taken(cohort.axis, cohort.state.members, np.asarray(k))
        best = None
        if cohort.best is not None and int(np.asarray(cohort.best.epoch)[k]) >= 0:
            params, model_state = taken(
                cohort.axis, (cohort.best.params, cohort.best.state), np.asarray(k)
            )
            epochs = np.asarray(cohort.best.epoch)
            values = np.asarray(cohort.best.value)
            best = Best(int(epochs[k]), float(values[k]), params, model_state)
        params, model_state = (
            (best.params, best.state)
            if best and self._restores
            else (state.trained, state.state)
        )
        history = {
            name: [_plain(entry[k]) for entry in rows[: cohort.epochs[k]]]
            for name, rows in cohort.history.items()
        }
        stopped = cohort.stopped[k] or "finished"
        step = self.recipe(self.members[i].hyperparameters)
        return Run(
            params,
            model_state,
            history,
            best,
            state.average,
            state,
            stopped,
            cohort.compile_seconds,
            **trained_by(step),
            settings=step.described() | {"seed": describe(self.members[i].seed)},
        )

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Each figure as an array [epochs, members, ...], NaN after a member's end."""
        whole = beside(
            [cohort.history for cohort in self.cohorts],
            [len(cohort) for cohort in self.cohorts],
        )
        order = np.argsort(
            [member.number for cohort in self.cohorts for member in cohort.members]
        )
        return {name: np.stack(entries)[:, order] for name, entries in whole.items()}

    @property
    def scores(self) -> np.ndarray:
        """[members]: the monitored figure, of the best epoch where early stopping restores it, else
        of the last.
        """
        name, _ = self.monitor
        scores = np.full(len(self), np.nan)
        for cohort in self.cohorts:
            values = cohort.last(name)
            if self._restores and cohort.best is not None:
                values = np.asarray(cohort.best.value, np.float64)
            scores[[member.number for member in cohort.members]] = values
        return scores

    @property
    def ranking(self) -> np.ndarray:
        """The members' numbers, best first; those without a score come last."""
        scores = -self.scores if self.monitor[1] == "max" else self.scores
        return np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable")

    @property
    def best_member(self) -> Member:
        return self.members[int(self.ranking[0])]

    @property
    def best(self) -> Run:
        """The best member, as an ordinary run."""
        return self[int(self.ranking[0])]

    def model(self, i: int) -> Layer:
        """The model of member i."""
        return self.recipe(self.members[i].hyperparameters).model

    def predict(self, inputs: Any, *, batch_size: int = 256) -> Ensemble:
        """The members' outputs for all inputs in evaluation, their mean and standard deviation.

        Outputs are averaged as they are: where the model gives logits and probabilities are wanted,
            take those of `each`.

        Args:
            inputs: as in `predict`.
            batch_size: examples at a time, for each member.
        """
        batch = Batch(host_arrays("inputs", inputs), ())
        data_checks.check_lengths("inputs", batch, lists_read(inputs))
        feed = sources.resident(
            batch, checks.check_count("batch_size", batch_size), threefry.of_seed(0), False
        )
        figures = self._measured(_Predicting(self.recipe), feed)
        each = jax.tree.map(
            lambda rows: jnp.asarray(rows[:, : feed.source.size]), figures["outputs"]
        )
        mean, spread = (
            jax.tree.map(lambda rows, f=f: f(rows, axis=0), each) for f in (jnp.mean, jnp.std)
        )
        return Ensemble(mean, spread, each)

    def evaluate(
        self,
        data: Any,
        *,
        loss: Loss | None = None,
        metrics: Mapping[str, Any] | None = None,
        batch_size: int = 256,
    ) -> dict[str, np.ndarray]:
        """Each member's mean loss and metrics over data, by name: [members, ...].

        Args:
            data, loss, metrics, batch_size: as in `evaluate`.
        """
        function = as_loss(loss)
        lifted = with_terms(checks.check_metrics(metrics), function)
        count = checks.check_count("batch_size", batch_size)
        feed = sources.as_feed("data", data, batch_size=count, key=threefry.of_seed(0))
        recipe = _Evaluating(self.recipe, function, lifted)
        checks.check_fit("data", recipe.single.step, self._shapes_of_one(), feed, feed.example)
        return self._measured(recipe, feed)

    def __str__(self) -> str:
        return f"{self._title()}\n\n{self._summary().text(MOST_SHOWN)}"

    def __repr__(self) -> str:
        name, _ = self.monitor
        return (
            f"Runs({len(self)}, best {name}={self.scores[self.ranking[0]]:.4g} by "
            f"{self.best_member})"
        )

    def table(self, most: int | None = None) -> Table:
        """A row for each member, the best first: its number, seed and hyperparameters; the `score`
        that it is ranked by; the figures of its last epoch, but for those that are called as a
        hyperparameter; the best epoch, from 1, and its figure, where they are kept; how many epochs
        it has completed; and why it ended.

        Args:
            most: how many members; None is all.
        """
        scores = self.scores
        return Table(tuple(self._row(int(i), float(scores[i])) for i in self.ranking[:most]))

    def _row(self, i: int, score: float) -> dict[str, Any]:
        cohort, k = self._place(i)
        member = self.members[i]
        count = int(cohort.epochs[k])
        row: dict[str, Any] = {"member": i, "seed": member.seed, **member.hyperparameters}
        row["score"] = score
        for name, entries in cohort.history.items():
            if 0 < count <= len(entries):
                row.setdefault(name, _plain(entries[count - 1][k]))
        if cohort.best is not None and int(np.asarray(cohort.best.epoch)[k]) >= 0:
            row["best_epoch"] = int(np.asarray(cohort.best.epoch)[k]) + 1
            row["best_value"] = float(np.asarray(cohort.best.value)[k])
        return row | {"epochs": count, "stopped": cohort.stopped[k] or "finished"}

    def _summary(self) -> Table:
        """The table in few columns."""
        name, _ = self.monitor
        swept = self.members[0].hyperparameters
        rows = []
        for row in self.table():
            chosen = {key: row[key] for key in ("member", "seed", *swept)}
            chosen[name.replace("_", " ")] = row["score"]
            rows.append(
                chosen | {"epochs": row["epochs"], "ended": row["stopped"].split(":")[0]}
            )
        return Table(tuple(rows))

    def to_json(self, path: str | Path) -> None:
        """Writes members, scores, ends and histories; numbers that are not finite become null."""
        scores = self.scores
        each = [
            {
                **member._asdict(),
                "score": scores[member.number],
                "stopped": (cohort.stopped[k] or "finished"),
                "epochs": int(cohort.epochs[k]),
                "history": {
                    name: [entry[k] for entry in rows[: cohort.epochs[k]]]
                    for name, rows in cohort.history.items()
                },
            }
            for member in self.members
            for cohort, k in [self._place(member.number)]
        ]
        record = {
            "monitor": self.monitor[0],
            "mode": self.monitor[1],
            "best": self.best_member.number,
            "members": each,
        }
        Path(path).write_text(json.dumps(_listed(record), indent=1, allow_nan=False) + "\n")

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws the curves with their spread, and the score over what was swept; a matplotlib
        `Figure`.

        Of two hyperparameters a heat map, of one a curve, each with the mean over seeds.
        """
        from jaxdl.population.plot import plot_runs

        return plot_runs(self, path)

    @property
    def _restores(self) -> bool:
        return self.early_stopping is not None and self.early_stopping.restore_best

    def _title(self) -> str:
        name, mode = self.monitor
        scores = self.scores[~np.isnan(self.scores)]
        if not len(scores):
            return f"{len(self)} members, none with a {name}"
        best, worst = (
            (scores.max(), scores.min()) if mode == "max" else (scores.min(), scores.max())
        )
        said = f"best {best:.4g}, median {np.median(scores):.4g}, worst {worst:.4g}"
        return f"{len(self)} members by {name.replace('_', ' ')}: {said}"

    def _place(self, number: int) -> tuple[Cohort, int]:
        for cohort in self.cohorts:
            for k, member in enumerate(cohort.members):
                if member.number == number:
                    return cohort, k
        raise IndexError(number)

    def _by_number(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        order = np.argsort(
            [member.number for cohort in self.cohorts for member in cohort.members]
        )
        return np.concatenate(parts)[order]

    def _measured(self, recipe: Recipe, feed: Any) -> dict[str, Any]:
        """The figures of all members by an evaluation of their trained states."""
        found = []
        for cohort in self.cohorts:
            step = MembersEvaluation(recipe, OverMembers(len(cohort), cohort.axis), shared=True)
            found.append(
                measure(
                    step,
                    feed,
                    self._eval_state(cohort),
                    "epoch" if isinstance(feed, ResidentFeed) else "step",
                )
            )
        return {
            name: jax.tree.map(lambda *rows: self._by_number(rows), *(f[name] for f in found))
            for name in found[0]
        }

    def _shapes_of_one(self) -> Any:
        """The state of a member, with shapes for its parameters and the model's state."""
        cohort = self.cohorts[0]
        assert cohort.state is not None
        members = cohort.state.members
        axis = cohort.axis

        def one(tree: Any) -> Any:
            return jax.tree.map(
                lambda leaf: jax.lax.index_in_dim(leaf, 0, axis, keepdims=False), tree
            )

        params, state = jax.eval_shape(one, (members.params, members.state))
        return members._replace(params=params, state=state)

    def _eval_state(self, cohort: Cohort) -> MembersEvalState:
        state = cohort.state
        assert state is not None
        if self._restores and cohort.best is not None:
            members = EvalState(cohort.best.params, cohort.best.state, state.members.key)
        else:
            params = eval_params(OverMembers(len(cohort), cohort.axis), state.members)
            members = EvalState(params, state.members.state, state.members.key)
        return MembersEvalState(members, state.hyperparameters)


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _listed(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {str(name): _listed(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_listed(part) for part in value]
    if isinstance(value, np.ndarray) and value.ndim:
        return _listed(value.tolist())
    if isinstance(value, (float, np.floating, np.ndarray)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
