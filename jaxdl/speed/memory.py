"""How much memory a process and a device held at most."""

import os
import sys
from pathlib import Path
from typing import Any

import jax

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def physical() -> int | None:
    """The machine's main memory in bytes, or None where the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def begin_peak() -> bool:
    """Makes `peak` count from now on.

    Returns:
        False where the system counts only from the start of the process.
    """
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak(device: Any = None) -> tuple[int | None, str]:
    """The most bytes that were held, by the device where it counts them, else by the process.

    Args:
        device: None is the first.

    Returns:
        The bytes, and what they are of.
    """
    stats = (device or jax.devices()[0]).memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"]), "in use on the device since the process began"
    return resident_peak(), "resident in the process"


def resident_peak() -> int | None:
    """The most main memory that this process held, in bytes, since it or `begin_peak` began."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
