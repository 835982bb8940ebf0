"""A run's folder of checkpoints: saved in the background, verified when read, the newest and the
best kept.
"""

import concurrent.futures
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxdl.checkpoint import arrays as orbax_arrays
from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.arrays import HostArray
from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.checkpoint.disk import flush, remove_folder
from jaxdl.checkpoint.error import CheckpointError, CorruptionError, UnreadableError, reason
from jaxdl.checkpoint.folder import Restored, fill, found, metrics, read_checkpoint, serial
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.checkpoint.lock import lock_folder
from jaxdl.checkpoint.manifest import ARRAYS, Manifest, file_digests, to_json
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.warnings import warn

Snapshot = dict[str, tuple[HostArray, str | None]]
"""Arrays by path, and the name of the generator of those that are keys' data."""

_EARLIER = "earlier-"
_INCOMPLETE = (".saving-", ".removing-")


class Store:
    """The checkpoints of one run, which has its folder to itself until `close`.

    A thread of its own writes what is saved. A save that fails is reported in a warning by the next
    call, and the run continues: the checkpoints before it stay as they were, and the next save is
    attempted when it is due.

    Args:
        checkpoints: where, how often, and what is kept.

    Raises:
        CheckpointError: the folder cannot be written, or another run uses it.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.folder = Path(checkpoints.folder)
        self._saver: concurrent.futures.ThreadPoolExecutor | None = None
        self._pending: concurrent.futures.Future[None] | None = None
        self._pending_step = 0
        self._last = _progress(0, 0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.folder)
            self._remove_incomplete()
        except OSError as error:
            raise CheckpointError(
                f"checkpoint: cannot write into {self.folder} ({reason(error)}) — make it writable "
                f"or give another folder."
            ) from error
        self._metrics = metrics(self.folder) if checkpoints.best else {}

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def paths(self) -> list[Path]:
        """The folders of all checkpoints, the newest first."""
        return found(self.folder)

    @property
    def best(self) -> float | None:
        """The best metric of the checkpoints that are kept, or None."""
        return _best(self.checkpoints, self._metrics)[1]

    def started(self, step: int, epoch: int) -> None:
        """Sets where the run begins, from which the time of the next save is counted.

        Args:
            step: how many steps were made before.
            epoch: how many epochs have ended.
        """
        self._last = _progress(step, epoch)

    def due(self, step: int, epoch: int, metric: float | None = None) -> bool:
        """Whether to save now; never while the previous save is being written, unless it is the
        best.

        Args:
            step: how many steps were made in all.
            epoch: how many epochs have ended.
            metric: at the end of an epoch, the value of `best`; a save is due where it is better
                than ever before.
        """
        if self._is_best(metric):
            return True
        if self.busy:
            return False
        interval = self.checkpoints.interval
        now = _progress(step, epoch)[interval.unit]
        last = self._last[interval.unit]
        if interval.unit == "seconds":
            return now - last >= interval.count
        return now // interval.count > last // interval.count

    def _is_best(self, metric: float | None) -> bool:
        if metric is None or self.checkpoints.best is None:
            return False
        return self.checkpoints.better(metric, self.best)

    def steps_until_due(self, step: int) -> int | None:
        """How many more steps to make before a save is due; None where `every` counts no steps.

        Args:
            step: how many steps were made in all.
        """
        interval = self.checkpoints.interval
        if interval.unit != "steps":
            return None
        return int(interval.count - step % interval.count)

    @property
    def busy(self) -> bool:
        """Whether a save is being written."""
        self._finish_pending(0)
        return self._pending is not None

    def save(
        self,
        step: int,
        epoch: int,
        tree: PyTree,
        description: object,
        metric: float | None = None,
    ) -> None:
        """Begins to save, and returns; waits first for the previous save.

        JAX arrays on the CPU are not copied: a program that one of them is donated to until the
        save is done copies it.

        Args:
            step: how many steps were made in all.
            epoch: how many epochs have ended.
            tree: arrays, typed keys and numbers, in any structure.
            description: of the run: numbers, strings, lists, dicts and NumPy arrays, as they are
                now.
            metric: the value of `best`, where this state has one.

        Raises:
            TypeError: a leaf is not an array, or the description holds something else.
        """
        self.wait()
        snapshot = _snapshot(tree)
        frozen = to_json(description)
        self._last = _progress(step, epoch)
        if self._saver is None:
            self._saver = concurrent.futures.ThreadPoolExecutor(1, "jaxdl-saver")
        self._pending_step = step
        self._pending = self._saver.submit(self._write, step, snapshot, frozen, metric)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the save that was begun is written.

        Args:
            timeout: the most seconds to wait; None waits until the end.

        Returns:
            Whether it is.
        """
        return self._finish_pending(timeout)

    def close(self) -> None:
        """Waits for the save that is being written, and releases the folder."""
        try:
            self.wait()
        finally:
            if self._saver is not None:
                self._saver.shutdown(wait=False)
            self._lock.release()

    def restore(self, like: Callable[[Any, Mapping[str, Leaf]], PyTree]) -> Restored | None:
        """Reads the newest checkpoint that can be read.

        A warning names the newer ones that cannot, and corrupt ones are renamed to `damaged-…`.

        Args:
            like: maps the description, and what is recorded of each leaf by path, to the tree to
                read into: arrays (whose devices the new ones go to), shapes, NumPy arrays, numbers,
                or `...` for an array of any shape.

        Returns:
            None where there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints and none can be read, each named with what is
                wrong; or the newest readable one does not fit the tree: then the leaves that are
                missing, extra or of another shape or dtype are listed.
        """
        self.wait()
        paths = self.paths
        errors: dict[Path, UnreadableError] = {}
        for path in paths:
            try:
                manifest, arrays = read_checkpoint(path)
            except UnreadableError as error:
                errors[path] = error
                continue
            tree = fill(like(manifest.description, manifest.leaves), manifest, arrays, path)
            if errors:
                self._set_aside(errors, path)
            return Restored(manifest.step, tree, manifest.description, path)
        if not paths:
            return None
        raise CheckpointError(
            f"checkpoint: none of the {len(paths)} in {self.folder} can be read — move them away "
            f"to start over:{_listed(errors)}"
        )

    def restart(self) -> Path:
        """Moves all checkpoints into a new folder `earlier-1`, `earlier-2`, … beside the new ones.

        Returns:
            That folder.
        """
        self.wait()
        number = 1
        while (self.folder / f"{_EARLIER}{number}").exists():
            number += 1
        aside = self.folder / f"{_EARLIER}{number}"
        aside.mkdir()
        for path in self.paths:
            path.rename(aside / path.name)
        flush(aside)
        flush(self.folder)
        self._metrics = {}
        return aside

    def _remove_incomplete(self) -> None:
        """Removes what a killed process left half written or half removed."""
        for path in self.folder.iterdir():
            if path.name.startswith(_INCOMPLETE):
                shutil.rmtree(path, ignore_errors=True)

    def _finish_pending(self, timeout: float | None) -> bool:
        """Waits for the saver, and warns of a save that failed; a warning in its own thread would
        reach nobody.
        """
        pending = self._pending
        if pending is None:
            return True
        concurrent.futures.wait([pending], timeout)
        if not pending.done():
            return False
        self._pending = None
        self._last["seconds"] = time.monotonic()
        error = pending.exception()
        if error is not None:
            self._warn_not_saved(error)
        return True

    def _warn_not_saved(self, error: BaseException) -> None:
        paths = self.paths
        before = f"{paths[0].name} is whole" if paths else "there is none before it"
        warn(
            f"checkpoint: step {self._pending_step} was not saved in {self.folder} "
            f"({reason(error)}); {before}, training continues, and the next save is attempted when "
            f"it is due.",
            RuntimeWarning,
        )

    def _write(
        self, step: int, snapshot: Snapshot, description: object, metric: float | None
    ) -> None:
        """Writes a hidden folder, renames it, and only then removes older ones."""
        target = self.folder / f"{self._next_serial():06}-step-{step}"
        hidden = self.folder / f".saving-{target.name}-{secrets.token_hex(4)}"
        try:
            hidden.mkdir()
            arrays = {path: array for path, (array, _) in snapshot.items()}
            orbax_arrays.write(hidden / ARRAYS, arrays)
            leaves = {path: trees.record_of(*entry) for path, entry in snapshot.items()}
            files = file_digests(hidden / ARRAYS)
            Manifest(step, description, metric, leaves, files).write(hidden)
            flush(hidden)
            os.rename(hidden, target)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        flush(self.folder)
        if metric is not None:
            self._metrics = self._metrics | {target.name: metric}
        # An old checkpoint that cannot be removed may stay; the new one is safe.
        with contextlib.suppress(OSError):
            self._remove_old()

    def _next_serial(self) -> int:
        return 1 + max((serial(path) for path in self.paths), default=0)

    def _remove_old(self) -> None:
        if self.checkpoints.keep is None:
            return
        best, _ = _best(self.checkpoints, self._metrics)
        for path in self.paths[self.checkpoints.keep :]:
            if path.name != best:
                remove_folder(path)
        kept = {path.name for path in self.paths}
        self._metrics = {name: value for name, value in self._metrics.items() if name in kept}

    def _set_aside(self, errors: dict[Path, UnreadableError], restored: Path) -> None:
        warn(
            f"checkpoint: resuming from {restored}, since newer checkpoints cannot be read:"
            f"{_listed(errors)}",
            RuntimeWarning,
        )
        for path, error in errors.items():
            if isinstance(error, CorruptionError):
                # One that cannot be renamed is skipped the next time too.
                with contextlib.suppress(OSError):
                    path.rename(path.with_name(f"damaged-{path.name}-{secrets.token_hex(2)}"))
                self._metrics.pop(path.name, None)


def _progress(step: int, epoch: int) -> dict[str, float]:
    """What intervals count, by unit."""
    return {"steps": step, "epochs": epoch, "seconds": time.monotonic()}


def _snapshot(tree: PyTree) -> Snapshot:
    snapshot: Snapshot = {}
    for path, leaf in trees.leaves_by_path(tree).items():
        try:
            snapshot[path] = orbax_arrays.snapshot(leaf)
        except TypeError as error:
            raise TypeError(f"checkpoint: {path} {error}") from None
    return snapshot


def _best(
    checkpoints: Checkpoints, metrics: dict[str, float]
) -> tuple[str | None, float | None]:
    """The name and the metric of the best checkpoint."""
    name = None
    best = None
    for candidate, metric in metrics.items():
        if checkpoints.better(metric, best):
            name = candidate
            best = metric
    return name, best


def _listed(errors: Mapping[Path, UnreadableError]) -> str:
    return "".join(f"\n  {path.name} {error}" for path, error in errors.items())
