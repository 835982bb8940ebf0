"""How much memory a step may need, and how much there is."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core.tree import Shapes, byte_count, thawed_shapes
from jaxdl.training.step import UpdateStep


def available_bytes(device: Any = None) -> int | None:
    """How much memory a device has free: what it reports itself, or that of the machine; None where
    nobody says.
    """
    stats = (device or jax.local_devices()[0]).memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = [room for room in (_free(), _allowed()) if room is not None]
    return min(found) if found else None


@functools.lru_cache(maxsize=64)
def step_bytes(step: UpdateStep, shapes: Shapes) -> int:
    """An upper bound of what one step computes on the way: the size of all its intermediate results
    together.

    Args:
        step: a pure step.
        shapes: of the state and of the batch.
    """
    state, batch = thawed_shapes(shapes)
    jaxpr = jax.make_jaxpr(lambda s, b: step(s, b))(state, batch)
    return byte_count((state, batch)) + _results(jaxpr.jaxpr)


def _results(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [
            value
            for value in equation.params.values()
            if hasattr(value, "eqns") or hasattr(value, "jaxpr")
        ]
        total += sum(_results(getattr(value, "jaxpr", value)) for value in inner)
        total += sum(_size(variable.aval) for variable in equation.outvars)
    return total


def _size(aval: Any) -> int:
    shape = getattr(aval, "shape", None)
    dtype = getattr(aval, "dtype", None)
    return (
        0
        if shape is None or dtype is None
        else int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    )


def _free() -> int | None:
    listing = Path("/proc/meminfo")
    if not listing.exists():
        return None
    for line in listing.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _allowed() -> int | None:
    """What is left of a control group's limit."""
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not used.exists() or limit.read_text().strip() == "max":
        return None
    return int(limit.read_text()) - int(used.read_text())
