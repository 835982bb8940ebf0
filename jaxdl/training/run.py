"""What training gives back."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import Array

from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.table import Table, rows_of
from jaxdl.metrics.metric import Metric
from jaxdl.training import evaluation
from jaxdl.training.classes import predicted_classes
from jaxdl.training.guard import Guarded
from jaxdl.training.history import Best, History, plot_history
from jaxdl.training.options import Loss
from jaxdl.training.run_files import RunParts, write_run
from jaxdl.training.run_options import Compile
from jaxdl.training.state import TrainState
from jaxdl.training.steps.supervised import Supervised


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The outcome of `fit` and `train`.

    Where its step trains one model, it evaluates and predicts with it; `save` writes it to a
    folder, and `load_run` opens it again.

    Args:
        params, state: the model's, after the last step, or of the best epoch where early stopping
            restored it.
        history: a dict of lists, one entry an epoch: `loss`, each metric (or the figures that
            another step reports), their `validation_…`, `learning_rate` (of the epoch's last
            update) and `seconds` (of the training steps, without compiling and without validation).
            The lists are empty where no epoch ended.
        best: the best epoch's parameters and state, where there was a `validation_loss` or early
            stopping, else None.
        average: the moving average of the parameters, where asked for, else None.
        train_state: the whole last state of training, the optimizer's too.
        stopped: why training ended: "finished", "early stopping …", "callback", "interrupted", "the
            data ended …", or what was not finite; with " (in an earlier call)" where a checkpoint
            held a run that had ended, and nothing was left to train.
        compile_seconds: the time until the first step could run: drawing the first state, tracing
            and compiling.
        step: the name of the training step, such as "Supervised".
        model: what was trained, with the precision it computes in; None where the step trains no
            single model.
        loss: the loss of a `Supervised` step, else None.
        metrics: its metrics by name.
        settings: what the run was, part by part, as a checkpoint describes it: the step with its
            optimizer, the seed, epochs, the batch size.
    """

    params: Params
    state: State
    history: History
    best: Best | None
    average: Params | None
    train_state: TrainState
    stopped: str
    compile_seconds: float
    step: str = ""
    model: Layer | None = None
    loss: Loss | None = None
    metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        rows = len(self.history.get("seconds", ()))
        steps = self.history.get("step")
        done = f"steps={steps[-1]}" if steps else f"epochs={rows}"
        last = {
            name: values[-1]
            for name, values in self.history.items()
            if values and isinstance(values[-1], float)
        }
        shown = ", ".join(f"{name}={value:.4g}" for name, value in last.items())
        return f"Run({self.stopped!r}, {done}, {shown})"

    @property
    def eval_params(self) -> Params:
        """The parameters to evaluate with, as validation does: those of the best epoch where early
        stopping restored it, else the moving average where there is one, else `params`.
        """
        if self.average is None or self._is_best:
            return self.params
        return self.average

    @property
    def _is_best(self) -> bool:
        """Whether the parameters are those of the best epoch."""
        return self.best is not None and self.params is self.best.params

    def evaluate(
        self,
        data: Any,
        *,
        loss: Loss | None = None,
        metrics: Mapping[str, Any] | None = None,
        batch_size: int = 256,
        compile: Compile = "auto",
        devices: Sequence[Any] | None = None,
    ) -> dict[str, Any]:
        """The mean loss and the metrics over data, exact over all examples.

        Of the data that validated the run these are the figures of its history, of the epoch whose
        parameters are `eval_params`.

        Args:
            data: as in `fit`.
            loss, metrics: None takes those of the run.
            batch_size, compile, devices: as in `evaluate`.

        Returns:
            Figures by name.

        Raises:
            ValueError: the run has no single model, or neither a loss nor metrics.
        """
        model = self._model("evaluate")
        loss = self.loss if loss is None else loss
        metrics = self.metrics if metrics is None else metrics
        if loss is None and not metrics:
            raise ValueError(
                f"run.evaluate: this run of {self.step or 'a step'} has no loss and no metrics of "
                f"its own — give them, as in run.evaluate(data, loss=losses.mean_squared_error)."
            )
        return evaluation.evaluate(
            model,
            self.eval_params,
            self.state,
            data,
            loss=loss,
            metrics=dict(metrics),
            batch_size=batch_size,
            compile=compile,
            devices=devices,
        )

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int = 256,
        compile: Compile = "auto",
        devices: Sequence[Any] | None = None,
    ) -> Any:
        """The outputs of the model in evaluation for all inputs, in their order: [examples, ...].

        Args:
            inputs: an array, or a tree of arrays, with one entry an example.
            batch_size, compile, devices: as in `predict`.

        Raises:
            ValueError: the run has no single model.
        """
        return evaluation.predict(
            self._model("predict"),
            self.eval_params,
            self.state,
            inputs,
            batch_size=batch_size,
            compile=compile,
            devices=devices,
        )

    def classify(
        self, inputs: Any, *, threshold: float | None = None, batch_size: int = 256
    ) -> Array:
        """The classes of all inputs, [examples, ...] int32.

        Of outputs [examples, ..., classes] the number of the largest. Outputs of one column,
        [examples] or [examples, ..., 1], are binary: 1 above the threshold, else 0; where the
        run's loss is a binary one, so is each of several columns, which then all remain.
        Where an output is NaN the class is -2³¹, which no class is.

        Args:
            inputs: as in `predict`.
            threshold: of binary outputs; None is 0, which is right for logits, and 0.5 where the
                loss takes probabilities.
            batch_size: examples at a time.

        Raises:
            ValueError: the run has no single model, or its outputs are not of a classifier.
        """
        outputs = self.predict(inputs, batch_size=batch_size)
        return predicted_classes(outputs, self.loss, threshold)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the run to a folder, from which `load_run` opens it in any process.

        The folder holds the arrays in one safetensors file and all else in `run.json`, each with
        digests; both are complete or not there. The model, the loss and the metrics are kept as
        the calls that they print as. What prints as another value, such as a model with a
        lambda, is left out with a warning. The optimizer's state is kept where it is made of named
        tuples of optax and of plain containers.

        Args:
            folder: is created; a run that was saved there before is replaced.

        Raises:
            CheckpointError: the folder cannot be written.
            TypeError: a leaf is of a dtype that safetensors cannot hold.
            ModuleNotFoundError: safetensors is not installed.

        >>> import numpy as np, tempfile, optax, jaxdl as dl
        >>> x = np.ones((8, 3), np.float32)
        >>> loss = dl.losses.mean_squared_error
        >>> run = dl.fit(dl.Dense(1), (x, x[:, :1]), loss=loss, optimizer=optax.sgd(0.1),
        ...              progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run.save(folder)
        ...     dl.load_run(folder).model
        Dense(1)
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        write_run(Path(folder), RunParts(**fields, restored=self._is_best))

    def _model(self, method: str) -> Layer:
        if self.model is not None:
            return self.model
        if self.step == "Supervised":
            raise ValueError(
                f"run.{method}: this run was saved without its model — give it, as in "
                f"load_run(folder, model=model)."
            )
        function = "evaluate" if method == "evaluate" else "predict"
        raise ValueError(
            f"run.{method}: {self.step or 'the step of this run'} trains no single model — give "
            f"the part that is meant, and its parameters, to jaxdl.{function}."
        )

    def on(self, device: Any) -> "Run":
        """The same, its arrays on one device."""
        names = ("params", "state", "average", "train_state")
        moved: dict[str, Any] = {
            name: jax.device_put(getattr(self, name), device) for name in names
        }
        if self.best is not None:
            params, state = jax.device_put((self.best.params, self.best.state), device)
            moved["best"] = self.best._replace(params=params, state=state)
            if self._is_best:
                moved |= {"params": params, "state": state}
        return dataclasses.replace(self, **moved)

    def table(self) -> Table:
        """The history as rows, one for each epoch: its number, from 1, and its figures; or, where
        `every` said so, the number of the last step.
        """
        return Table(rows_of(self.history))

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws the learning curves, training against validation; a matplotlib `Figure`, saved
        where a path is given.
        """
        return plot_history(self.history, path)


def trained_by(step: Any) -> dict[str, Any]:
    """What a run knows of its step: the name, the model, the loss and the metrics, by the names of
    `Run`'s fields.
    """
    step = step.step if isinstance(step, Guarded) else step
    model = getattr(step, "model", None)
    found: dict[str, Any] = {
        "step": type(step).__name__,
        "model": model if isinstance(model, Layer) else None,
    }
    if isinstance(step, Supervised):
        found |= {"loss": step.loss, "metrics": dict(step.metrics)}
    return found
