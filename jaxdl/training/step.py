"""The protocol of steps: what is trained, and how, differs here and nowhere else."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax import Array

from jaxdl.checkpoint.describe import Description, describe
from jaxdl.core.layer import Params, State
from jaxdl.data.source import Batch
from jaxdl.training.state import EvalState, Measured, TrainState

PerExample = tuple[Any, ...]
"""The name of a function, the function, the shapes of the outputs and the targets that it is given,
and what else it is given: `function(outputs, targets, *others) -> [batch]`.
"""


class Step(abc.ABC):
    """A pure function of a batch, as a hashable value: equal steps share a compiled program."""

    @abc.abstractmethod
    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        """The epoch's metrics by name, computed on the host.

        Args:
            sums: of the epoch, NumPy, in float64.
            gathered: rows of the epoch, NumPy.
        """

    def report_members(
        self, sums: dict[str, Any], gathered: dict[str, Any], count: int
    ) -> dict[str, Any]:
        """The report of each of `count` members, stacked.

        Args:
            sums: [members, ...].
            gathered: [rows, members, ...].
        """
        each = [
            self.report(
                jax.tree.map(lambda leaf, k=k: leaf[k], sums),
                jax.tree.map(lambda rows, k=k: rows[:, k], gathered),
            )
            for k in range(count)
        ]
        return {
            name: np.stack([np.asarray(report[name]) for report in each]) for name in each[0]
        }


class EvaluationStep(Step):
    """A step that measures a batch and trains nothing."""

    @abc.abstractmethod
    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        """Measures one batch; a pure function.

        Args:
            state: parameters and model state; its `step` is the number of the batch in the pass,
                for what is drawn.
            batch: inputs, targets, weights and mask.

        Returns:
            Sums and gathered rows.
        """


class UpdateStep(Step):
    """A step from a state to the next; a program leaves out an update that is not finite, and ends
    there.
    """

    keeps_last_finite: ClassVar[bool] = False
    """Whether the step itself returns the state it was given where an update is not finite."""

    @abc.abstractmethod
    def __call__(self, state: Any, batch: Batch) -> tuple[Any, Measured]:
        """Makes one update; a pure function.

        Args:
            state: the step's state, such as a `TrainState`.
            batch: inputs, targets, weights and mask.

        Returns:
            The next state, of the same shapes and dtypes, and what was measured.
        """

    @abc.abstractmethod
    def finite(self, measured: Measured) -> Array:
        """Whether the update may be applied, and the loop go on after it: a bool scalar."""

    def observe(self, state: Any) -> dict[str, Array]:
        """Scalars to record at the end of an epoch, by name."""
        del state
        return {}


class Updating(UpdateStep):
    """An update step that the loop runs over epochs, and evaluates between them."""

    @abc.abstractmethod
    def evaluation(self) -> EvaluationStep:
        """The step that measures the same metrics without training."""

    def evaluation_state(self, state: Any) -> Any:
        """What an evaluation is given: an `EvalState`, the same at the start of each pass."""
        return EvalState(state.eval_params, state.state, state.key)

    def described(self) -> dict[str, Description]:
        """The step, part by part, so that a run which saves itself is not taken up by another.

        Of a frozen dataclass its fields, of anything else what `describe` finds.
        """
        whole = describe(self)
        if isinstance(whole, str):
            return {"step": whole}
        return {"step": whole["is"], **whole["parts"]}

    def on_one_device(self) -> "Updating":
        """The same step on the default device, where it is one over several."""
        return self

    def result(self, state: Any) -> tuple[Params, State]:
        """What is kept of the best epoch: the parameters to evaluate with, and the model's
        state.
        """
        return state.eval_params, state.state


class TrainingStep(Updating):
    """A step that `train` can start and evaluate.

    It is a hashable value, such as a frozen dataclass. Its evaluation is given the parameters, the
    model's state, the run's key and the number of the batch, so that each pass draws the same.
    """

    @abc.abstractmethod
    def init(self, key: Array, batch: Batch) -> TrainState:
        """The first state.

        Args:
            key: typed key.
            batch: the shapes of a batch.
        """

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        """The step's functions that give one value for each example; `train` refuses those that
        mix examples.

        Args:
            state: the first state.
            batch: the shapes of a batch.
        """
        del state, batch
        return ()

    def check(self, name: str, batch: Batch) -> None:
        """Refuses data that the step cannot use; the default accepts all.

        Args:
            name: what the data are called.
            batch: all of the data, or each batch of a stream as it comes: NumPy arrays.

        Raises:
            ValueError: the data do not fit, in a sentence.
        """


class Recipe(abc.ABC):
    """A step as a function of its hyperparameters; a hashable value."""

    @property
    @abc.abstractmethod
    def single(self) -> Any:
        """The step of some member, by which figures are reported."""

    def described(self) -> dict[str, Description]:
        """What the steps are, part by part; see `Updating`."""
        return self.single.described()

    @abc.abstractmethod
    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The step for hyperparameters that are numbers, or scalars that are being traced: a
        `TrainingStep`.

        Of what is evaluated alone, its `evaluation` is enough.
        """
