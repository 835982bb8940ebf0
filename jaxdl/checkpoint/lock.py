"""The lock of a run's folder, so that two runs never write into one."""

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdl.checkpoint.error import CheckpointError
from jaxdl.core.warnings import warn

if TYPE_CHECKING:
    from filelock import FileLock

LOCK = ".lock"
GRACE_SECONDS = 3.0
"""How long processes that a killed run had started may still hold its lock."""


def lock_folder(folder: Path) -> "FileLock":
    """Locks a folder; the operating system releases the lock when the process ends, however it
    ends.

    Where a file system has no locks, a warning says so.

    Args:
        folder: exists.

    Returns:
        The lock, to be released.

    Raises:
        CheckpointError: another run holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, thread_local=False)
    note = folder / f"{LOCK}.json"
    try:
        lock.acquire(timeout=GRACE_SECONDS)
    except NotImplementedError:
        warn(
            f"checkpoint: {folder} cannot be locked, as its file system has no locks; make sure "
            f"that only one run uses it at a time.",
            RuntimeWarning,
        )
    except Timeout:
        raise CheckpointError(
            f"checkpoint: {folder} is in use by another run{_holder(note)} — end that one, or give "
            f"this one a folder of its own."
        ) from None
    note.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
    return lock


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f" (process {holder['process']} on {holder['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
