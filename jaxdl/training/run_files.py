"""A run in a folder: its arrays in a safetensors file, all else as JSON.

run.json                   what it is, with a digest of itself and of the other file's arrays
arrays-1a2b3c4d5e6f.safetensors   parameters, state, best, average and train state
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint import weights
from jaxdl.checkpoint.digest import short_digest
from jaxdl.checkpoint.disk import write_atomically
from jaxdl.checkpoint.error import (
    CheckpointError,
    CorruptionError,
    FileCorruptionError,
    FormatError,
    UnreadableError,
    reason,
)
from jaxdl.checkpoint.manifest import digested_text, from_json, now, read_fields, to_json
from jaxdl.checkpoint.structure import put_together, taken_apart
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.versions import versions
from jaxdl.core.warnings import warn
from jaxdl.metrics.metric import Metric
from jaxdl.training.history import Best, History
from jaxdl.training.printed import (
    CannotPrintError,
    Printed,
    printed_loss,
    printed_metric,
    printed_model,
)
from jaxdl.training.state import TrainState

FORMAT = "jaxdl run"
VERSION = 1
NAME = "run.json"
_PREFIX = "arrays-"
_SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True, eq=False)
class RunParts:
    """What a `Run` holds, and whether its parameters are those of the best epoch."""

    params: Params
    state: State
    history: History
    best: Best | None
    average: Params | None
    train_state: TrainState
    stopped: str
    compile_seconds: float
    step: str
    model: Layer | None
    loss: Callable[..., Any] | None
    metrics: Mapping[str, Metric]
    settings: Mapping[str, Any]
    restored: bool


@dataclasses.dataclass(frozen=True, eq=False)
class SavedRun:
    """What a folder holds of a run.

    Args:
        trees: by name, those of `RunParts` that hold arrays, and "best" as a pair.
        fields: of `run.json`: the others; model, loss and metrics as they print.
    """

    trees: dict[str, Any]
    fields: dict[str, Any]


def write_run(folder: Path, run: RunParts) -> None:
    """Writes a run to a folder; one that was saved there stays until this one is complete.

    Raises:
        CheckpointError: the folder cannot be written.
        TypeError: a leaf is not an array, or is of a dtype that safetensors cannot hold.
    """
    left_out: list[str] = []
    structure, arrays = _apart(run, left_out)
    contents = weights.contents_of("run.save", arrays, ())
    records = {name: leaf.to_record() for name, leaf in contents.leaves.items()}
    digest = short_digest([records])
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "versions": versions(),
        "saved": now(),
        "arrays": digest,
        "structure": structure,
        **_described(run, left_out),
    }
    text = digested_text(fields)
    target = folder / f"{_PREFIX}{digest}{_SUFFIX}"
    try:
        weights.write(target, contents)
        write_atomically(folder / NAME, lambda part: part.write_bytes(text))
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            if path.name != target.name:
                path.unlink(missing_ok=True)
    except Exception as error:  # safetensors has errors of its own for what the system reports
        raise CheckpointError(
            f"run.save: {folder} cannot be written ({reason(error)}) — a run that was there before "
            f"is unchanged; free some space or give another folder."
        ) from error
    if left_out:
        warn(
            f"run.save: {folder} holds the run without {'; and without '.join(left_out)}; all "
            f"else is there.",
            UserWarning,
        )


def read_run(folder: Path) -> SavedRun:
    """Reads a run from a folder, and checks every digest.

    Raises:
        CheckpointError: there is none, or it is damaged or of another format.
    """
    try:
        return _read(folder)
    except UnreadableError as error:
        advice = "open it with the jaxdl that wrote it"
        if isinstance(error, CorruptionError):
            advice = "give the folder that run.save was given, or use another copy of it"
        raise CheckpointError(f"load_run: {folder} {error} — {advice}.") from error.__cause__


def _read(folder: Path) -> SavedRun:
    fields = read_fields(folder / NAME)
    version = fields.get("version")
    if fields.get("format") != FORMAT or not isinstance(version, int):
        raise FormatError(f"has a {NAME} that is not of a run of jaxdl")
    if version != VERSION:
        raise FormatError(
            f"is of format {version}, which a newer jaxdl wrote; this one reads format {VERSION}"
        )
    name = f"{_PREFIX}{fields['arrays']}{_SUFFIX}"
    if Path(name).name != name:
        raise FormatError(f"names {name!r}, which is no file in it")
    found = weights.read(folder / name)
    records = {path: leaf.to_record() for path, leaf in found.leaves.items()}
    if short_digest([records]) != fields["arrays"]:
        raise FileCorruptionError(f"has arrays in {name} that are not of this run")

    def array(path: str) -> Any:
        return trees.as_leaf(found.arrays[path], found.leaves[path].key)

    whole: Any = put_together(fields["structure"], array)
    others = {key: from_json(value) for key, value in fields.items() if key != "structure"}
    return SavedRun(whole, others)


def _apart(run: RunParts, left_out: list[str]) -> tuple[Any, dict[str, Any]]:
    """The structure and the arrays of a run; without the optimizer's state where that has what no
    file can describe.
    """
    best = None if run.best is None else (run.best.params, run.best.state)
    whole = {
        "params": run.params,
        "state": run.state,
        "best": best,
        "average": run.average,
        "train_state": run.train_state,
    }
    try:
        return taken_apart(whole)
    except TypeError as error:
        left_out.append(f"the optimizer's state, in which {error}")
        plain = run.train_state._replace(optimizer_state=None, guard=None, estimate=None)
        return taken_apart(whole | {"train_state": plain})


def _described(run: RunParts, left_out: list[str]) -> dict[str, Any]:
    """What `run.json` holds beside the arrays and their structure."""
    metrics = {
        name: _printed(f"the metric {name!r}", printed_metric, metric, left_out)
        for name, metric in run.metrics.items()
    }
    described = {
        "history": run.history,
        "best": None if run.best is None else [run.best.epoch, run.best.value],
        "restored": run.restored,
        "stopped": run.stopped,
        "compile_seconds": run.compile_seconds,
        "step": run.step,
        "model": _printed("its model", printed_model, run.model, left_out),
        "loss": _printed("its loss", printed_loss, run.loss, left_out),
        "metrics": {name: metric for name, metric in metrics.items() if metric},
        "settings": dict(run.settings),
    }
    return {name: to_json(value) for name, value in described.items()}


def _printed(
    name: str, printer: Callable[[Any], Printed], value: Any, left_out: list[str]
) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        return printer(value)._asdict()
    except CannotPrintError as error:
        left_out.append(f"{name}, since {error}")
        return None
