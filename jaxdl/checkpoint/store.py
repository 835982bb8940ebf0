"""A run's folder of checkpoints: saved in the background, checked when read, the newest and the
best kept.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdl.checkpoint import arrays as orbax_arrays
from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.checkpoint.disk import flush, remove_folder
from jaxdl.checkpoint.error import CheckpointError, Flaw, reason
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.checkpoint.manifest import ARRAYS, Manifest, check_files, digests, frozen
from jaxdl.core.warnings import warn

_NAME = re.compile(r"(\d{6,})-step-(\d+)")
_LOCK = ".lock"
_GRACE = 3.0  # seconds that processes which a killed run had started may hold its lock
_EARLIER = "earlier-"
_LEFT_OVER = (".saving-", ".removing-")


class Restored(NamedTuple):
    """What was read from a checkpoint.

    Args:
        step: of the run when it was saved.
        tree: of the structure asked for.
        description: as it was given to `save`; tuples have become lists.
        path: of the checkpoint.
    """

    step: int
    tree: Any
    description: Any
    path: Path


class Store:
    """The checkpoints of one run, which has the folder to itself until `close`.

    Saving goes on in a thread of its own. A save that fails is told in a warning, by the next call,
    and the run goes on: the checkpoints before it stay as they were, and the next save is tried
    when it is due.

    Args:
        checkpoints: where, how often, and what is kept.

    Raises:
        CheckpointError: the folder cannot be written, or another run uses it.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints, self.folder = checkpoints, Path(checkpoints.folder)
        self._saver: concurrent.futures.ThreadPoolExecutor | None = None
        self._pending: concurrent.futures.Future[None] | None = None
        self._pending_step = 0
        self._last: dict[str, float] = {"steps": 0, "epochs": 0, "seconds": time.monotonic()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder)
            for path in self.folder.iterdir():
                if path.name.startswith(_LEFT_OVER):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint: cannot write into {self.folder} ({reason(error)}) — make it writable "
                f"or give another folder."
            ) from error
        self._figures = _figures(self.folder) if checkpoints.best else {}

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def paths(self) -> list[Path]:
        """The checkpoints that are there, the newest first."""
        return _found(self.folder)

    @property
    def best(self) -> float | None:
        """The best figure of a checkpoint that is there, or None."""
        return _best(self.checkpoints, self._figures)[1]

    def started(self, step: int, epoch: int) -> None:
        """Counts what is due from here; a run that goes on from a checkpoint says where."""
        self._last = {"steps": step, "epochs": epoch, "seconds": time.monotonic()}

    def due(self, step: int, epoch: int, figure: float | None = None) -> bool:
        """Whether to save now; never while the save before is being written.

        Args:
            step: how many steps were made in all.
            epoch: how many epochs have ended.
            figure: at the end of an epoch, the value of `best`; where it is better than ever
                before, it is time.
        """
        if (
            figure is not None
            and self.checkpoints.best
            and self.checkpoints.better(figure, self.best)
        ):
            return True
        if self.busy:
            return False
        interval = self.checkpoints.interval
        now = {"steps": step, "epochs": epoch, "seconds": time.monotonic()}[interval.unit]
        if interval.unit == "seconds":
            return now - self._last["seconds"] >= interval.count
        return now // interval.count > self._last[interval.unit] // interval.count

    def steps_until_due(self, step: int) -> int | None:
        """How many more steps to make before a save is due, where `every` counts steps, else
        None.
        """
        interval = self.checkpoints.interval
        if interval.unit != "steps":
            return None
        return int(interval.count - step % interval.count)

    @property
    def busy(self) -> bool:
        """Whether a save is being written."""
        self._settle(0)
        return self._pending is not None

    def save(
        self, step: int, epoch: int, tree: Any, description: Any, figure: float | None = None
    ) -> None:
        """Begins to save, and returns; waits first for the save before.

        JAX arrays on the CPU are not copied: a program that one of them is donated to until the
        save is done copies it.

        Args:
            step, epoch: as for `due`.
            tree: arrays, typed keys and numbers, in any structure.
            description: of the run: numbers, texts, lists, dicts and NumPy arrays, as they are now.
            figure: the value of `best`, where this state has one.

        Raises:
            TypeError: a leaf is not an array, or the description holds something else.
        """
        self.wait()
        named: dict[str, tuple[Any, str | None]] = {}
        for path, leaf in trees.leaves_by_path(tree).items():
            try:
                named[path] = orbax_arrays.held(leaf)
            except TypeError as error:
                raise TypeError(f"checkpoint: {path} {error}") from None
        self._last = {"steps": step, "epochs": epoch, "seconds": time.monotonic()}
        self._saver = self._saver or concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix="jaxdl-saver"
        )
        self._pending_step = step
        self._pending = self._saver.submit(self._write, step, named, frozen(description), figure)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until what is being saved is saved; says whether it is, after at most `timeout`
        seconds.
        """
        return self._settle(timeout)

    def close(self) -> None:
        """Waits for the save that is being written, and leaves the folder to others."""
        try:
            self.wait()
        finally:
            if self._saver is not None:
                self._saver.shutdown(wait=False)
            self._lock.release()

    def restore(self, like: Callable[[Any, Mapping[str, Leaf]], Any]) -> Restored | None:
        """Reads the newest checkpoint that is whole; says in a warning which newer ones are not,
        and sets damaged ones aside.

        Args:
            like: given the description and what is noted of each leaf by path, the tree to read
                into: arrays (whose devices the new ones go to), shapes, NumPy arrays, numbers, or
                    `...` for an array of any shape.

        Returns:
            None where there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints and none is whole, each named with what is wrong;
                or the newest whole one does not fit the tree: then the leaves that are missing,
                extra or of another shape or dtype are listed.
        """
        self.wait()
        paths, flaws = self.paths, {}
        for path in paths:
            try:
                manifest, found = _read(path)
            except Flaw as flaw:
                flaws[path] = flaw
                continue
            tree = _into(like(manifest.description, manifest.leaves), manifest, found, path)
            if flaws:
                self._set_aside(flaws, path)
            return Restored(manifest.step, tree, manifest.description, path)
        if not paths:
            return None
        told = "".join(f"\n  {path.name} {flaw}" for path, flaw in flaws.items())
        raise CheckpointError(
            f"checkpoint: none of the {len(paths)} in {self.folder} can be read — move them away "
            f"to start anew:{told}"
        )

    def begin_anew(self) -> Path:
        """Moves all checkpoints into a folder of their own beside the new ones, where they stay;
        that folder.
        """
        self.wait()
        number = 1
        while (aside := self.folder / f"{_EARLIER}{number}").exists():
            number += 1
        aside.mkdir()
        for path in self.paths:
            path.rename(aside / path.name)
        flush(aside)
        flush(self.folder)
        self._figures = {}
        return aside

    def _settle(self, timeout: float | None) -> bool:
        """Waits for the saver, and tells of a save that failed; here, since a warning in its thread
        would reach nobody.
        """
        if self._pending is None:
            return True
        concurrent.futures.wait([self._pending], timeout)
        if not self._pending.done():
            return False
        error, self._pending = self._pending.exception(), None
        self._last["seconds"] = time.monotonic()
        if error is not None:
            last = next((path.name for path in self.paths), None)
            before = f"{last} is whole" if last else "there is none before it"
            warn(
                f"checkpoint: step {self._pending_step} was not saved in {self.folder} "
                f"({reason(error)}); {before}, training "
                "goes on, and the next save is tried when it is due.",
                RuntimeWarning,
            )
        return True

    def _write(
        self,
        step: int,
        named: dict[str, tuple[Any, str | None]],
        description: Any,
        figure: float | None,
    ) -> None:
        """Writes all into a hidden folder, moves it to its name, and only then takes older ones
        away.
        """
        serial = 1 + max(
            (int(match[1]) for path in self.paths if (match := _NAME.fullmatch(path.name))),
            default=0,
        )
        target = self.folder / f"{serial:06}-step-{step}"
        hidden = self.folder / f".saving-{target.name}-{secrets.token_hex(4)}"
        try:
            hidden.mkdir()
            orbax_arrays.write(hidden / ARRAYS, {path: array for path, (array, _) in named.items()})
            leaves = {path: trees.note_of(array, key) for path, (array, key) in named.items()}
            Manifest(step, description, figure, leaves, digests(hidden / ARRAYS)).write(hidden)
            flush(hidden)
            os.rename(hidden, target)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        flush(self.folder)
        if figure is not None:
            self._figures = self._figures | {target.name: figure}
        with contextlib.suppress(OSError):  # what is to go may stay; what was saved is safe
            self._clear()

    def _clear(self) -> None:
        if self.checkpoints.keep is None:
            return
        best, _ = _best(self.checkpoints, self._figures)
        for path in self.paths[self.checkpoints.keep :]:
            if path.name != best:
                remove_folder(path)
        there = {path.name for path in self.paths}
        self._figures = {name: figure for name, figure in self._figures.items() if name in there}

    def _set_aside(self, flaws: dict[Path, Flaw], restored: Path) -> None:
        told = "".join(f"\n  {path.name} {flaw}" for path, flaw in flaws.items())
        warn(
            f"checkpoint: going on from {restored}, for what is newer cannot be read:{told}",
            RuntimeWarning,
        )
        for path, flaw in flaws.items():
            if flaw.damaged:
                with contextlib.suppress(OSError):  # it is passed over next time too
                    path.rename(path.with_name(f"damaged-{path.name}-{secrets.token_hex(2)}"))
                self._figures.pop(path.name, None)


def _locked(folder: Path) -> Any:
    """The folder's lock, which the system takes back from a process that dies, however it dies."""
    from filelock import FileLock, Timeout

    lock, note = FileLock(folder / _LOCK, thread_local=False), folder / f"{_LOCK}.json"
    try:
        lock.acquire(timeout=_GRACE)
    except NotImplementedError:  # some network file systems have no locks
        warn(
            f"checkpoint: {folder} cannot be locked there; see to it that one run uses it at a "
            f"time.",
            RuntimeWarning,
        )
    except Timeout:
        raise CheckpointError(
            f"checkpoint: {folder} is in use by another run{_holder(note)} — end that one, or give "
            f"this one a folder of its "
            "own."
        ) from None
    note.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
    return lock


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f" (process {holder['process']} on {holder['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _found(folder: Path) -> list[Path]:
    named = {path: match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return sorted(named, key=lambda path: int(named[path][1]), reverse=True)


def _figures(folder: Path) -> dict[str, float]:
    """The figure of each checkpoint that has one; those that cannot be read have none."""
    figures = {}
    for path in _found(folder):
        try:
            figure = Manifest.read(path).figure
        except Flaw:
            continue
        if figure is not None:
            figures[path.name] = figure
    return figures


def _best(checkpoints: Checkpoints, figures: dict[str, float]) -> tuple[str | None, float | None]:
    name, best = None, None
    for candidate, figure in figures.items():
        if checkpoints.better(figure, best):
            name, best = candidate, figure
    return name, best


def _read(path: Path) -> tuple[Manifest, dict[str, Any]]:
    manifest = Manifest.read(path)
    check_files(path / ARRAYS, manifest.files)
    return manifest, orbax_arrays.read(path / ARRAYS, manifest.leaves)


def _into(like: Any, manifest: Manifest, found: dict[str, Any], path: Path) -> Any:
    wanted, saved = trees.leaves_by_path(like), manifest.leaves
    if lines := trees.differences(wanted, saved):
        raise CheckpointError(
            f"checkpoint: {path} was saved by a run that differs from this one — give this one a "
            f"folder of its own:" + trees.told(lines)
        )
    filled = [trees.as_wanted(found[name], saved[name].key, leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), filled)
