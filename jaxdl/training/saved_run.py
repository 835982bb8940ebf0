"""`load_run`: a run that was saved, opened again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdl.checkpoint.error import CheckpointError
from jaxdl.core.layer import Layer
from jaxdl.core.parsing import ParseError
from jaxdl.training.checks import check_model
from jaxdl.training.history import Best
from jaxdl.training.printed import (
    MissingTypesError,
    Printed,
    Types,
    opened_loss,
    opened_metric,
    opened_model,
)
from jaxdl.training.run import Run
from jaxdl.training.run_files import SavedRun, read_run


def load_run(
    folder: str | os.PathLike[str], types: Types = (), *, model: Layer | None = None
) -> Run:
    """Opens a run that `Run.save` wrote: it predicts the same bits as in the process that saved it.

    The model is made from its printed call, which is read and never evaluated: it may hold calls,
    names and literals, names being jaxdl's, activations of `jax.nn`, pure functions and dtypes of
    `jax.numpy`, and `types`. Nothing is unpickled, and every digest is checked.

    Args:
        folder: as it was given to `Run.save`.
        types: classes and functions of the caller's own that the model, the loss and metrics name:
            a sequence, or a dict by name. Classes are called with the arguments that were saved,
            functions are only handed on.
        model: the model itself, in place of the one that was saved.

    Returns:
        The run. A loss and metrics that cannot be named, or whose names are not given, are left
        out; so is an optimizer's state that could not be saved, which is None then.

    Raises:
        CheckpointError: the folder holds no run, or one that is damaged; or its model names
            something that is not given, or is no printed call.
        TypeError: `types` holds what is neither a class nor a function.
    """
    given = Path(folder)
    saved = read_run(given)
    fields = saved.fields
    chosen = _model(given, saved, types) if model is None else check_model(model)
    metrics = {
        name: _opened(opened_metric, metric, types)
        for name, metric in fields["metrics"].items()
    }
    best = saved.trees["best"]
    kept = None if best is None else Best(*fields["best"], *best)
    restored = kept if fields["restored"] else None
    return Run(
        params=saved.trees["params"] if restored is None else restored.params,
        state=saved.trees["state"],
        history=fields["history"],
        best=kept,
        average=saved.trees["average"],
        train_state=saved.trees["train_state"],
        stopped=fields["stopped"],
        compile_seconds=fields["compile_seconds"],
        step=fields["step"],
        model=chosen,
        loss=_opened(opened_loss, fields["loss"], types),
        metrics={name: metric for name, metric in metrics.items() if metric is not None},
        settings=fields["settings"],
    )


def _model(folder: Path, saved: SavedRun, types: Types) -> Layer | None:
    record = saved.fields["model"]
    if record is None:
        return None
    printed = _record(record)
    try:
        return opened_model(printed, types)
    except MissingTypesError as error:
        names = ", ".join(error.names)
        raise CheckpointError(
            f"load_run: the model in {folder} names {names}, which is not jaxdl's — give what it "
            f"is called there, load_run(folder, types=[{names}]), or the model itself, "
            f"load_run(folder, model=model). It prints as {printed.call:.200}"
        ) from error
    except ParseError as error:
        raise CheckpointError(
            f"load_run: the model in {folder} {error}: nothing of it was run — give the model "
            f"itself, load_run(folder, model=model)."
        ) from error


def _opened(opener: Callable[..., Any], record: Any, types: Types) -> Any:
    """A loss or a metric; None where there is none, or where something it names is missing."""
    if record is None:
        return None
    try:
        return opener(_record(record), types)
    except (MissingTypesError, ParseError):
        return None


def _record(record: dict[str, Any]) -> Printed:
    return Printed(record["call"], tuple(record["types"]))
