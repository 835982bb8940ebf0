"""What a folder of checkpoints holds, read without the run that saved it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import CheckpointError, UnreadableError, reason
from jaxdl.checkpoint.folder import found, read_checkpoint
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.checkpoint.manifest import Manifest
from jaxdl.checkpoint.structure import put_together
from jaxdl.compiling.pytree import PyTree

_EARLIER = "earlier-"


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is, without its arrays.

    Args:
        path: of its folder.
        step: how many steps were made.
        epoch: how many epochs had ended.
        saved: when, in UTC, in ISO 8601.
        metric: the value of `Checkpoints.best`, where it was saved with one.
        stopped: why the run ended; "" while it went on.
    """

    path: Path
    step: int
    epoch: int
    saved: str
    metric: float | None
    stopped: str


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """A run that saved itself: the one in a folder, or one that it set aside as `earlier-1`, ….

    Args:
        folder: of its checkpoints.
        checkpoints: those that can be read, the newest first.
        unreadable: what is wrong with the others, a sentence each.
    """

    folder: Path
    checkpoints: tuple[CheckpointInfo, ...]
    unreadable: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run as a checkpoint holds it.

    Args:
        path: of the checkpoint's folder.
        step: how many steps were made.
        epoch: how many epochs had ended; of the best epoch, how many had at its end.
        metric: the value of `Checkpoints.best`, or of what the best epoch is best by; else None.
        params, state: the model's.
        average: the moving average of the parameters, or None.
        train_state: all of the state of training, a `TrainState`; None of the best epoch, and
            where the optimizer's state is not made of named tuples of optax.
        history: so far, as in `Run`.
        settings: what the run was, part by part; a run of others is not resumed from here.
        stopped: why the run ended; "" while it went on.
    """

    path: Path
    step: int
    epoch: int
    metric: float | None
    params: dict[str, Any]
    state: dict[str, Any]
    average: dict[str, Any] | None
    train_state: Any
    history: dict[str, list[Any]]
    settings: Mapping[str, Any]
    stopped: str

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, step={self.step}, epoch={self.epoch})"


class _Contents(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    manifest: Manifest
    arrays: dict[str, np.ndarray]

    @property
    def description(self) -> dict[str, Any]:
        description: Any = self.manifest.description
        return description

    def array(self, name: str) -> Any:
        """The array of a path within the state of training."""
        path = f"state.{name}"
        return trees.as_leaf(self.arrays[path], self.manifest.leaves[path].key)

    def below(self, path: str) -> dict[str, Any]:
        """Nested dicts of the arrays below a path."""
        tree: dict[str, Any] = {}
        for name, leaf in self.manifest.leaves.items():
            if name.startswith(f"{path}."):
                names = trees.split(name.removeprefix(f"{path}."))
                trees.put(tree, names, trees.as_leaf(self.arrays[name], leaf.key))
        return tree


def runs_in(folder: Path) -> tuple[RunInfo, ...]:
    """The run in a folder, and those it set aside, the newest first.

    Raises:
        CheckpointError: there is no such folder.
    """
    _check_folder(folder)
    earlier = [path for path in folder.iterdir() if path.name.startswith(_EARLIER)]
    numbered = [path for path in earlier if path.name.removeprefix(_EARLIER).isdecimal()]
    numbered.sort(key=lambda path: int(path.name.removeprefix(_EARLIER)), reverse=True)
    runs = [_run_info(path) for path in (folder, *numbered)]
    return tuple(run for run in runs if run.checkpoints or run.unreadable)


def load_checkpoint(folder: Path, step: int | None) -> Checkpoint:
    """The checkpoint of a step; None is the newest that can be read.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    return _checkpoint(_of_step(folder, step))


def load_best(folder: Path, better: Callable[[float, float | None], bool]) -> Checkpoint:
    """The checkpoint that was saved with the best metric.

    Args:
        folder: of the checkpoints.
        better: whether a value is better than another, or than none.

    Raises:
        CheckpointError: none was saved with a metric, or the best cannot be read.
    """
    _check_folder(folder)
    best: CheckpointInfo | None = None
    for info in _run_info(folder).checkpoints:
        value = info.metric
        if value is not None and better(value, None if best is None else best.metric):
            best = info
    if best is None:
        raise CheckpointError(
            f"checkpoint: no checkpoint in {folder} was saved with a metric — leave best out of "
            f"Checkpoints for the best epoch that the run itself found, or take load(step)."
        )
    return _checkpoint(_read(best.path))


