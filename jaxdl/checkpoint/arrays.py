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
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import ArrayCorruptionError, reason
from jaxdl.checkpoint.leaves import Leaf

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

HostArray = Array | np.ndarray
"""An array whose bytes can be read at any later time."""

_NATIVE = {
    *("bool", "bfloat16", "float16", "float32", "float64", "complex64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
_LATE = 0.3  # seconds without a callback after which no other is expected
_LARGE = 2**26  # bytes; a garbage collection takes about a tenth of a second


def snapshot(leaf: object) -> tuple[HostArray, str | None]:
    """A leaf as it is now, whatever becomes of it later.

    Of a JAX array on the CPU a view is kept, which keeps its memory from being donated meanwhile;
    one on an accelerator is copied to the host, so that its memory can be freed; NumPy arrays are
    copied.

    Args:
        leaf: an array, a typed key, or a number.

    Returns:
        The array, or a key's data; and the name of the key's generator, else None.

    Raises:
        TypeError: the leaf is neither an array nor a number.
        RuntimeError: it was donated to a program.
    """
    plain, key = trees.as_plain(leaf)
    if not isinstance(plain, jax.Array):
        return np.array(plain), key
    return np.asarray(plain), key


def write(folder: Path, arrays: Mapping[str, HostArray]) -> None:
    """Writes arrays as an Orbax checkpoint, with an item `array.PATH` for each.

    Dtypes that Orbax does not know are written as bytes; arrays of size 0 are left out.

    Args:
        folder: is created.
        arrays: by path.
    """
    import orbax.checkpoint as ocp

    items = {_entry(path): _as_native(array) for path, array in arrays.items() if array.size}
    if not items:
        folder.mkdir()
        return
    with _quiet(), ocp.Checkpointer(_handler()) as writer:
        writer.save(folder.absolute(), args=ocp.args.PyTreeSave(items))
    _collect_cycles(items)


def read(folder: Path, leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """Reads the arrays that `write` wrote, and checks their digests.

    Args:
        folder: an Orbax checkpoint.
        leaves: what was recorded of each array, by path.

    Raises:
        ArrayCorruptionError: an array is missing or altered, or Orbax cannot read it.
    """
    restored = _read_items(folder, [path for path, leaf in leaves.items() if leaf.size])
    _collect_cycles(restored)
    return {
        path: _checked(path, restored.pop(_entry(path), None), leaf)
        for path, leaf in leaves.items()
    }


def _read_items(folder: Path, paths: list[str]) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    if not paths:
        return {}
    items = {_entry(path): ocp.RestoreArgs(restore_type=np.ndarray) for path in paths}
    arguments = ocp.args.PyTreeRestore(restore_args=items)
    try:
        with _quiet(), ocp.Checkpointer(_handler()) as reader:
            return reader.restore(folder.absolute(), args=arguments)
    except Exception as error:
        message = f"has arrays that Orbax cannot read ({reason(error)})"
        raise ArrayCorruptionError(message) from error


def _handler() -> "ocp.PyTreeCheckpointHandler":
    import orbax.checkpoint as ocp

    # Compression does not make weights smaller, and takes ten times as long.
    return ocp.PyTreeCheckpointHandler(use_compression=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax, and asyncio on its behalf, from printing the tracebacks of what is raised."""

    def not_from_orbax(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(not_from_orbax)
    # Stays for good: failed tasks are garbage collected at any later time.
    logging.getLogger("asyncio").addFilter(_is_not_about_orbax)
    try:
        with _late_callbacks_dropped():
            yield
    finally:
        logger.removeFilter(not_from_orbax)


def _is_not_about_orbax(record: logging.LogRecord) -> bool:
    """Whether asyncio reports anything but a failure of Orbax's that nobody awaited."""
    message = record.getMessage()
    return "exception was never retrieved" not in message or "orbax" not in message


@contextlib.contextmanager
def _late_callbacks_dropped() -> Iterator[None]:
    """Keeps a failure from being printed once for each array.

    Orbax closes its event loop at the first operation that fails; TensorStore's threads, which
    finish all others after that, find it closed, and Python prints a traceback for each. The
    exception that is raised says it all.
    """
    before = sys.unraisablehook
    late = threading.Event()

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
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


def _collect_cycles(items: Mapping[str, HostArray]) -> None:
    """Frees large arrays: Orbax leaves reference cycles that hold them until Python collects."""
    if sum(array.nbytes for array in items.values()) > _LARGE:
        gc.collect()


def _entry(path: str) -> str:
    return "array." + urllib.parse.quote(path, safe="")


def _as_native(array: HostArray) -> HostArray:
    if np.dtype(array.dtype).name in _NATIVE:
        return array
    return trees.as_bytes(array)


def _checked(path: str, array: np.ndarray | None, leaf: Leaf) -> np.ndarray:
    if not leaf.size:
        return np.zeros(leaf.shape, trees.as_dtype(leaf.dtype))
    if array is None:
        raise ArrayCorruptionError(f"has no array {path}")
    if leaf.dtype not in _NATIVE:
        dtype = trees.as_dtype(leaf.dtype)
        array = np.ascontiguousarray(array).view(dtype).reshape(leaf.shape)
    if trees.record_of(array, leaf.key) != leaf:
        raise ArrayCorruptionError(f"has a damaged array {path}: its digest does not match")
    return array
