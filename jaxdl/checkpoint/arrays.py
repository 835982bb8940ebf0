"""The arrays of a checkpoint, written and read by Orbax."""

import contextlib
import gc
import logging
import os
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import Flaw, reason
from jaxdl.checkpoint.leaves import Leaf

_NATIVE = {
    *("bool", "bfloat16", "float16", "float32", "float64", "complex64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
_LATE = 0.3  # seconds without a callback until none is expected any more
_LARGE = 2**26  # bytes; collecting takes about a tenth of a second


def held(leaf: Any) -> tuple[Any, str | None]:
    """A leaf as it is now, whatever becomes of it later, and the name of its generator where it is
    one of keys.

    Of a JAX array on the CPU a view is held, which keeps its memory from being donated meanwhile;
    one on an accelerator is copied from there, so that its memory is free again; NumPy arrays are
    copied.

    Raises:
        TypeError: it is neither an array nor a number.
        RuntimeError: it was donated, and is no more.
    """
    plain, key = trees.as_plain(leaf)
    if not isinstance(plain, jax.Array):
        return np.array(plain), key
    return np.asarray(plain), key


def write(folder: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by path into a new folder, as an Orbax checkpoint of `array.PATH` each.

    What Orbax does not know is laid there as bytes; arrays without numbers are not laid there.
    """
    import orbax.checkpoint as ocp

    items = {_entry(path): _native(array) for path, array in arrays.items() if array.size}
    if items:
        with _quiet(), ocp.Checkpointer(_handler()) as writer:
            writer.save(folder.absolute(), args=ocp.args.PyTreeSave(items))
        _release(items)
    else:
        folder.mkdir()


def read(folder: Path, leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """Reads arrays by path, and checks that they are those that were given to `write`.

    Raises:
        Flaw: one is not, or Orbax cannot read them.
    """
    import orbax.checkpoint as ocp

    items = {
        _entry(path): ocp.RestoreArgs(restore_type=np.ndarray)
        for path, leaf in leaves.items()
        if leaf.size
    }
    restored: dict[str, Any] = {}
    if items:
        try:
            with _quiet(), ocp.Checkpointer(_handler()) as reader:
                restored = reader.restore(
                    folder.absolute(), args=ocp.args.PyTreeRestore(restore_args=items)
                )
        except Exception as error:
            raise Flaw(f"has arrays that Orbax cannot read ({reason(error)})") from error
        _release(restored)
    return {
        path: _checked(path, restored.pop(_entry(path), None), leaf)
        for path, leaf in leaves.items()
    }


def _handler() -> Any:
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointHandler(
        use_compression=False
    )  # weights do not shrink, and it takes ten times as long


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax, and asyncio of its tasks, from printing the traceback of what is raised as
    well.
    """

    def others(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(others)
    logging.getLogger("asyncio").addFilter(
        _not_of_orbax
    )  # for good: tasks that failed are collected any time later
    try:
        with _late_callbacks_dropped():
            yield
    finally:
        logger.removeFilter(others)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Whether asyncio tells of anything else than a failure of Orbax's that nobody asked for."""
    told = record.getMessage()
    return "exception was never retrieved" not in told or "orbax" not in told


@contextlib.contextmanager
def _late_callbacks_dropped() -> Iterator[None]:
    """Keeps a failure from being told once for each array.

    Orbax closes its event loop at the first operation that fails; TensorStore's threads, which come
    to the end of all the others then, find it closed, and Python prints a traceback for each. What
    is raised says it all.
    """
    before, late = sys.unraisablehook, threading.Event()

    def hook(unraisable: Any) -> None:
        if (
            isinstance(unraisable.exc_value, RuntimeError)
            and str(unraisable.exc_value) == "Event loop is closed"
        ):
            late.set()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        while late.wait(_LATE):
            late.clear()
        raise
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def _release(items: Mapping[str, Any]) -> None:
    """Frees large arrays once nobody else holds them: Orbax leaves cycles that do until Python
    happens to collect them.
    """
    if sum(array.nbytes for array in items.values()) > _LARGE:
        gc.collect()


def _entry(path: str) -> str:
    return "array." + urllib.parse.quote(path, safe="")


def _native(array: Any) -> Any:
    return array if np.dtype(array.dtype).name in _NATIVE else trees.as_bytes(array)


def _checked(path: str, array: np.ndarray | None, leaf: Leaf) -> np.ndarray:
    if not leaf.size:
        return np.zeros(leaf.shape, trees.as_dtype(leaf.dtype))
    if array is None:
        raise Flaw(f"lacks the array {path}")
    if leaf.dtype not in _NATIVE:
        array = np.ascontiguousarray(array).view(trees.as_dtype(leaf.dtype)).reshape(leaf.shape)
    if trees.note_of(array, leaf.key) != leaf:
        raise Flaw(f"has a damaged array {path}: it is not the one that was saved")
    return array