def load_best_epoch(folder: Path) -> Checkpoint:
    """The best epoch of a run, as its newest checkpoint holds it.

    Raises:
        CheckpointError: there is no checkpoint, or the run has no best epoch.
    """
    contents = _of_step(folder, None)
    whole = _checkpoint(contents)
    kept = contents.description["best"]
    if kept is None:
        raise CheckpointError(
            f"checkpoint: the run in {folder} had no validation data and no early stopping that "
            f"say which epoch is best — take load(), the newest, or name a metric, as in "
            f"Checkpoints(folder, best='loss')."
        )
    return dataclasses.replace(
        whole,
        epoch=kept[0] + 1,
        metric=kept[1],
        params=contents.below("best.0"),
        state=contents.below("best.1"),
        average=None,
        train_state=None,
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint: there is no folder {folder} — give the one that a run was given, as in "
            f"Checkpoints('runs/mnist')."
        )


def _run_info(folder: Path) -> RunInfo:
    infos = []
    unreadable = []
    for path in found(folder):
        try:
            infos.append(_info(path))
        except UnreadableError as error:
            unreadable.append(f"{path} {error}.")
    return RunInfo(folder, tuple(infos), tuple(unreadable))


def _info(path: Path) -> CheckpointInfo:
    manifest = Manifest.read(path)
    description: Any = manifest.description
    return CheckpointInfo(
        path,
        manifest.step,
        description["cursor"][0],
        manifest.saved,
        manifest.metric,
        description["stopped"],
    )


def _of_step(folder: Path, step: int | None) -> _Contents:
    _check_folder(folder)
    paths = found(folder)
    steps = {path: int(path.name.rpartition("-")[2]) for path in paths}
    wanted = [path for path in paths if step is None or steps[path] == step]
    if not wanted:
        listed = ", ".join(str(each) for each in sorted(set(steps.values())))
        there = f"of steps {listed}" if paths else "none"
        raise CheckpointError(
            f"checkpoint: {folder} has no checkpoint"
            f"{'' if step is None else f' of step {step}'} — there are {there}."
        )
    errors = []
    for path in wanted:
        try:
            return _read(path)
        except CheckpointError as error:
            errors.append(error)
    raise errors[0]


def _read(path: Path) -> _Contents:
    try:
        return _Contents(path, *read_checkpoint(path))
    except UnreadableError as error:
        raise CheckpointError(
            f"checkpoint: {path} {error} — take another one of Checkpoints(folder).runs()."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"checkpoint: {path} cannot be read ({reason(error)}) — a run that goes on may have "
            f"removed it; try again."
        ) from error


def _checkpoint(contents: _Contents) -> Checkpoint:
    description = contents.description
    leaves = contents.manifest.leaves
    if any(name.startswith("state.members.") for name in leaves):
        raise CheckpointError(
            f"checkpoint: {contents.path} holds a population, which only the call that trained it "
            f"can take apart — make that call again with this folder, and take runs[i]."
        )
    train_state = _train_state(contents)
    params = contents.below("state.params")
    return Checkpoint(
        path=contents.path,
        step=contents.manifest.step,
        epoch=description["cursor"][0],
        metric=contents.manifest.metric,
        params=params if train_state is None else train_state.trained,
        state=contents.below("state.state"),
        average=contents.below("state.average") if _has(leaves, "state.average") else None,
        train_state=train_state,
        history=description["history"],
        settings=description["run"],
        stopped=description["stopped"],
    )


def _train_state(contents: _Contents) -> PyTree:
    """The whole state, where the checkpoint says how it is put together."""
    structure = contents.description.get("structure")
    try:
        return None if structure is None else put_together(structure, contents.array)
    except UnreadableError:
        return None


def _has(leaves: Mapping[str, Leaf], path: str) -> bool:
    return any(name.startswith(f"{path}.") for name in leaves)
